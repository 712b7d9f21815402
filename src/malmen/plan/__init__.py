"""How many operations, how much time, memory and disk a run will take. Nothing here imports torch."""
