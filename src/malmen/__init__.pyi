"""The types of the names that ``__init__.py`` gives out lazily."""

from malmen.api import (
    ask,
    check,
    edit,
    evaluate,
    load_editor,
    load_model,
    read_facts,
    read_tuples,
    read_unrelated,
    train_editor,
)
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit

__all__ = [
    "Fact",
    "FineTuning",
    "Memit",
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
]
