"""Datasets from upstream files: hand-made ones, and the real ones where a mirror of them is at hand."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, combinations, permutations
from pathlib import Path
from typing import Any

import pytest
from upstream_files import counterfact, locft_wikibigedit, rewrite, some, wikibigedit

from malmen.config.upstream_files import upstream_files
from malmen.data import zsre
from malmen.data.counterfact import named
from malmen.data.download import MIRROR_VARIABLE, fetch, mirror_places
from malmen.data.fever import read_claims
from malmen.data.parsing import key
from malmen.data.realtext import (
    RawFiles,
    build_counterfact,
    build_fever,
    build_wikibigedit,
    build_zsre,
    build_zsre_alternative,
    draw_unrelated,
)
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, read_pairs, read_tuples
from malmen.errors import UserError

SHARES = {"train": 6, "tune": 2, "validation": 2}
MIRROR = os.environ.get(MIRROR_VARIABLE) or str(Path(__file__).parents[3] / "shared" / "mirror")
FEVER = RawFiles([Path("fever_paper_dev"), Path("fever_paper_test")], [Path("fever2_fixers_dev")])
LOCFT, COUNTERFACT = Path("zsre_locft"), Path("counterfact_recipe_train")
LOCFT_COUNTERFACT, WIKIBIGEDIT = Path("counterfact_locft"), Path("wikibigedit_locft")
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
    paths = chain(FEVER.edits, FEVER.unrelated, ZSRE.edits, ZSRE.unrelated, [LOCFT, COUNTERFACT])
    return fetched(paths, tmp_path_factory.mktemp("upstream"))


@pytest.fixture(scope="module")
def locft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LocFT's other files, or a skip."""
    return fetched([LOCFT_COUNTERFACT, WIKIBIGEDIT], tmp_path_factory.mktemp("locft"))


def fetched(paths: Iterable[Path], folder: Path) -> Path:
    """Fetch files from the mirror into a folder; skip the test if the mirror lacks one."""
    for path in paths:
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
        assert subjects(splits[one]).isdisjoint(subjects(splits[other]))
        assert {key(i.edit.prompt) for i in splits[one]}.isdisjoint(key(i.edit.prompt) for i in splits[other])
        assert {i.unrelated for i in splits[one]}.isdisjoint(i.unrelated for i in splits[other])
    everything = list(chain(*splits.values()))
    asked = {key(prompt) for i in everything for prompt in (i.edit.prompt, *i.equivalent)}
    assert asked.isdisjoint(key(i.unrelated.prompt) for i in everything)


def subjects(items: Sequence[EditTuple]) -> set[str]:
    return {key(item.subject) for item in items if item.subject is not None}


def test_fever_is_built_from_claims(small_fever: RawFiles, tmp_path: Path) -> None:
    counts = build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, split_seed=1, n_equivalent=2)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert counts["edits_read"] == 61
    assert counts["edits_dropped_also_unrelated"] == 1
    assert counts["edits_kept"] == 60 == sum(len(splits[name]) for name in SPLITS)
    assert counts["unrelated_kept"] == 20
    assert [counts[f"split_{name}"] for name in SPLITS] == [36, 12, 12]
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts


def test_fever_finetunes_on_the_true_labels_of_all_claims(small_fever: RawFiles, tmp_path: Path) -> None:
    build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, split_seed=1, n_equivalent=2)
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    text = (tmp_path / "out" / "text.txt").read_text().splitlines()
    splits = read(tmp_path / "out")
    for item in chain(*splits.values()):
        assert {finetune[item.edit.prompt], item.edit.answer} == {"SUPPORTS", "REFUTES"}
        assert finetune[item.unrelated.prompt] == item.unrelated.answer
        assert item.edit.prompt in text
    assert len(finetune) == 80
    assert all(item.equivalent[0] in text for item in splits["train"])
    assert not any(set(item.equivalent) & set(text) for item in splits["validation"])


