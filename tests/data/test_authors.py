"""Datasets from files in the format of the authors' own."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from upstream_files import authors_fever, authors_zsre

from malmen.config.data import TUPLE_FILES
from malmen.config.upstream_files import upstream_files
from malmen.data.authors import TupleFiles, build_fever, build_zsre, build_zsre_alternative
from malmen.data.parsing import key
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, read_documents, read_pairs, read_tuples
from malmen.errors import UserError

SHARES = {"train": 9, "tune": 1, "validation": 77}
Build = Callable[[TupleFiles, Path, int, dict[str, int]], dict[str, int]]


def written(folder: Path, record: Callable[[int], dict[str, Any]], n: int = 200, n_eval: int = 80) -> TupleFiles:
    """Write a training and an evaluation file; no record is in both."""
    for name, numbers in (("train", range(n)), ("eval", range(n, n + n_eval))):
        (folder / f"{name}.json").write_text(json.dumps([record(i) for i in numbers]), encoding="utf-8")
    return TupleFiles(folder / "train.json", folder / "eval.json", (n, n_eval))


def read(folder: Path) -> dict[str, list[EditTuple]]:
    return {name: read_tuples(folder / f"{name}.jsonl") for name in SPLITS}


def test_fever_keeps_every_record_and_finetunes_on_the_true_labels(tmp_path: Path) -> None:
    counts = build_fever(written(tmp_path, authors_fever), tmp_path / "out", 1, SHARES)
    splits = read(tmp_path / "out")
    assert [len(splits[name]) for name in SPLITS] == [180, 20, 80]
    assert [counts[f"split_{name}"] for name in SPLITS] == [180, 20, 80]
    items = {item.id: item for item in chain(*splits.values())}
    assert {item.id for item in splits["validation"]} == {f"fever-eval-{i}" for i in range(80)}
    assert items["fever-train-5"] == EditTuple(
        "fever-train-5",
        PromptAnswer("Claim 5 holds.", "REFUTES"),
        ("It holds: claim 5.", "Claim 5 is true."),
        PromptAnswer("Other claim 5.", "REFUTES"),  # not settled: not supported
    )
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert len(finetune) == 280
    for item in items.values():
        assert {finetune[item.edit.prompt], item.edit.answer} == {"SUPPORTS", "REFUTES"}
    assert counts["unrelated_supports"] == sum(item.unrelated.answer == "SUPPORTS" for item in items.values()) == 93
    assert counts["unrelated_refutes"] == 187
    assert len(read_documents(tmp_path / "out" / "text.txt")) == 180
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts


def test_zsre_edits_to_the_correct_answers(tmp_path: Path) -> None:
    build_zsre(written(tmp_path, authors_zsre), tmp_path / "out", 1, SHARES)
    splits = read(tmp_path / "out")
    assert [len(splits[name]) for name in SPLITS] == [180, 20, 80]
    assert [item for item in splits["validation"] if item.id == "zsre-eval-3"] == [
        EditTuple(
            "zsre-eval-3",
            PromptAnswer("Who made thing 203?", "Maker 3"),
            ("Thing 203 was made by whom?",),
            PromptAnswer("where is place 203?", "Country 203"),
        )
    ]
    assert splits["train"][0].id != "zsre-train-0"  # in an order drawn by a hash
    text = (tmp_path / "out" / "text.txt").read_text()
    assert "Maker" not in text and "where is place" in text
    assert not any("Who made" in pair.prompt for pair in read_pairs(tmp_path / "out" / "finetune.jsonl"))


def fever_pair(i: int) -> dict[str, Any]:
    """A claim whose unrelated one is in both files for every fourth record: validation's claims are 200 to 279."""
    return authors_fever(i) | {"unrel_prompt": f"Other claim {i % 100 + 200 if i % 4 == 0 else i}."}


@pytest.mark.parametrize(
    "build, record",
    [(build_fever, fever_pair), (build_zsre, lambda i: authors_zsre(i) | {"loc": f"where is {i % 230}"})],
)
def test_unrelated_prompts_that_training_shares_with_validation_are_counted_and_replaced(
    tmp_path: Path, build: Build, record: Callable[[int], dict[str, Any]]
) -> None:
    files = written(tmp_path, record)
    kept = build(files, tmp_path / "kept", 1, SHARES)
    parted = build(replace(files, shared_unrelated="replace"), tmp_path / "parted", 1, SHARES)
    before, after = read(tmp_path / "kept"), read(tmp_path / "parted")

    def unrelated(splits: dict[str, list[EditTuple]], name: str) -> list[str]:
        return [item.unrelated.prompt for item in splits[name]]

    reported = set(unrelated(before, "validation"))
    shared = {name: sum(prompt in reported for prompt in unrelated(before, name)) for name in ("train", "tune")}
    trained = {*unrelated(before, "train"), *unrelated(before, "tune")}
    assert shared["train"] > 0
    assert {name: kept[f"unrelated_shared_{name}"] for name in shared} == shared
    assert kept["unrelated_shared_validation"] == sum(prompt in trained for prompt in unrelated(before, "validation"))
    assert (kept["unrelated_replaced"], parted["unrelated_replaced"]) == (0, sum(shared.values()))
    assert after["validation"] == before["validation"]
    assert not reported & {*unrelated(after, "train"), *unrelated(after, "tune")}
    for name in shared:
        assert [item.edit for item in after[name]] == [item.edit for item in before[name]]
        unshared = [item for item in before[name] if item.unrelated.prompt not in reported]
        assert [item for item in after[name] if item.id in {one.id for one in unshared}] == unshared


