"""The editors of a configuration: one class of settings for each method, of this package or of another."""

import operator
from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Tag, TypeAdapter

from malmen.config.base import union_by
from malmen.config.editor import EditorSettings
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.config.outside_editors import OutsideEditors, method_of
from malmen.config.ultraedit import UltraEditEditorSettings
from malmen.errors import UserError

__all__ = [
    "BUILT_IN",
    "CODE",
    "EDITORS",
    "OUTSIDE",
    "Editor",
    "EditorSettings",
    "editor_settings",
    "refusal",
    "settings_class",
]

DEFAULT = "hypernetwork"
"""The method of an editor that names none."""

BUILT_IN: tuple[type[EditorSettings], ...] = (
    HyperNetworkEditorSettings,
    FineTuningEditorSettings,
    MemitEditorSettings,
    UltraEditEditorSettings,
)
"""The editors of this package; how each is made, :data:`malmen.editing.editors.EDITORS` says."""

CODE = "code_of_editor"
"""Where the settings that a job is given hold the digests of the code of an editor of another package."""

OUTSIDE = OutsideEditors.found(BUILT_IN)
"""Those of other packages."""

EDITORS = (*BUILT_IN, *OUTSIDE.settings)

if TYPE_CHECKING:
    Editor = EditorSettings
else:
    Editor = Annotated[
        reduce(operator.or_, [Annotated[settings, Tag(settings.__name__)] for settings in EDITORS]),
        union_by("method", EDITORS, default=DEFAULT),
    ]
    """An editor as a value of the configuration: the key ``method`` chooses the class."""


def editor_settings(raw: Mapping[str, Any]) -> EditorSettings:
    """Build an editor's settings from nested dictionaries, as ``dataclasses.asdict`` made them.

    The code of an editor of another package (:data:`CODE`) is not read.

    Raises:
        UserError: if its method is that of another package which cannot be used.
    """
    if reason := refusal(raw):
        raise UserError(f"The editor's {reason}.")
    return TypeAdapter[EditorSettings](Editor).validate_python({key: raw[key] for key in raw if key != CODE})


def settings_class(raw: Mapping[str, Any]) -> type[EditorSettings] | None:
    """Return the class of the settings of an editor as a file gives them; None if there is none of its method."""
    return next((one for one in EDITORS if method_of(one) == raw.get("method", DEFAULT)), None)


def refusal(raw: Mapping[str, Any]) -> str | None:
    """Return why an editor's method cannot be used, as the rest of a sentence; None if nothing is known against it."""
    method = raw.get("method", DEFAULT)
    reason = OUTSIDE.refused.get(method) if isinstance(method, str) else None
    return reason and f"method is {method!r}, but {reason}"