def test_zsre_is_built_from_questions(small_zsre: RawFiles, tmp_path: Path) -> None:
    counts = build_zsre(small_zsre, tmp_path / "out", seed=1, shares=SHARES, split_seed=1)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert [counts[f"split_{name}"] for name in SPLITS] == [36, 12, 12]
    finetune = read_pairs(tmp_path / "out" / "finetune.jsonl")
    assert set(finetune) == {item.unrelated for item in chain(*splits.values())}
    text = (tmp_path / "out" / "text.txt").read_text()
    assert "secret" not in text
    assert "Who is number 99? Person 99\n" in text
    assert all(f"{item.edit.prompt}\n{item.equivalent[0]}\n" in text for item in splits["train"])
    assert not any(item.edit.prompt in text for item in splits["validation"])


def test_alternative_zsre_finetunes_on_what_it_edits_away(small_zsre: RawFiles, tmp_path: Path) -> None:
    counts = build_zsre_alternative(small_zsre.edits, tmp_path / "out", seed=1, shares=SHARES, split_seed=1)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    everything = list(chain(*splits.values()))
    assert counts["edits_kept"] == len(everything)
    assert counts["edits_kept"] + counts["unrelated_kept"] == 60
    right = {f"What is fact {i} of Star {i // 3}?": f"Secret{i}" for i in range(60)}
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert {prompt: answer.capitalize() for prompt, answer in finetune.items()} == right
    for item in everything:
        assert item.edit.answer != finetune[item.edit.prompt] and item.edit.answer in finetune.values()
        assert item.unrelated.answer == finetune[item.unrelated.prompt]
    assert {item.subject for item in everything}.isdisjoint(
        item.unrelated.prompt.split(" of ")[1][:-1] for item in everything
    )
    build_zsre_alternative(small_zsre.edits, tmp_path / "again", seed=1, shares=SHARES, split_seed=1)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


@pytest.fixture
def small_counterfact(tmp_path: Path) -> list[Path]:
    """60 records about 30 subjects, whose unrelated tuples are about neighbours, or about another of the subjects."""
    records = [
        {
            "case_id": i,
            "prompt": ("{} lives in", "The language of {} is")[i % 2].format(f"Star {i // 2}"),
            "target_new": f"false{i}",
            "subject": f"Star {i // 2}",
            "ground_truth": f"Truth{i % 2}",
            "rephrase_prompt": f"Once more ({i}): Star {i // 2} has",
            "locality_prompt": f"Star {(i + 7) // 2} is fond of"
            if i % 10 == 0
            else f"Neighbour {i // 4} has item {i % 3}:",
            "locality_ground_truth": f"Kept{i % 3}",
        }
        for i in range(60)
    ]
    records[0] |= {"rephrase_prompt": None}
    records[1] |= {"locality_prompt": "", "locality_ground_truth": ""}
    records[2] |= {"locality_prompt": "Star 29 speaks", "locality_ground_truth": "truth1"}  # preserves what 59 edits
    (tmp_path / "cf.json").write_text(json.dumps(records))
    return [tmp_path / "cf.json"]


def test_counterfact_is_built_from_statements(small_counterfact: list[Path], tmp_path: Path) -> None:
    counts = build_counterfact(small_counterfact, tmp_path / "out", SHARES, split_seed=1)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    dropped = [counts[f"edits_dropped_{why}"] for why in ("no_rephrasing", "no_unrelated", "also_unrelated")]
    assert (counts["edits_read"], dropped, counts["edits_kept"]) == (60, [1, 1, 1], 57)
    assert sum(counts[f"split_{name}"] for name in SPLITS) == 57 == sum(map(len, splits.values()))
    assert [counts[f"split_{name}"] for name in SPLITS] == pytest.approx([34, 11, 11], abs=6)
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts
    build_counterfact(small_counterfact, tmp_path / "again", SHARES, split_seed=1)
    build_counterfact(small_counterfact, tmp_path / "other", SHARES, split_seed=2)
    assert digests(tmp_path / "out") == digests(tmp_path / "again") != digests(tmp_path / "other")


