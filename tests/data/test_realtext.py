"""Datasets from upstream files: hand-made ones, and the real ones where a mirror of them is at hand."""

import hashlib
import json
import os
from collections.abc import Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from malmen.config.upstream_files import upstream_files
from malmen.data.download import MIRROR_VARIABLE, fetch, mirror_places
from malmen.data.fever import read_claims
from malmen.data.parsing import key
from malmen.data.realtext import RawFiles, build_fever, build_zsre, build_zsre_alternative, draw_unrelated
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, read_pairs, read_tuples
from malmen.errors import UserError

SHARES = {"train": 6, "tune": 2, "validation": 2}
MIRROR = os.environ.get(MIRROR_VARIABLE) or str(Path(__file__).parents[3] / "shared" / "mirror")
FEVER = RawFiles([Path("fever_paper_dev"), Path("fever_paper_test")], [Path("fever2_fixers_dev")])
ZSRE = RawFiles([Path("zsre_knowedit_test")], [Path("nq_open_dev"), Path("nq_efficientqa_dev")])


def write(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in records), encoding="utf-8")
    return path


def claims(count: int, kind: str) -> list[dict[str, Any]]:
    """Claims about ``count // 3`` pages, true and false in turn."""
    return [
        {
            "id": i,
            "label": ("SUPPORTS", "REFUTES")[i % 2],
            "claim": f"{kind} {i // 3} has property {i}.",
            "evidence": [[[0, 0, f"{kind}_{i // 3}", 0]]],
        }
        for i in range(count)
    ]


@pytest.fixture
def small_fever(tmp_path: Path) -> RawFiles:
    edits = [*claims(60, "Page"), {"id": 60, "label": "SUPPORTS", "claim": "Other 0 has property 0!", "evidence": []}]
    return RawFiles([write(tmp_path / "a.jsonl", edits)], [write(tmp_path / "b.jsonl", claims(20, "Other"))])


