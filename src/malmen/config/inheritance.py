"""Filling in what a configuration leaves out, from the editors that others are based on and the models' registry."""

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from malmen.config.editors import DEFAULT, refusal, settings_class
from malmen.config.messages import MAPPING
from malmen.config.model_registry import entry_for
from malmen.runtime.text import short_repr


def complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in which every model has its registry's keys and all settings of every editor.

    Raises:
        ValueError: if a section is not a mapping, an editor is based on itself, on an unknown editor or on one of
            another method, or its method is one that cannot be used, or the registry has no such entry.
    """
    result = copy.deepcopy(dict(raw))
    editors = mapping(result.get("editors", {}), "editors")
    for name, editor in editors.items():
        mapping(editor, f"editors.{name}")
    models = mapping(result.get("models", {}), "models")
    for name, written in models.items():
        models[name] = complete_model(mapping(written, f"models.{name}"), f"models.{name}", editors)
    result["editors"] = {name: complete_editor(editors, {}, name, ()) for name in editors}
    for name, editor in result["editors"].items():
        if reason := refusal(editor):
            raise ValueError(f"editors.{name}.{reason}")
    return result


def complete_model(written: Mapping[str, Any], where: str, editors: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model with the keys of its registry entry and all settings of every editor (raises as above)."""
    model = merge(entry_for(written, where), written)
    own = mapping(model.get("editors", {}), f"{where}.editors")
    for editor, changes in own.items():
        if editor not in editors:
            raise ValueError(f"{where}.editors.{editor} changes an unknown editor; known are {', '.join(editors)}")
        mapping(changes, f"{where}.editors.{editor}")
    chunks = model.get("chunks")
    whole = {editor: complete_editor(editors, own, editor, ()) for editor in editors}
    model["editors"] = {name: with_chunks(editor, chunks) for name, editor in whole.items()}
    return model


def complete_editor(
    editors: Mapping[str, Any], own: Mapping[str, Any], name: str, seen: tuple[str, ...]
) -> dict[str, Any]:
    """Return an editor's whole settings: those it is based on, then its own, then a model's; later ones count more.

    Args:
        editors: the editors of the configuration.
        own: what a model changes in them.
        name: the editor.
        seen: the editors that are based on this one.
    """
    entry = merge(editors[name], own.get(name, {}))
    base = entry.pop("based_on", None)
    chain = (*seen, name)
    if base is None:
        return entry
    if base in chain:
        raise ValueError(f"editors.{name}.based_on is {base!r} but that is itself based on {name!r}")
    if base not in tuple(editors):
        raise ValueError(f"editors.{name}.based_on is {short_repr(base)} but must be one of {', '.join(editors)}")
    below = complete_editor(editors, own, base, chain)
    if "method" in entry and entry["method"] != method_of(below):
        raise ValueError(
            f"editors.{name}.method is {short_repr(entry['method'])} but {base!r}, on which it is based, has method "
            f"{short_repr(method_of(below))}; an editor can only be based on one of the same method"
        )
    return merge(below, entry)


def method_of(editor: Mapping[str, Any]) -> Any:
    """Return the method of an editor."""
    return editor.get("method", DEFAULT)


def with_chunks(editor: Mapping[str, Any], chunks: Any) -> dict[str, Any]:
    """Return an editor with a model's batch sizes where it sets none itself."""
    sizes = {key: value for key, value in chunks.items() if value is not None} if isinstance(chunks, Mapping) else {}
    settings = settings_class(editor)
    if settings is None or not sizes:
        return dict(editor)
    section: Any = {one.name: one.type for one in fields(settings)}.get(settings.batches_in or "", settings)
    known = {one.name for one in fields(section)}
    sizes = {key: value for key, value in sizes.items() if key in known}
    return merge({settings.batches_in: sizes} if settings.batches_in else sizes, editor)


def mapping(value: Any, where: str) -> Any:
    """Return a value of the file; raise ``ValueError`` unless it maps keys to values."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {short_repr(value)} but {MAPPING}")
    return value


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the values of ``changes`` in place of its own, section by section."""
    result = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if nested else value
    return result