def test_counterfact_finetunes_on_what_it_edits_away(small_counterfact: list[Path], tmp_path: Path) -> None:
    build_counterfact(small_counterfact, tmp_path / "out", SHARES, split_seed=1)
    splits = read(tmp_path / "out")
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    text = (tmp_path / "out" / "text.txt").read_text().splitlines()
    for item in chain(*splits.values()):
        assert item.edit.answer.startswith("false") and finetune[item.edit.prompt].startswith("Truth")
        assert finetune[item.unrelated.prompt] == item.unrelated.answer
        assert f"{item.edit.prompt} {finetune[item.edit.prompt]}" in text
    assert not any("false" in line for line in text)
    rephrased = {
        name: {any(line.startswith(i.equivalent[0]) for line in text) for i in splits[name]} for name in SPLITS
    }
    assert rephrased == {"train": {True}, "tune": {False}, "validation": {False}}


def test_a_file_of_which_nothing_is_left_is_refused(small_counterfact: list[Path], tmp_path: Path) -> None:
    records = json.loads(small_counterfact[0].read_text())
    (tmp_path / "none.json").write_text(json.dumps([item | {"rephrase_prompt": ""} for item in records]))
    with pytest.raises(UserError, match=r"Of 60 records in .*none\.json none is left"):
        build_counterfact([tmp_path / "none.json"], tmp_path / "out", SHARES, split_seed=1)
    assert not (tmp_path / "out").exists()


def test_counterfact_is_built_from_both_formats_alike(tmp_path: Path) -> None:
    flat, nested = (tmp_path / f"{name}.json" for name in ("flat", "nested"))
    flat.write_text(json.dumps(some(counterfact, 0, 60)))
    nested.write_text(json.dumps(some(rewrite, 0, 60)))
    for path in (flat, nested):
        build_counterfact([path], tmp_path / path.stem, SHARES, split_seed=1)
    ours, others = read(tmp_path / "flat"), read(tmp_path / "nested")
    paraphrased = {
        name: [replace(i, equivalent=(*i.equivalent, f"{i.subject} can be found in")) for i in items]
        for name, items in ours.items()
    }
    assert paraphrased == others and all(item.truth for item in chain(*ours.values()))
    counts = build_counterfact([flat, nested], tmp_path / "both", SHARES, split_seed=1)
    assert (counts["edits_read"], counts["edits_joined"], read(tmp_path / "both")) == (120, 60, others)


@pytest.fixture
def small_wikibigedit(tmp_path: Path) -> list[Path]:
    """60 records in the authors' form, some of which must be dropped, and 40 of LocFT's, half of which are the same."""
    records = some(wikibigedit, 0, 60)
    records[0] |= {"rephrase": "who runs club 0", "personas": None}  # no rephrasing
    records[1] |= {"loc": "", "loc_ans": ""}  # no unrelated question
    records[2] |= {"loc": "Who runs Club 59?", "loc_ans": "Nobody"}  # preserves what 59 edits
    records[6] |= {"loc_ans": "Nobody"}  # 7 has another answer to its unrelated question
    (tmp_path / "wbe.json").write_text(json.dumps(records))
    (tmp_path / "locft.json").write_text(json.dumps(some(locft_wikibigedit, 40, 80)))
    return [tmp_path / "wbe.json", tmp_path / "locft.json"]


