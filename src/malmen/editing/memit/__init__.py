"""MEMIT (Meng et al., 2023), one module per step of the method."""