@pytest.fixture
def small_zsre(tmp_path: Path) -> RawFiles:
    questions = [
        {
            "subject": f"Star {i // 3}",
            "prompt": f"What is fact {i} of Star {i // 3}?",
            "rephrase_prompt": f"Fact {i} of Star {i // 3} is what?",
            "ground_truth": [f"secret{i}"],
        }
        for i in range(60)
    ]
    (tmp_path / "z.json").write_text(json.dumps(questions))
    nq = [{"question": f"who is number {i}", "answer": [f"Person {i}"]} for i in range(100)]
    return RawFiles([tmp_path / "z.json"], [write(tmp_path / "nq.jsonl", nq)])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real files under their registry names, or a skip."""
    folder = tmp_path_factory.mktemp("upstream")
    for path in chain(FEVER.edits, FEVER.unrelated, ZSRE.edits, ZSRE.unrelated):
        if not Path(mirror_places(upstream_files()[path.name], MIRROR)[0]).is_file():
            pytest.skip(f"there is no mirror directory with {path.name}; set {MIRROR_VARIABLE}")
        fetch(path.name, folder / path, MIRROR)
    return folder


def under(folder: Path, raw: RawFiles) -> RawFiles:
    return RawFiles([folder / path for path in raw.edits], [folder / path for path in raw.unrelated])


def read(folder: Path) -> dict[str, list[EditTuple]]:
    return {name: read_tuples(folder / f"{name}.jsonl") for name in SPLITS}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def assert_splits_are_disjoint(splits: dict[str, list[EditTuple]]) -> None:
    """No subject, edit or unrelated prompt is on two sides, and no prompt is both edited and unrelated."""
    for one, other in combinations(SPLITS, 2):
        assert {i.subject for i in splits[one]}.isdisjoint(i.subject for i in splits[other])
        assert {key(i.edit.prompt) for i in splits[one]}.isdisjoint(key(i.edit.prompt) for i in splits[other])
        assert {i.unrelated for i in splits[one]}.isdisjoint(i.unrelated for i in splits[other])
    everything = list(chain(*splits.values()))
    assert {key(i.edit.prompt) for i in everything}.isdisjoint(key(i.unrelated.prompt) for i in everything)


def test_fever_is_built_from_claims(small_fever: RawFiles, tmp_path: Path) -> None:
    counts = build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, n_equivalent=2)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert counts["edits_read"] == 61
    assert counts["edits_dropped_also_unrelated"] == 1
    assert counts["edits_kept"] == 60 == sum(len(splits[name]) for name in SPLITS)
    assert counts["unrelated_kept"] == 20
    assert [counts[f"split_{name}"] for name in SPLITS] == [36, 12, 12]
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts


def test_fever_teaches_the_true_labels_of_all_claims(small_fever: RawFiles, tmp_path: Path) -> None:
    build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, n_equivalent=2)
    taught = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    text = (tmp_path / "out" / "text.txt").read_text().splitlines()
    splits = read(tmp_path / "out")
    for item in chain(*splits.values()):
        assert {taught[item.edit.prompt], item.edit.answer} == {"SUPPORTS", "REFUTES"}
        assert taught[item.unrelated.prompt] == item.unrelated.answer
        assert item.edit.prompt in text
    assert len(taught) == 80
    assert all(item.equivalent[0] in text for item in splits["train"])
    assert not any(set(item.equivalent) & set(text) for item in splits["validation"])


def test_zsre_is_built_from_questions(small_zsre: RawFiles, tmp_path: Path) -> None:
    counts = build_zsre(small_zsre, tmp_path / "out", seed=1, shares=SHARES)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert [counts[f"split_{name}"] for name in SPLITS] == [36, 12, 12]
    taught = read_pairs(tmp_path / "out" / "finetune.jsonl")
    assert set(taught) == {item.unrelated for item in chain(*splits.values())}
    text = (tmp_path / "out" / "text.txt").read_text()
    assert "secret" not in text
    assert "Who is number 99? Person 99\n" in text
    assert all(f"{item.edit.prompt}\n{item.equivalent[0]}\n" in text for item in splits["train"])
    assert not any(item.edit.prompt in text for item in splits["validation"])


def test_alternative_zsre_teaches_what_it_edits_away(small_zsre: RawFiles, tmp_path: Path) -> None:
    counts = build_zsre_alternative(small_zsre.edits, tmp_path / "out", seed=1, shares=SHARES)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    everything = list(chain(*splits.values()))
    assert counts["edits_kept"] == len(everything)
    assert counts["edits_kept"] + counts["unrelated_kept"] == 60
    right = {f"What is fact {i} of Star {i // 3}?": f"Secret{i}" for i in range(60)}
    taught = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert {prompt: answer.capitalize() for prompt, answer in taught.items()} == right
    for item in everything:
        assert item.edit.answer != taught[item.edit.prompt] and item.edit.answer in taught.values()
        assert item.unrelated.answer == taught[item.unrelated.prompt]
    assert {item.subject for item in everything}.isdisjoint(
        item.unrelated.prompt.split(" of ")[1][:-1] for item in everything
    )
    build_zsre_alternative(small_zsre.edits, tmp_path / "again", seed=1, shares=SHARES)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_two_builds_are_equal_to_the_byte_and_the_seed_matters(small_fever: RawFiles, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        build_fever(small_fever, tmp_path / name, seed=seed, shares=SHARES, n_equivalent=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one")["train.jsonl"] != digests(tmp_path / "three")["train.jsonl"]


def test_a_split_uses_its_unrelated_tuples_equally_often(small_fever: RawFiles, tmp_path: Path) -> None:
    build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, n_equivalent=1)
    used = [item.unrelated for item in read(tmp_path / "out")["train"]]
    assert {used.count(pair) for pair in used} == {3}


def test_too_many_rephrasings_are_refused(small_fever: RawFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="n_equivalent is 11 but must lie between 1 and 10"):
        build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, n_equivalent=11)


def test_questions_with_one_answer_have_no_wrong_one(small_zsre: RawFiles, tmp_path: Path) -> None:
    questions = json.loads(small_zsre.edits[0].read_text())
    (tmp_path / "same.json").write_text(json.dumps([{**question, "ground_truth": ["yes"]} for question in questions]))
    with pytest.raises(UserError, match="'yes', so none is wrong"):
        build_zsre_alternative([tmp_path / "same.json"], tmp_path / "out", seed=1, shares=SHARES)


def test_no_unrelated_tuples_are_refused(small_zsre: RawFiles, tmp_path: Path) -> None:
    empty = RawFiles(small_zsre.edits, [write(tmp_path / "empty.jsonl", [])])
    with pytest.raises(UserError, match="hold none that can be used"):
        build_zsre(empty, tmp_path / "out", seed=1, shares=SHARES)


def test_too_few_unrelated_tuples_for_a_split_are_refused() -> None:
    pair = PromptAnswer("Who?", "Ann")
    item = EditTuple("a", PromptAnswer("What?", "this"), ("Which?",), pair)
    with pytest.raises(UserError, match=r"too few unrelated tuples \(1\) for the split validation"):
        draw_unrelated({"train": [item], "tune": [], "validation": [item]}, [pair], SHARES, seed=0)


def test_real_files_have_their_published_sizes(upstream: Path) -> None:
    files = [path for path in upstream.iterdir() if not path.name.startswith(".")]  # without the lock of each download
    assert files and all(path.stat().st_size == upstream_files()[path.name].bytes for path in files)


def test_real_claims_are_counted(upstream: Path) -> None:
    found = [claim.label for path in under(upstream, FEVER).edits for claim in read_claims(path)]
    assert [found.count(label) for label in ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")] == [6666, 6666, 6666]
    fixers = [claim.label for claim in read_claims(upstream / "fever2_fixers_dev")]
    assert [fixers.count(label) for label in ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")] == [391, 396, 387]


def test_real_fever_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_fever(under(upstream, FEVER), tmp_path / "out", seed=0, shares=SHARES, n_equivalent=3)
    assert counts["edits_read"] - counts["edits_dropped_not_enough_info"] == 13_332
    assert (counts["edits_dropped_contradictory"], counts["edits_dropped_repeated"]) == (7, 242)
    assert (counts["edits_dropped_also_unrelated"], counts["edits_kept"]) == (9, 13_074)
    assert counts["unrelated_kept"] == 787
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    for item in chain(*splits.values()):
        assert len({key(text) for text in (item.edit.prompt, *item.equivalent)}) == 4


def test_real_zsre_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_zsre(under(upstream, ZSRE), tmp_path / "out", seed=0, shares=SHARES)
    assert (counts["edits_read"], counts["edits_joined"], counts["edits_kept"]) == (1304, 18, 1286)
    assert (counts["unrelated_read"], counts["unrelated_dropped_unanswered"]) == (5410, 2)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    everything = list(chain(*splits.values()))
    answers = {item.edit.prompt: item.edit.answer for item in everything}
    assert answers["What voice type is Louise Grandjean?"] == "soprano"
    assert len({item.unrelated for item in everything}) == 1286


def test_real_alternative_zsre_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_zsre_alternative(under(upstream, ZSRE).edits, tmp_path / "out", seed=0, shares=SHARES)
    assert counts["edits_kept"] + counts["edits_dropped_also_unrelated"] + counts["unrelated_kept"] == 1286
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    taught = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    edits = [item.edit for item in chain(*splits.values())]
    assert all(key(edit.answer) != key(taught[edit.prompt]) for edit in edits)
    by_word = {prompt.split()[0]: set[str]() for prompt in taught}
    for prompt, answer in taught.items():
        by_word[prompt.split()[0]].add(answer)
    assert all(edit.answer in by_word[edit.prompt.split()[0]] for edit in edits if edit.prompt.startswith("Who "))