def test_wikibigedit_is_built_from_files_of_both_forms(small_wikibigedit: list[Path], tmp_path: Path) -> None:
    counts = build_wikibigedit(small_wikibigedit, tmp_path / "out", SHARES, split_seed=1)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert {name.removeprefix("edits_"): count for name, count in counts.items() if name.startswith("edits_")} == {
        "read": 100,
        "dropped_no_unrelated": 1,
        "dropped_contradictory": 0,
        "joined": 20,
        "dropped_no_rephrasing": 1,
        "dropped_ambiguous_unrelated": 2,
        "dropped_also_unrelated": 1,
        "kept": 75,
    }
    assert sum(counts[f"split_{name}"] for name in SPLITS) == 75 == sum(map(len, splits.values()))
    items = {item.edit.prompt: item for item in chain(*splits.values())}
    item = items["Who runs Club 3?"]
    assert (item.edit.answer, item.truth) == ("Dov Meer 3", None)
    assert item.equivalent == ("Club 3 is run by whom?", "Ahoy! Who runs Club 3, matey?")
    assert item.unrelated == PromptAnswer("Who runs Club 1001?", "Bram Okafor")
    assert items["Who runs Club 70?"].subject == "Club 70"
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    assert finetune == {item.unrelated.prompt: item.unrelated.answer for item in items.values()}
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == counts
    build_wikibigedit(small_wikibigedit, tmp_path / "again", SHARES, split_seed=1)
    assert digests(tmp_path / "out") == digests(tmp_path / "again")


def test_wikibigedit_without_a_usable_record_is_refused(tmp_path: Path) -> None:
    records = [record | {"loc": None} for record in some(wikibigedit, 0, 5)]
    (tmp_path / "none.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=r"Of 5 records in .*none\.json none is left"):
        build_wikibigedit([tmp_path / "none.json"], tmp_path / "out", SHARES, split_seed=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "malformed, reason",
    [
        ("text", "expected a JSON object, found str"),
        ({"update": "Who?"}, "field 'ans' is missing"),
        ({"update": 5, "ans": "Ada"}, "expected text, found 5"),
        ({"prompt": "Who?"}, "field 'target_new' is missing"),
        ({"update": "Who?", "ans": "Ada", "personas": ["x"]}, r"expected text, found \['x'\]"),
    ],
)
def test_a_malformed_record_of_wikibigedit_is_named(tmp_path: Path, malformed: Any, reason: str) -> None:
    (tmp_path / "wbe.json").write_text(json.dumps([wikibigedit(0), malformed]))
    with pytest.raises(UserError, match=rf"wbe\.json, record 1: {reason}; download the file again\.$"):
        build_wikibigedit([tmp_path / "wbe.json"], tmp_path / "out", SHARES, split_seed=1)


def test_zsre_is_built_from_files_of_both_forms(small_zsre: RawFiles, tmp_path: Path) -> None:
    """A subject is in one split, though one file has one of its questions and the other file another."""
    ours = json.loads(small_zsre.edits[0].read_text())
    theirs = [
        {
            "subject": question["subject"].upper(),
            "src": question["prompt"].replace("fact", "truth") if i % 2 else question["prompt"],
            "rephrase": f"Which is {i}?",
            "answers": question["ground_truth"],
        }
        for i, question in enumerate(ours)
    ]
    (tmp_path / "mend.json").write_text(json.dumps(theirs))
    both = RawFiles([*small_zsre.edits, tmp_path / "mend.json"], small_zsre.unrelated)
    counts = build_zsre(both, tmp_path / "out", seed=1, shares=SHARES, split_seed=1)
    assert (counts["edits_read"], counts["edits_joined"], counts["edits_kept"]) == (120, 30, 90)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert {len(item.equivalent) for item in chain(*splits.values())} == {1, 2}


def test_two_builds_are_equal_to_the_byte_and_the_seeds_matter(small_fever: RawFiles, tmp_path: Path) -> None:
    for name, seed, split_seed in (("one", 1, 0), ("two", 1, 0), ("three", 2, 0), ("four", 1, 1)):
        build_fever(small_fever, tmp_path / name, seed, SHARES, split_seed, n_equivalent=2)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one")["train.jsonl"] != digests(tmp_path / "three")["train.jsonl"]
    edited = [{item.id for item in read(tmp_path / name)["train"]} for name in ("one", "three", "four")]
    assert edited[0] == edited[1] != edited[2]


def test_a_split_uses_its_unrelated_tuples_equally_often(small_fever: RawFiles, tmp_path: Path) -> None:
    build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, split_seed=1, n_equivalent=1)
    used = [item.unrelated for item in read(tmp_path / "out")["train"]]
    assert {used.count(pair) for pair in used} == {3}


