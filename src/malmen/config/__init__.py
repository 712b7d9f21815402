"""The configuration: what can be set, with defaults and checks. Nothing here imports torch."""
