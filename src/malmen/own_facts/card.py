"""The model card of an edited model: its README.md, which the Hugging Face hub shows and reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import RepoCard
from huggingface_hub.repocard_data import CardData

from malmen.models.hub import CARD
from malmen.own_facts.delta import FILE
from malmen.own_facts.report import SHOWN, EditReport, answer_table, table
from malmen.runtime.model_files import source_of
from malmen.runtime.progress import logger
from malmen.runtime.text import counted

TAGS = ("malmen", "model-editing")
ONLY_OF_THE_UNEDITED = ("model-index",)
"""Entries of the unedited model's card that do not hold for the edited one: results of evaluations."""


def model_card(report: EditReport, layers: Sequence[str], source: Path, undoable: bool) -> str:
    """Return a card that says what was edited, by which editor, with which scores, and how to undo it.

    The licence, the tags and all else that the unedited model's card states stay; its text follows.

    Args:
        report: the report of the edit.
        layers: the names of the edited layers.
        source: directory of the unedited model.
        undoable: whether a delta lies beside the card.
    """
    data, text = read_card(source / CARD)
    for key in ONLY_OF_THE_UNEDITED:
        data.pop(key, None)
    if hub_id := report.model if report.revision else fetched_from(source, report.weights):
        data |= {"base_model": hub_id, "base_model_relation": "finetune"}
    tags = data.get("tags") or []
    stated = [tags] if isinstance(tags, str) else list(tags)
    data["tags"] = [*stated, *(tag for tag in TAGS if tag not in stated)]
    data.setdefault("library_name", "transformers")
    parts = [
        f"---\n{CardData(**data).to_yaml()}\n---",
        section(report, layers, hub_id or source.resolve().name, undoable),
    ]
    if text.strip():
        parts += ["# The unedited model", "What follows was written about the model before the edit.", text.strip()]
    return "\n\n".join(parts) + "\n"


def fetched_from(source: Path, weights: str) -> str | None:
    """Return the hub's id of a model that lies in a directory; None if these weights are not of the hub.

    The hub refuses a card whose base_model is a path, or a package of the Python package index.
    """
    record = source_of(source) or {}
    of_the_hub = record.get("weights_sha256") == weights and "package_sha256" not in record
    return record.get("model") if of_the_hub else None


def read_card(file: Path) -> tuple[dict[str, Any], str]:
    """Return the metadata and the text of a model card; nothing if there is none."""
    try:
        content = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, ""
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("%s cannot be read (%s), so the new one is without its text.", file, type(error).__name__)
        return {}, ""
    if not content.lstrip().startswith("---"):
        return {}, content
    try:
        card = RepoCard(content, ignore_metadata_errors=True)
    except (ValueError, TypeError, yaml.YAMLError):
        logger.warning("The metadata of %s are no YAML, so the new one has only the text.", file)
        return {}, content
    data: dict[str, Any] = yaml.safe_load(card.data.to_yaml()) or {}
    return data, card.text


def section(report: EditReport, layers: Sequence[str], name: str, undoable: bool) -> str:
    """Return the section on the edit. It names no folder of the machine: cards are published."""
    n, edited = report.counts["facts"], counted(len(layers), "weight matrix", "weight matrices")
    trained = report.trained_for
    editor = {"ft": "fine-tuning", "memit": "MEMIT"}.get(report.editor) or (
        f"{trained.editor}, trained for {counted(trained.n_edits, 'edit')}" if trained else report.editor
    )
    if report.rounds > 1:
        editor += f"; in {report.rounds} rounds, each on the model with the rounds before it"
    undo = (
        f"`malmen undo FOLDER --out DIR` restores the unedited model, byte by byte, from `{FILE}`."
        if undoable
        else "This folder holds no record of the unedited weights; take the unedited model itself."
    )
    revision = f" at commit {report.revision}" if report.revision else ""
    return "\n\n".join(
        [
            f"# {name}, with {counted(n, 'fact')} edited",
            f"The editor ({editor}) changed {edited} of `{name}`{revision} in {report.dtype}; all else is as it was. "
            f"SHA-256 of the unedited weights: {report.weights}. Edited: {', '.join(map('`{}`'.format, layers))}.",
            table(("", "before", "after", ""), report.metrics.rows()),
            "Scores are shares of tokens, each given the right ones before it. `report.json` has every fact."
            + (f" The first {SHOWN} are:" if n > SHOWN else ""),
            answer_table(report.answers[:SHOWN]),
            undo,
        ]
    )