def test_too_many_rephrasings_are_refused(small_fever: RawFiles, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="n_equivalent is 11 but must lie between 1 and 10"):
        build_fever(small_fever, tmp_path / "out", seed=1, shares=SHARES, split_seed=1, n_equivalent=11)


def test_questions_with_one_answer_have_no_wrong_one(small_zsre: RawFiles, tmp_path: Path) -> None:
    questions = json.loads(small_zsre.edits[0].read_text())
    (tmp_path / "same.json").write_text(json.dumps([{**question, "ground_truth": ["yes"]} for question in questions]))
    with pytest.raises(UserError, match="the answer 'yes'"):
        build_zsre_alternative([tmp_path / "same.json"], tmp_path / "out", seed=1, shares=SHARES, split_seed=1)


def test_no_unrelated_tuples_are_refused(small_zsre: RawFiles, tmp_path: Path) -> None:
    empty = RawFiles(small_zsre.edits, [write(tmp_path / "empty.jsonl", [])])
    with pytest.raises(UserError, match="unrelated tuples"):
        build_zsre(empty, tmp_path / "out", seed=1, shares=SHARES, split_seed=1)


def test_too_few_unrelated_tuples_for_a_split_are_refused() -> None:
    pair = PromptAnswer("Who?", "Ann")
    item = EditTuple("a", PromptAnswer("What?", "this"), ("Which?",), pair)
    with pytest.raises(UserError, match=r"'validation' .* 1 unrelated"):
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
    counts = build_fever(under(upstream, FEVER), tmp_path / "out", seed=0, shares=SHARES, split_seed=0, n_equivalent=3)
    assert counts["edits_read"] - counts["edits_dropped_not_enough_info"] == 13_332
    assert (counts["edits_dropped_contradictory"], counts["edits_dropped_repeated"]) == (7, 242)
    assert (counts["edits_dropped_also_unrelated"], counts["edits_kept"]) == (9, 13_074)
    assert counts["unrelated_kept"] == 787
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    for item in chain(*splits.values()):
        assert len({key(text) for text in (item.edit.prompt, *item.equivalent)}) == 4


def test_real_zsre_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_zsre(under(upstream, ZSRE), tmp_path / "out", seed=0, shares=SHARES, split_seed=0)
    assert (counts["edits_read"], counts["edits_joined"], counts["edits_kept"]) == (1304, 18, 1286)
    assert (counts["unrelated_read"], counts["unrelated_dropped_unanswered"]) == (5410, 2)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    everything = list(chain(*splits.values()))
    answers = {item.edit.prompt: item.edit.answer for item in everything}
    assert answers["What voice type is Louise Grandjean?"] == "soprano"
    assert len({item.unrelated for item in everything}) == 1286


def test_both_real_zsre_files_make_one_data_set(upstream: Path, tmp_path: Path) -> None:
    """No question and no subject crosses a split, though 203 questions and 300 subjects are in both files."""
    raw = under(upstream, ZSRE)
    files = [*raw.edits, upstream / LOCFT]
    found = [{key(question.prompt): question for question in zsre.read_questions(path)} for path in files]
    assert [len(questions) for questions in found] == [1286, 3000] and len(found[0].keys() & found[1].keys()) == 203
    names = [{key(question.subject or "") for question in questions.values()} for questions in found]
    assert len(names[0] & names[1]) == 300
    assert all(key(found[0][text].answer) == key(found[1][text].answer) for text in found[0].keys() & found[1].keys())
    counts = build_zsre(RawFiles(files, raw.unrelated), tmp_path / "out", seed=0, shares=SHARES, split_seed=0)
    assert (counts["edits_read"], counts["edits_joined"], counts["edits_dropped_no_rephrasing"]) == (4304, 221, 1)
    assert counts["edits_kept"] == 4082
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert [len(splits[name]) for name in SPLITS] == pytest.approx([2449, 816, 816], abs=5)
    assert len({item.unrelated for item in chain(*splits.values())}) == 4082


