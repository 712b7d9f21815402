"""The types of the names that ``__init__.py`` gives out lazily."""

from malmen.api import (
    apply_edit,
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
    undo_edit,
    usual_settings,
)
from malmen.own_facts.facts import Fact
from malmen.own_facts.methods import FineTuning, Memit

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
