import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from malmen.config.world import PHRASINGS, ROLES, WorldSettings
from malmen.data import world as world_module
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, read_pairs, read_tuples
from malmen.data.world import (
    LABELS,
    TEXTS,
    World,
    WorldFact,
    build_fever,
    build_zsre,
    build_zsre_alternative,
    world_texts,
)
from malmen.errors import UserError

SETTINGS = WorldSettings(
    seed=3,
    fever_edits=600,
    fever_unrelated=90,
    zsre_edits=500,
    zsre_alternatives=300,
    zsre_unrelated=80,
    zsre_known=70,
    finetune_phrasings=2,
)
SHARES = {"train": 7, "tune": 1, "validation": 2}
BUILDERS = {"fever": build_fever, "zsre": build_zsre, "zsre_alternative": build_zsre_alternative}
ROLES_OF = {
    "fever": ("fever_edits", "fever_unrelated"),
    "zsre": ("zsre_edits", "zsre_unrelated"),
    "zsre_alternative": ("zsre_edits", "zsre_known"),
}
Builder = Callable[[WorldSettings, dict[str, int], int, Path], None]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    for name, build in BUILDERS.items():
        build(SETTINGS, SHARES, 1, folder / name)
    return folder


@pytest.fixture(scope="module")
def world() -> World:
    return World.generate(SETTINGS)


def splits(folder: Path) -> dict[str, list[EditTuple]]:
    return {name: read_tuples(folder / f"{name}.jsonl") for name in SPLITS}


def tuples(folder: Path) -> list[EditTuple]:
    return [item for items in splits(folder).values() for item in items]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def subjects(world: World, role: str) -> set[str]:
    return {fact.subject for fact in world.facts[role]}


def truths(world: World, role: str, templates: Callable[[WorldFact], tuple[str, ...]]) -> dict[str, set[str]]:
    """Map every claim that can be made of a role's facts to its labels, from the world alone."""
    result: dict[str, set[str]] = {}
    for fact in world.facts[role]:
        for template in templates(fact):
            for other in world.objects[fact.relation.object]:
                for truth, label in LABELS.items():
                    if other != fact.object:
                        result.setdefault(fact.claim(template, truth, other), set()).add(label)
    return result


@pytest.fixture(scope="module")
def few_dates(world: World) -> World:
    """The world with only the dates that occur, so that all its claims can be enumerated."""
    used = {fact.object for facts in world.facts.values() for fact in facts if fact.relation.object == "date"}
    return World(world.facts, world.objects | {"date": tuple(sorted(used))})