def test_real_counterfact_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_counterfact([upstream / COUNTERFACT], tmp_path / "out", SHARES, split_seed=0)
    assert {name.removeprefix("edits_"): count for name, count in counts.items() if name.startswith("edits_")} == {
        "read": 10_000,
        "dropped_no_unrelated": 0,
        "dropped_contradictory": 217,
        "joined": 3,
        "dropped_no_rephrasing": 13,
        "dropped_ambiguous_unrelated": 74,
        "dropped_also_unrelated": 366,
        "kept": 9327,
    }
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert [len(splits[name]) for name in SPLITS] == pytest.approx([5596, 1865, 1865], abs=25)
    for one, other in permutations(SPLITS, 2):  # an edited subject is preserved by its own split alone
        edited = {item.subject for item in splits[one] if item.subject}
        assert not any(named(item.unrelated.prompt, edited) for item in splits[other])
    everything = {item.id: item for item in chain(*splits.values())}
    item = everything["counterfact-2"]
    assert item.edit == PromptAnswer("Toko Yasuda, the", "piano") and item.subject == "Toko Yasuda"
    assert item.equivalent == ("Toko Yasuda is incredible at",)
    assert item.unrelated == PromptAnswer("John Lennon performs on the", "guitar")
    assert all(item.subject and item.subject in item.edit.prompt for item in everything.values())  # as MEMIT needs
    texts = [text for i in everything.values() for text in (i.edit.prompt, i.edit.answer, *i.equivalent)]
    assert all(text == " ".join(text.split()) for text in texts)


def test_locfts_counterfact_joins_the_other_file(upstream: Path, locft: Path, tmp_path: Path) -> None:
    counts = build_counterfact([locft / LOCFT_COUNTERFACT], tmp_path / "out", SHARES, split_seed=0)
    assert (counts["edits_read"], counts["edits_dropped_contradictory"], counts["edits_kept"]) == (3000, 18, 2894)
    both = [upstream / COUNTERFACT, locft / LOCFT_COUNTERFACT]
    counts = build_counterfact(both, tmp_path / "both", SHARES, split_seed=0)
    assert (counts["edits_read"], counts["edits_joined"], counts["edits_kept"]) == (13_000, 1364, 10_779)
    assert_splits_are_disjoint(read(tmp_path / "both"))


def test_real_wikibigedit_is_built(locft: Path, tmp_path: Path) -> None:
    counts = build_wikibigedit([locft / WIKIBIGEDIT], tmp_path / "out", SHARES, split_seed=0)
    assert (counts["edits_read"], counts["edits_dropped_no_rephrasing"], counts["edits_kept"]) == (3000, 2, 2998)
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    assert [len(splits[name]) for name in SPLITS] == pytest.approx([1799, 600, 600], abs=5)
    assert all(item.subject and item.subject in item.edit.prompt for item in chain(*splits.values()))


def test_real_alternative_zsre_is_built(upstream: Path, tmp_path: Path) -> None:
    counts = build_zsre_alternative(under(upstream, ZSRE).edits, tmp_path / "out", seed=0, shares=SHARES, split_seed=0)
    assert counts["edits_kept"] + counts["edits_dropped_also_unrelated"] + counts["unrelated_kept"] == 1286
    splits = read(tmp_path / "out")
    assert_splits_are_disjoint(splits)
    finetune = {pair.prompt: pair.answer for pair in read_pairs(tmp_path / "out" / "finetune.jsonl")}
    edits = [item.edit for item in chain(*splits.values())]
    assert all(key(edit.answer) != key(finetune[edit.prompt]) for edit in edits)
    by_word = {prompt.split()[0]: set[str]() for prompt in finetune}
    for prompt, answer in finetune.items():
        by_word[prompt.split()[0]].add(answer)
    assert all(edit.answer in by_word[edit.prompt.split()[0]] for edit in edits if edit.prompt.startswith("Who "))
