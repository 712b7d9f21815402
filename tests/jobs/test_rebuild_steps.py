"""The jobs of rebuilding the data that run a model."""

from pathlib import Path

import pytest
import torch
from tiny_models import FFN, save_model, tiny_model
from tiny_translators import GERMAN, save_translator
from upstream_files import json_lines, kilt_fever, kilt_zsre, some

from malmen.config.base import Architecture
from malmen.config.translation import TranslationSettings
from malmen.data.kilt import Original
from malmen.data.parsing import key
from malmen.data.rebuild import (
    Corpus,
    OriginalsPart,
    all_originals,
    read_rephrasings,
    select_originals,
    write_rephrasings,
)
from malmen.data.tuples import PromptAnswer
from malmen.jobs.back_translate import translate_part
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.filter_rephrasings import filter_part
from malmen.models.language_model import LanguageModel
from malmen.models.tasks import TASKS

MODELS: dict[Architecture, Corpus] = {"bert": "fever", "gpt2": "zsre", "bart": "zsre"}


def originals_of(folder: Path, corpus: Corpus, count: int) -> Path:
    record = kilt_fever if corpus == "fever" else kilt_zsre
    select_originals(
        corpus, [json_lines(folder / "kilt.jsonl", some(record, 0, count))], [], folder / "originals.jsonl"
    )
    return folder / "originals.jsonl"


def test_a_part_is_translated_and_back(tmp_path: Path) -> None:
    originals = originals_of(tmp_path, "fever", 7)
    english = [item.prompt for item in all_originals(originals)]
    models = (
        save_translator(tmp_path / "there", english, GERMAN),
        save_translator(tmp_path / "back", GERMAN, english, seed=1),
    )
    settings = TranslationSettings(beams=3, translations=3, max_tokens=12)
    found: dict[str, list[str]] = {}
    for number in range(2):
        out = tmp_path / f"{number}.jsonl"
        report = translate_part(originals, OriginalsPart(number, 2), *models, settings, out, Machine())
        part = read_rephrasings([out])
        assert report.read == 9 * len(part) and report.kept == sum(map(len, part.values())) > 0
        found |= part
    assert found.keys() == {item.id for item in all_originals(originals)}
    for item in all_originals(originals):
        keys = [key(text) for text in (item.prompt, *found[item.id])]
        assert len(set(keys)) == len(keys)
    translate_part(originals, OriginalsPart(1, 2), *models, settings, tmp_path / "again.jsonl", Machine())
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def saved(folder: Path, architecture: Architecture) -> tuple[ModelSpec, LanguageModel]:
    """Write a model with large weights, so that what it says depends on what it reads."""
    model = tiny_model(architecture, torch.float32)
    save_model(folder, model)
    task = next(name for name, task in TASKS.items() if task is model.task)
    spec = ModelSpec(architecture, architecture, "any", task, "float32", folder, FFN[architecture])
    return spec, model


@torch.no_grad()
def answers(model: LanguageModel, original: Original, prompt: str) -> list[int]:
    """Return what a model says, by itself: its most probable answer at each place."""
    example = model.task.encode(PromptAnswer(prompt, original.answer), model)
    return model.task.prediction(model.answer_logits(model.collate([example], [0]))).tolist()


@pytest.mark.parametrize("architecture", MODELS)
def test_rephrasings_that_are_answered_otherwise_are_dropped(tmp_path: Path, architecture: Architecture) -> None:
    originals = originals_of(tmp_path, MODELS[architecture], 12)
    spec, model = saved(tmp_path / "model", architecture)
    everything = all_originals(originals)
    candidates = {
        item.id: [f"{word} {item.prompt}" for word in ("Yes", "So", "No", "Where was the", "Say")]
        for item in everything
    }
    candidates[everything[3].id] = []
    long = " ".join(["far"] * 500)
    if architecture != "bert":  # which reads the beginning of a long claim
        candidates[everything[2].id].append(long)
    write_rephrasings(tmp_path / "part.jsonl", candidates)
    report = filter_part(spec, originals, tmp_path / "part.jsonl", 8, tmp_path / "kept.jsonl", Machine())
    kept = read_rephrasings([tmp_path / "kept.jsonl"])
    for item in everything:
        right = answers(model, item, item.prompt)
        texts = [text for text in candidates[item.id] if text != long]
        assert kept[item.id] == [text for text in texts if answers(model, item, text) == right]
    assert report.dropped["too_long"] == int(architecture != "bert")
    assert report.dropped["other_prediction"] > 0 and report.kept > 0


def test_a_part_without_originals_is_empty(tmp_path: Path) -> None:
    originals = originals_of(tmp_path, "fever", 2)
    spec, _ = saved(tmp_path / "model", "bert")
    write_rephrasings(tmp_path / "part.jsonl", {})
    report = filter_part(spec, originals, tmp_path / "part.jsonl", 8, tmp_path / "kept.jsonl", Machine())
    assert (report.read, report.kept) == (0, 0)
    assert read_rephrasings([tmp_path / "kept.jsonl"]) == {}