def test_training_that_shares_every_unrelated_prompt_cannot_replace_them(tmp_path: Path) -> None:
    files = written(tmp_path, lambda i: authors_zsre(i) | {"loc": "where is it"})
    with pytest.raises(UserError, match="shared_unrelated: keep"):
        build_zsre(replace(files, shared_unrelated="replace"), tmp_path / "out", 1, SHARES)


def test_alternative_answers_are_wrong_and_unrelated_questions_come_from_zsre(tmp_path: Path) -> None:
    counts = build_zsre_alternative(written(tmp_path, authors_zsre), tmp_path / "out", 1, SHARES)
    splits = read(tmp_path / "out")
    right = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert len(right) == 280
    items = list(chain(*splits.values()))
    assert all(right[item.edit.prompt] != item.edit.answer and item.edit.answer in right.values() for item in items)
    assert all(right[item.unrelated.prompt] == item.unrelated.answer for item in items)
    edited = {key(text) for item in items for text in (item.edit.prompt, *item.equivalent)}
    assert edited.isdisjoint(key(item.unrelated.prompt) for item in items)
    unrelated = [{item.unrelated for item in splits[name]} for name in SPLITS]
    assert unrelated[0].isdisjoint(unrelated[1]) and unrelated[2].isdisjoint(unrelated[0] | unrelated[1])
    assert all(item.id.startswith("zsre-eval-") for item in splits["validation"])
    assert len(items) + counts["unrelated_kept"] == 280 and counts["unrelated_kept"] > 40


@pytest.mark.parametrize(
    ("build", "record"),
    [(build_fever, authors_fever), (build_zsre, authors_zsre), (build_zsre_alternative, authors_zsre)],
)
def test_two_builds_are_alike_and_the_seed_matters(
    tmp_path: Path, build: Build, record: Callable[[int], dict[str, Any]]
) -> None:
    files = written(tmp_path, record)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(files, tmp_path / name, seed, SHARES)
    contents = [(tmp_path / name / "tune.jsonl").read_bytes() for name in ("a", "b", "c")]
    assert contents[0] == contents[1] != contents[2]


def test_another_number_of_records_is_refused(tmp_path: Path) -> None:
    files = written(tmp_path, authors_fever)
    wrong = TupleFiles(files.train, files.evaluation, (200, 10_444))
    with pytest.raises(UserError, match=r"eval\.json holds 80 records but the paper's has 10,444; "):
        build_fever(wrong, tmp_path / "out", 1, SHARES)
    assert not (tmp_path / "out").exists()


def test_the_counts_of_the_paper_are_those_of_the_registry() -> None:
    counts = {
        name: [upstream_files()[file].records for file in files] for name, files in TUPLE_FILES["authors"].items()
    }
    assert counts["fever"] == [104_966, 10_444]
    assert counts["zsre"] == counts["zsre_alternative"] == [244_173, 27_644]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alt": "MAYBE"}, "the label 'MAYBE' is neither SUPPORTS nor REFUTES"),
        ({"equiv_prompt": "one"}, "equiv_prompt must be a list"),
        ({"equiv_prompt": []}, "'equivalent' must be a non-empty list"),
        ({"unrel_prompt": None}, "expected text, found None"),
    ],
)
def test_a_malformed_record_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    files = written(tmp_path, lambda i: authors_fever(i) | (change if i == 7 else {}))
    with pytest.raises(UserError, match=rf"train\.json, record 7: {reason}.*; download the file again\.$"):
        build_fever(files, tmp_path / "out", 1, SHARES)


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    files = written(tmp_path, lambda i: {name: value for name, value in authors_zsre(i).items() if name != "loc"})
    with pytest.raises(UserError, match=r"train\.json, record 0: field 'loc' is missing"):
        build_zsre(files, tmp_path / "out", 1, SHARES)