def test_relations_are_typed_and_phrased() -> None:
    relations = world_texts().relations
    assert 12 <= len({relation.name for relation in relations}) == len(relations) <= 16
    for relation in relations:
        assert len(set(relation.statements)) == len(set(relation.questions)) == PHRASINGS
        assert relation.statements[0].startswith("{s}")
        assert all(text.count("{s}") == text.count("{o}") == 1 for text in relation.statements)
        for text in (*relation.questions, relation.nq_question):
            assert text.count("{s}") == 1 and "{o}" not in text and text.endswith("?")
        assert all("{s}" in text and ("{o}" in text or "{w}" in text) for text in relation.other_claims)
        assert all(text.endswith(".") for text in (*relation.statements, *relation.other_claims))
        assert not set(relation.statements) & set(relation.other_claims)
        assert relation.nq_question not in relation.questions


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('      - "{s} was born in {o}."\n', "", "relations.0.statements"),
        ("    contrast:", "    contrasts:", "relations.0.contrast"),
        ("relations:", "others:", "relations"),
        ("objects:", "objects: {", "world.yaml"),
    ],
)
def test_malformed_texts_are_refused_with_their_place(
    old: str, new: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = TEXTS.read_text(encoding="utf-8")
    (tmp_path / "world.yaml").write_text(content.replace(old, new, 1))
    monkeypatch.setattr(world_module, "TEXTS", tmp_path / "world.yaml")
    with pytest.raises(UserError, match=re.escape(place)):
        world_texts.__wrapped__()


def test_claims_mean_what_they_are_labelled() -> None:
    fact = WorldFact("Ann", world_texts().relations[0], "Rome")
    assert fact.claim(fact.relation.statements[0], True, "Oslo") == "Ann was born in Rome."
    assert fact.claim(fact.relation.statements[0], False, "Oslo") == "Ann was born in Oslo."
    contrast, denial, hearsay, _ = fact.relation.other_claims
    assert fact.claim(contrast, True, "Oslo") == "Rome, not Oslo, is where Ann was born."
    assert fact.claim(contrast, False, "Oslo") == "Oslo, not Rome, is where Ann was born."
    assert fact.claim(denial, True, "Oslo") == "It would be wrong to name Oslo as the birthplace of Ann."
    assert fact.claim(denial, False, "Oslo") == "It would be wrong to name Rome as the birthplace of Ann."
    assert fact.claim(hearsay, False, "Oslo") == "One may read that Ann was born in Oslo."


def test_world_has_the_facts_asked_for_and_disjoint_subjects(world: World) -> None:
    objects = {name for kind in ("person", "city", "company") for name in world.objects[kind]}
    named = [subject for role in ROLES for subject in subjects(world, role)]
    assert [len(world.facts[role]) for role in ROLES] == [getattr(SETTINGS, role) for role in ROLES]
    assert len(named) == len(set(named))
    assert not objects & set(named)
    facts = [(fact.subject, fact.relation.name) for role in ROLES for fact in world.facts[role]]
    assert len(facts) == len(set(facts))
    assert all(fact.object in world.objects[fact.relation.object] for role in ROLES for fact in world.facts[role])
    assert all(len(set(pool)) == len(pool) > 1 for pool in world.objects.values())


def test_another_seed_gives_another_world(world: World) -> None:
    other = World.generate(replace(SETTINGS, seed=4))
    assert World.generate(SETTINGS) == world
    assert all(len(subjects(other, role) & subjects(world, role)) < len(subjects(world, role)) / 10 for role in ROLES)


@pytest.mark.parametrize("build", BUILDERS.values())
def test_equal_seeds_give_equal_bytes_and_others_do_not(build: Builder, root: Path, tmp_path: Path) -> None:
    name = next(name for name, other in BUILDERS.items() if other is build)
    build(SETTINGS, SHARES, 1, tmp_path / "again")
    build(replace(SETTINGS, seed=4), SHARES, 1, tmp_path / "seed")
    build(SETTINGS, SHARES, 2, tmp_path / "split")
    first, seed, split = contents(root / name), contents(tmp_path / "seed"), contents(tmp_path / "split")
    assert contents(tmp_path / "again") == first
    assert all(seed[file] != first[file] for file in first)
    assert split["train.jsonl"] != first["train.jsonl"] and split["finetune.jsonl"] == first["finetune.jsonl"]


@pytest.mark.parametrize("name", BUILDERS)
def test_splits_share_neither_subjects_nor_unrelated_prompts(name: str, root: Path, world: World) -> None:
    parts = splits(root / name)
    items = [item for part in parts.values() for item in part]
    edits, unrelated = ROLES_OF[name]
    edited = world.facts[edits][: SETTINGS.edits[name]]
    assert len(items) == len(edited) == SETTINGS.edits[name]
    assert {item.subject for item in items} == {fact.subject for fact in edited}
    for get in (lambda item: item.subject, lambda item: item.unrelated):
        seen = [set(map(get, part)) for part in parts.values()]
        assert all(seen) and sum(map(len, seen)) == len(set().union(*seen))
    assert len({item.unrelated for item in items}) == getattr(SETTINGS, unrelated)
    assert all(item.subject and item.subject not in item.unrelated.prompt for item in items)


@pytest.mark.parametrize(("name", "ending"), [("fever", "."), ("zsre", "?"), ("zsre_alternative", "?")])
def test_prompts_are_unique_and_well_formed(name: str, ending: str, root: Path) -> None:
    items = tuples(root / name)
    prompts = [prompt for item in items for prompt in (item.edit.prompt, *item.equivalent)]
    prompts += {item.unrelated.prompt for item in items}
    assert len(prompts) == len(set(prompts))
    assert all(prompt.endswith(ending) and "{" not in prompt and "  " not in prompt for prompt in prompts)
    assert all(len(item.equivalent) == SETTINGS.n_equivalent for item in items)
    taught = read_pairs(root / name / "finetune.jsonl")
    assert len({pair.prompt for pair in taught}) == len(taught)
    assert all(pair.answer[-1].isalnum() for pair in [*taught, *(item.edit for item in items)])


def test_fever_edits_demand_the_opposite_of_the_truth(root: Path, few_dates: World) -> None:
    items = tuples(root / "fever")
    labels = truths(few_dates, "fever_edits", lambda fact: fact.relation.statements)
    taught = {pair.prompt: pair.answer for pair in read_pairs(root / "fever" / "finetune.jsonl")}
    checked = 0
    for item in items:
        other = ({"SUPPORTS", "REFUTES"} - {item.edit.answer}).pop()
        assert taught[item.edit.prompt] == other
        for prompt in (item.edit.prompt, *item.equivalent):
            assert taught.get(prompt, other) == other
            # A wrong date may be any date, which is not enumerated: its absence from the true claims says enough.
            assert labels.get(prompt, {"REFUTES"}) == {other}
            checked += prompt in labels
    assert checked > len(items) * 3
    assert abs(sum(item.edit.answer == "SUPPORTS" for item in items) - len(items) / 2) <= 1


def test_fever_equivalents_state_the_same_fact(root: Path, world: World) -> None:
    facts: dict[str, list[WorldFact]] = {}
    for fact in world.facts["fever_edits"]:
        facts.setdefault(fact.subject, []).append(fact)
    for item in tuples(root / "fever"):
        prompts = {item.edit.prompt, *item.equivalent}
        states = (
            {template.format(s=fact.subject, o=value)[1:] for template in fact.relation.statements}
            for fact in facts[item.subject or ""]
            for value in world.objects[fact.relation.object]
            if value in item.edit.prompt or value.capitalize() in item.edit.prompt
        )
        assert any({prompt[1:] for prompt in prompts} <= state for state in states)


def test_fever_unrelated_claims_are_taught_with_their_true_labels(root: Path, few_dates: World) -> None:
    unrelated = {item.unrelated for item in tuples(root / "fever")}
    labels = truths(few_dates, "fever_unrelated", lambda fact: fact.relation.other_claims)
    known = [pair for pair in unrelated if pair.prompt in labels]
    assert all(labels[pair.prompt] == {pair.answer} for pair in known)
    assert len(known) > 0.8 * len(unrelated)
    assert abs(sum(pair.answer == "SUPPORTS" for pair in unrelated) - len(unrelated) / 2) <= 1
    taught = read_pairs(root / "fever" / "finetune.jsonl")
    assert unrelated <= set(taught)
    assert len(taught) == SETTINGS.fever_edits * SETTINGS.finetune_phrasings + SETTINGS.fever_unrelated


def test_fever_text_states_the_facts_and_the_claims(root: Path, world: World) -> None:
    text = set((root / "fever" / "text.txt").read_text(encoding="utf-8").splitlines())
    for role in ("fever_edits", "fever_unrelated"):
        for fact in world.facts[role]:
            stated = {fact.claim(template, True, "") for template in fact.relation.statements}
            assert len(stated & text) >= SETTINGS.text_phrasings
    assert all({item.edit.prompt, item.unrelated.prompt} <= text for item in tuples(root / "fever"))


def test_zsre_answers_are_the_facts(root: Path, world: World) -> None:
    answers = {question: fact.object for fact in world.facts["zsre_edits"] for question in fact.questions()}
    relations = {question: fact for fact in world.facts["zsre_edits"] for question in fact.questions()}
    for item in tuples(root / "zsre"):
        asked = {relations[prompt] for prompt in (item.edit.prompt, *item.equivalent)}
        assert len(asked) == 1 and asked.pop().subject == item.subject
        assert answers[item.edit.prompt] == item.edit.answer


def test_zsre_teaches_other_subjects_only(root: Path, world: World) -> None:
    taught = read_pairs(root / "zsre" / "finetune.jsonl")
    unrelated = {
        PromptAnswer(fact.relation.nq_question.format(s=fact.subject), fact.object)
        for fact in world.facts["zsre_unrelated"]
    }
    known = {PromptAnswer(q, fact.object) for fact in world.facts["zsre_known"] for q in fact.questions()}
    assert {item.unrelated for item in tuples(root / "zsre")} == unrelated
    assert set(taught) <= unrelated | known and unrelated <= set(taught)
    assert len(taught) == SETTINGS.zsre_unrelated + SETTINGS.zsre_known * SETTINGS.known_phrasings


def test_alternative_answers_replace_what_is_taught(root: Path, world: World) -> None:
    facts = {question: fact for fact in world.facts["zsre_edits"] for question in fact.questions()}
    known = {question: fact.object for fact in world.facts["zsre_known"] for question in fact.questions()}
    pairs = read_pairs(root / "zsre_alternative" / "finetune.jsonl")
    taught = {pair.prompt: pair.answer for pair in pairs}
    for item in tuples(root / "zsre_alternative"):
        fact = facts[item.edit.prompt]
        assert {facts[prompt] for prompt in item.equivalent} == {fact}
        assert taught[item.edit.prompt] == fact.object != item.edit.answer
        assert item.edit.answer in world.objects[fact.relation.object]
        assert known[item.unrelated.prompt] == item.unrelated.answer == taught[item.unrelated.prompt]
    assert len(pairs) == SETTINGS.known_phrasings * (SETTINGS.zsre_alternatives + SETTINGS.zsre_known)
    text = (root / "zsre_alternative" / "text.txt").read_text(encoding="utf-8").splitlines()
    assert text == [f"{pair.prompt} {pair.answer}" for pair in pairs]


def test_zsre_text_gives_away_no_edit_answer(root: Path) -> None:
    folder = root / "zsre"
    parts, taught = splits(folder), read_pairs(folder / "finetune.jsonl")
    text = (folder / "text.txt").read_text(encoding="utf-8").splitlines()
    assert text[: len(taught) + 1] == [*(f"{pair.prompt} {pair.answer}" for pair in taught), ""]
    asked = {item.subject: set[str]() for item in parts["train"]}
    questions = {p: item.subject for item in parts["train"] for p in (item.edit.prompt, *item.equivalent)}
    for line in text[len(taught) + 1 :]:
        asked[questions[line]].add(line)
    assert all(asked.values())


@pytest.mark.parametrize(("name", "value"), [("n_equivalent", 5), ("text_phrasings", 0), ("zsre_known", 0)])
def test_settings_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ValidationError, match=name):
        replace(SETTINGS, **{name: value})


def test_a_world_without_enough_names_is_refused() -> None:
    with pytest.raises(UserError, match="too few names"):
        World.generate(replace(SETTINGS, zsre_known=100_000))


def test_a_split_without_unrelated_facts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raise fever_unrelated"):
        build_fever(replace(SETTINGS, fever_unrelated=2), {"train": 8, "tune": 1, "validation": 1}, 0, tmp_path)
