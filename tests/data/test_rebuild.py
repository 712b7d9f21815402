"""The steps of rebuilding the data that need no model."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from upstream_files import Record, fever2, json_lines, kilt_fever, kilt_zsre, nq_open, some

from malmen.data.download import MIRROR_VARIABLE, fetch
from malmen.data.fever import OPPOSITE, read_claims
from malmen.data.kilt import Original
from malmen.data.paraphrase import paraphrase
from malmen.data.parsing import key
from malmen.data.rebuild import (
    Corpus,
    Ingredients,
    OriginalsPart,
    all_originals,
    choose_alternatives,
    distinct,
    list_finetuning_data,
    pair_tuples,
    read_originals,
    read_rephrasings,
    select_originals,
    write_rephrasings,
)
from malmen.data.reports import Report
from malmen.data.tuples import SPLITS, EditTuple, enumerate_jsonl, read_documents, read_pairs, read_tuples
from malmen.errors import UserError

SHARES = {"train": 6, "tune": 1, "validation": 3}
STEP = Report("select", "prompts", 1, {}, 1)


def select(
    folder: Path, corpus: Corpus, train: Sequence[Record], validation: Sequence[Record] = ()
) -> tuple[Path, Report]:
    paths = json_lines(folder / "train.jsonl", train), json_lines(folder / "dev.jsonl", validation)
    return folder / "originals.jsonl", select_originals(corpus, paths[:1], paths[1:], folder / "originals.jsonl")


def rephrase(folder: Path, originals: Path, without: Callable[[Original], bool] = lambda _: False) -> Path:
    """Write a rephrasing of every original but some."""
    rephrasings = {item.id: [f"So: {item.prompt}"][without(item) :] for item in all_originals(originals)}
    write_rephrasings(folder / "rephrasings.jsonl", rephrasings)
    return folder / "rephrasings.jsonl"


def paired(folder: Path, dataset: str, ingredients: Ingredients) -> tuple[dict[str, list[EditTuple]], Report]:
    report = pair_tuples(dataset, ingredients, SHARES, 1, [STEP], folder / "out")
    return {name: read_tuples(folder / "out" / f"{name}.jsonl") for name in SPLITS}, report


def test_one_original_per_text_is_selected(tmp_path: Path) -> None:
    same = kilt_fever(3) | {"id": "1", "input": kilt_fever(3)["input"].upper()}
    other = kilt_fever(5) | {"id": "2", "output": kilt_fever(6)["output"]}
    path, report = select(tmp_path, "fever", [*some(kilt_fever, 0, 10), same, other], some(kilt_fever, 8, 14))
    assert report == Report("select", "prompts", 18, {"contradictory": 2, "repeated": 3}, 13)
    parts = read_originals(path)
    assert [item.id for item in parts[True]] == [f"fever-{70000 + i}" for i in range(8, 14)]
    assert [item.id for item in parts[False]] == [f"fever-{70000 + i}" for i in (0, 1, 2, 3, 4, 6, 7)]


def test_parts_make_up_the_whole(tmp_path: Path) -> None:
    originals = all_originals(select(tmp_path, "zsre", some(kilt_zsre, 0, 5))[0])
    parts = [OriginalsPart(i, 3)(originals) for i in range(3)]
    assert sorted(map(len, parts)) == [3, 3, 4]
    assert {item.id for part in parts for item in part} == {item.id for item in originals}
    assert OriginalsPart(11, 12)(originals) == []


def test_candidates_must_differ() -> None:
    candidates = ["Who  is it? ", "who is it", "Is it he?", "IS IT HE", "?!", "", "It is who?"]
    kept, dropped = distinct("Who is it?", candidates)
    assert kept == ["Is it he?", "It is who?"]
    assert dropped == {"empty": 2, "same_as_the_original": 2, "repeated": 1}


def test_an_alternative_is_the_answer_of_another_question_about_the_relation(tmp_path: Path) -> None:
    only = kilt_zsre(0) | {"input": "It [SEP] made of", "meta": {"template_questions": ["What is it made of?"]}}
    other = kilt_zsre(0) | {"input": "He [SEP] job", "meta": {"template_questions": ["What does he do?"]}}
    more = [only, only | {"meta": {"template_questions": ["Of what is it made?"]}}]
    jobs = [other, other | {"output": [{"answer": "cook"}], "meta": {"template_questions": ["What is his job?"]}}]
    path, _ = select(tmp_path, "zsre", [*some(kilt_zsre, 0, 10), *more, *jobs])
    report = choose_alternatives(path, 1, tmp_path / "alternatives.jsonl")
    assert report == Report("choose alternatives", "prompts", 24, {"no_other_answer": 2}, 22)
    chosen = {record["id"]: record["answer"] for _, record in enumerate_jsonl(tmp_path / "alternatives.jsonl")}
    for item in all_originals(path):
        if item.relation == "place of birth":
            assert chosen[item.id] in {"Avaria", "Belmar", "Corvo", "Dunmore", "Estwick"} - {item.answer}
        elif item.relation == "job":
            assert {chosen[item.id], item.answer} == {"Avaria", "cook"}
        else:
            assert item.id not in chosen


def test_claims_get_the_opposite_label(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "fever", some(kilt_fever, 0, 40), some(kilt_fever, 40, 60))
    rephrasings = rephrase(tmp_path, path, lambda item: item.id.endswith("7"))
    unrelated = json_lines(tmp_path / "fever2.jsonl", some(fever2, 0, 60))
    splits, report = paired(tmp_path, "fever", Ingredients(path, [rephrasings], None, [unrelated]))
    dropped = {"unrelated_tuples": 0, "no_rephrasing": 6, "no_alternative": 0, "also_unrelated": 0}
    assert report == Report("pair", "prompts", 60, dropped, 54)
    assert [len(items) for items in splits.values()] == [31, 5, 18]
    assert {item.id for item in splits["validation"]} == {f"fever-{70040 + i}" for i in range(20) if i % 10 != 7}
    true = {item.id: item for item in all_originals(path)}
    for item in chain(*splits.values()):
        assert item.edit.answer == OPPOSITE[true[item.id].answer]
        assert item.equivalent == (f"So: {item.edit.prompt}",) and item.subject == true[item.id].subject
        assert item.unrelated.prompt.startswith("There is a river")
    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    assert counts == {
        "steps": [asdict(STEP), asdict(report)],
        "unrelated": 40,
        "splits": {"train": 31, "tune": 5} | {"validation": 18},
    }


def test_questions_get_the_correct_answer_and_one_split_each_subject(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "zsre", some(kilt_zsre, 0, 60))
    unrelated = json_lines(tmp_path / "nq.jsonl", some(nq_open, 0, 60))
    splits, _ = paired(tmp_path, "zsre", Ingredients(path, [rephrase(tmp_path, path)], None, [unrelated]))
    assert [len(items) for items in splits.values()] == [72, 12, 36]
    true = {item.id: item.answer for item in all_originals(path)}
    assert all(item.edit.answer == true[item.id] for item in chain(*splits.values()))
    subjects = [{item.subject for item in items} for items in splits.values()]
    assert subjects[0].isdisjoint(subjects[1]) and subjects[2].isdisjoint(subjects[0] | subjects[1])
    pools = [{item.unrelated for item in items} for items in splits.values()]
    assert pools[0].isdisjoint(pools[1]) and pools[2].isdisjoint(pools[0] | pools[1])


def test_edits_to_wrong_answers_leave_other_subjects_alone(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "zsre", some(kilt_zsre, 0, 60))
    choose_alternatives(path, 1, tmp_path / "alternatives.jsonl")
    ingredients = Ingredients(path, [rephrase(tmp_path, path)], tmp_path / "alternatives.jsonl", [])
    splits, report = paired(tmp_path, "zsre_alternative", ingredients)
    items = list(chain(*splits.values()))
    assert len(items) + report.dropped["unrelated_tuples"] == 120 and report.dropped["unrelated_tuples"] > 10
    true = {item.prompt: item for item in all_originals(path)}
    assert all(true[item.edit.prompt].answer != item.edit.answer for item in items)
    assert all(true[item.unrelated.prompt].answer == item.unrelated.answer for item in items)
    assert {true[item.unrelated.prompt].subject for item in items}.isdisjoint(item.subject for item in items)


def test_a_prompt_that_is_also_unrelated_is_dropped(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "fever", some(kilt_fever, 0, 40))
    claims = [*some(fever2, 0, 60), fever2(0) | {"claim": "so " + kilt_fever(2)["input"]}]
    unrelated = json_lines(tmp_path / "fever2.jsonl", claims)
    _, report = paired(tmp_path, "fever", Ingredients(path, [rephrase(tmp_path, path)], None, [unrelated]))
    assert report.dropped["also_unrelated"] == 1


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "fever", some(kilt_fever, 0, 4))
    unrelated = json_lines(tmp_path / "fever2.jsonl", some(fever2, 0, 6))
    ingredients = Ingredients(path, [rephrase(tmp_path, path, lambda _: True)], None, [unrelated])
    with pytest.raises(UserError, match=r"fever .*'no_rephrasing': 4"):
        paired(tmp_path, "fever", ingredients)


def test_two_builds_are_alike(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "zsre", some(kilt_zsre, 0, 60))
    rephrasings = rephrase(tmp_path, path)
    for name in ("a", "b"):
        choose_alternatives(path, 1, tmp_path / f"{name}.jsonl")
        ingredients = Ingredients(path, [rephrasings], tmp_path / f"{name}.jsonl", [])
        pair_tuples("zsre_alternative", ingredients, SHARES, 1, [STEP], tmp_path / name)
    files = [sorted((tmp_path / name).iterdir()) for name in ("a", "b")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def finetuning_data(
    folder: Path, dataset: str, originals: Path, unrelated: Sequence[Path]
) -> tuple[dict[str, str], list[Any]]:
    list_finetuning_data(dataset, originals, unrelated, folder / dataset)
    pairs = read_pairs(folder / dataset / "finetune.jsonl")
    return {pair.prompt: pair.answer for pair in pairs}, read_documents(folder / dataset / "text.txt")


def test_a_fact_checker_is_finetuned_on_all_true_labels(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "fever", some(kilt_fever, 0, 10), some(kilt_fever, 10, 14))
    known, documents = finetuning_data(tmp_path, "fever", path, [])
    assert known == {kilt_fever(i)["input"]: ("SUPPORTS", "REFUTES")[i % 2] for i in range(14)}
    assert len(documents) == 10  # one per page, of the claims for training


def test_a_question_answerer_is_finetuned_on_what_it_must_not_forget(tmp_path: Path) -> None:
    path, _ = select(tmp_path, "zsre", some(kilt_zsre, 0, 4))
    unrelated = json_lines(tmp_path / "nq.jsonl", some(nq_open, 0, 3))
    known, documents = finetuning_data(tmp_path, "zsre", path, [unrelated])
    assert known == {f"What is the capital of land {i}?": f"Town {i}" for i in range(3)}
    assert documents[1] == [item.prompt for item in all_originals(path)]
    known, documents = finetuning_data(tmp_path, "zsre_alternative", path, [])
    assert known == {item.prompt: item.answer for item in all_originals(path)}
    assert len(documents) == 1 and documents[0][0].endswith("? Avaria")


@pytest.mark.skipif(not os.environ.get(MIRROR_VARIABLE), reason=f"{MIRROR_VARIABLE} names no mirror of upstream files")
def test_real_claims_in_kilts_form_are_paired_with_real_ones_of_fever2(tmp_path: Path) -> None:
    names = "fever_paper_dev", "fever2_fixers_dev"
    claims, unrelated = (fetch(name, tmp_path / name, os.environ[MIRROR_VARIABLE]) for name in names)
    settled = [claim for claim in read_claims(claims) if claim.label in OPPOSITE]
    records = [
        {"id": claim.id.removeprefix("fever-"), "input": claim.text, "output": [{"answer": claim.label}], "meta": {}}
        for claim in settled
    ]
    path, report = select(tmp_path, "fever", records)
    assert report.read == len(settled) == 6666
    candidates = {item.id: paraphrase(item.prompt, 3, 0) for item in all_originals(path)}
    write_rephrasings(
        tmp_path / "rephrasings.jsonl", {i.id: distinct(i.prompt, candidates[i.id])[0] for i in all_originals(path)}
    )
    assert set(map(len, read_rephrasings([tmp_path / "rephrasings.jsonl"]).values())) == {3}
    splits, report = paired(tmp_path, "fever", Ingredients(path, [tmp_path / "rephrasings.jsonl"], None, [unrelated]))
    items = list(chain(*splits.values()))
    assert report.kept == len(items) > 6400
    assert {item.unrelated.answer for item in items} == {"SUPPORTS", "REFUTES"}
    assert len({key(item.unrelated.prompt) for item in items}) == 787
