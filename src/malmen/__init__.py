"""Massive editing of language models: a reproduction of MALMEN (Tan, Zhang and Fu, ICLR 2024).

The names of the Python API (``docs/python-api.md``) come from :mod:`malmen.api` when they are first used. So
``import malmen`` is quick, and no job of the workflow depends on the API.
"""

from importlib import import_module

__all__ = [
    "Fact",
    "FineTuning",
    "Memit",
    "apply_edit",
    "ask",
    "check",
    "edit",
    "evaluate",
    "load_editor",
    "load_model",
    "read_facts",
    "read_tuples",
    "read_unrelated",
    "train_editor",
    "undo_edit",
    "usual_settings",
]


def __getattr__(name: str) -> object:
    """Return a name of the API."""
    if name in __all__:
        return getattr(import_module("malmen.api"), name)
    raise AttributeError(f"module 'malmen' has no attribute {name!r}")
