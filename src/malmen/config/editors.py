"""The editors of a configuration: one class of settings for each method."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Tag, TypeAdapter

from malmen.config.base import union_by
from malmen.config.finetuning import FineTuningEditorSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings

EDITORS = (HyperNetworkEditorSettings, FineTuningEditorSettings, MemitEditorSettings)

EditorSettings = HyperNetworkEditorSettings | FineTuningEditorSettings | MemitEditorSettings
"""The settings of an editor, whatever its method."""

Editor = Annotated[
    Annotated[HyperNetworkEditorSettings, Tag("HyperNetworkEditorSettings")]
    | Annotated[FineTuningEditorSettings, Tag("FineTuningEditorSettings")]
    | Annotated[MemitEditorSettings, Tag("MemitEditorSettings")],
    union_by("method", EDITORS, default="hypernetwork"),
]
"""The same as a value of the configuration: the key ``method`` chooses the class."""


def editor_settings(raw: Mapping[str, Any]) -> EditorSettings:
    """Build an editor's settings from nested dictionaries, as ``dataclasses.asdict`` made them."""
    return TypeAdapter[EditorSettings](Editor).validate_python(raw)
