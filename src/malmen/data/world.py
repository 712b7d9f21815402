"""The synthetic world: entities, typed relations, facts and several phrasings of each, generated from a seed.

The world replaces FEVER, FEVER 2.0, zsRE and Natural Questions where nothing may be downloaded. Its names are made of
syllables, and names and answers recombine a small stock of words, so that a tiny model with a tokenizer of 2,000-3,000
tokens can learn them and an editor can generalise to facts that it never saw. Its sentences are in ``world.yaml``.

Five disjoint sets of subjects (the roles, see :data:`ROLES`) separate the facts that are edited, those that must not
change, and those that the model only learns. No subject occurs as an object.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from malmen.config.world import PHRASINGS, ROLES, WorldSettings
from malmen.data.splitting import split_tuples
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, write_dataset
from malmen.errors import UserError
from malmen.runtime.files import read_yaml

TEXTS = Path(__file__).with_name("world.yaml")
LABELS = {True: "SUPPORTS", False: "REFUTES"}
HEARSAY = ("One may read that", "It is on record that")
Phrasings = Annotated[tuple[str, ...], Field(min_length=PHRASINGS, max_length=PHRASINGS)]


@dataclass(frozen=True)
class Relation:
    """A typed relation with its phrasings: ``{s}`` is the subject, ``{o}`` the object and ``{w}`` a wrong object.

    Every claim is true as it is written, and false with ``{o}`` and ``{w}`` exchanged.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    subject: str
    """Type of the subject."""
    object: str
    """Type of the object."""
    statements: Phrasings
    """FEVER-like claims; the first begins with the subject."""
    questions: Phrasings
    """zsRE-like questions."""
    contrast: str
    """A FEVER2-like claim in two parts, one for each object."""
    nq_question: str
    """An NQ-like question: lower case except for the subject, and in other words than the zsRE-like ones."""

    @property
    def other_claims(self) -> tuple[str, ...]:
        """All FEVER2-like claims: the contrast, a denial and two of hearsay."""
        denial = f"It would be wrong to name {{w}} as the {self.name} of {{s}}."
        return (self.contrast, denial, *(f"{opening} {self.statements[0]}" for opening in HEARSAY))


@dataclass(frozen=True)
class Texts:
    """The content of :data:`TEXTS`: everything that is not invented from syllables."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    subject_cycle: tuple[str, ...]
    """Types of the subjects, in the order in which a role takes them in turn."""
    objects: dict[str, tuple[str, ...]]
    """The objects of the types that have no invented names."""
    relations: tuple[Relation, ...]


@cache
def world_texts() -> Texts:
    """Return the sentences and objects that are part of the package.

    Raises:
        UserError: if their file is malformed; it names the place.
    """
    try:
        return TypeAdapter(Texts).validate_python(read_yaml(TEXTS))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{TEXTS}, {'.'.join(map(str, first['loc']))}: {first['msg']}; correct it.") from None


MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
YEARS = tuple(str(year) for year in range(1930, 1980))
DATES = tuple(" ".join(parts) for parts in itertools.product((str(day) for day in range(1, 29)), MONTHS, YEARS))


@dataclass(frozen=True)
class WorldFact:
    """One object for one subject and relation."""

    subject: str
    relation: Relation
    object: str

    def claim(self, template: str, truth: bool, wrong: str) -> str:
        """Fill a template of the relation so that the claim is true or, with the objects exchanged, false."""
        right, other = (self.object, wrong) if truth else (wrong, self.object)
        filled = template.format(s=self.subject, o=right, w=other)
        return filled[0].upper() + filled[1:]

    def questions(self) -> list[str]:
        """Return all zsRE-like questions about the fact."""
        return [template.format(s=self.subject) for template in self.relation.questions]


@dataclass(frozen=True)
class World:
    """All facts, by role, and all objects, by type."""

    facts: dict[str, tuple[WorldFact, ...]]
    """The facts of each of :data:`ROLES`; no subject occurs in two roles."""
    objects: dict[str, tuple[str, ...]]
    """The objects of each type, from which true and wrong ones are drawn."""

    @classmethod
    def generate(cls, settings: WorldSettings) -> "World":
        """Generate the world of a seed.

        Raises:
            UserError: if the settings ask for more subjects than there are names.
        """
        rng = random.Random(f"{settings.seed}/world")
        names = _generate_names(rng)
        numbers = {"person": 60, "city": 60, "company": 30, "country": 20, "river": 20, "family": 16}
        named = {kind: tuple(itertools.islice(names[kind], number)) for kind, number in numbers.items()}
        objects = named | world_texts().objects | {"year": YEARS, "date": DATES}
        facts = {role: _generate_facts(role, getattr(settings, role), names, objects, rng) for role in ROLES}
        return cls(facts, objects)

    def wrong_object(self, fact: WorldFact, rng: random.Random) -> str:
        """Draw an object of the right type that is not the fact's."""
        return next(other for other in rng.sample(self.objects[fact.relation.object], 2) if other != fact.object)


def _invent_words(rng: random.Random) -> Iterator[str]:
    """Yield distinct capitalised words of two or three syllables, without end."""
    onsets = (*"bdfghklmnprstvz", "br", "dr", "kr", "st", "th")
    seen: set[str] = set()
    while True:
        syllables = (rng.choice(onsets) + rng.choice("aeiou") for _ in range(rng.choice((2, 2, 3))))
        word = ("".join(syllables) + rng.choice("lnrs")).capitalize()
        if word not in seen:
            seen.add(word)
            yield word


def _generate_names(rng: random.Random) -> dict[str, Iterator[str]]:
    """Return, by type, an iterator over unique names of one to three words in random order.

    The stocks of words are so small that the default training text holds nearly all of them: validation brings new
    combinations but few new words. They are large enough for the subjects of 15,000 facts.
    """
    words = _invent_words(rng)

    def take(count: int) -> list[str]:
        return list(itertools.islice(words, count))

    firms = ["Brothers", "Group", "Industries", "Trading House", "Works"]
    quarters = ["", "East", "Great", "Little", "Lower", "New", "North", "Old", "Port", "South", "Upper", "West"]
    patterns: dict[str, list[list[str]]] = {
        "person": [take(120), take(120)],
        "film": [take(50), take(50)],
        "company": [take(100), firms + [f"and {word}" for word in take(10)]],
        "species": [take(50), [word.lower() for word in take(50)]],
        "city": [quarters, take(80)],
        "country": [["", "North", "South"], take(15)],
        "river": [["", "Blue", "White"], take(15)],
        "family": [[f"{word}idae" for word in take(16)]],
    }
    names = {}
    for kind, pattern in patterns.items():
        pool = [" ".join(filter(None, parts)) for parts in itertools.product(*pattern)]
        rng.shuffle(pool)
        names[kind] = iter(pool)
    return names


def _generate_facts(
    role: str, count: int, names: dict[str, Iterator[str]], objects: dict[str, tuple[str, ...]], rng: random.Random
) -> tuple[WorldFact, ...]:
    """Take new subjects, with all their relations, up to ``count`` facts; the last subject may lack some."""
    texts, facts = world_texts(), list[WorldFact]()
    for kind in itertools.cycle(texts.subject_cycle):
        if len(facts) >= count:
            break
        subject = next(names[kind], None)
        if subject is None:
            raise UserError(
                f"The world's setting {role} asks for {count} facts, more than there are names for; lower it."
            )
        own = (relation for relation in texts.relations if relation.subject == kind)
        facts += [WorldFact(subject, relation, rng.choice(objects[relation.object])) for relation in own]
    return tuple(facts[:count])


@dataclass(frozen=True)
class _Item:
    """All phrasings of one claim or question in random order, the edit prompt first, with the answer to edit in."""

    id: str
    subject: str
    prompts: list[str]
    answer: str


def build_fever(settings: WorldSettings, shares: dict[str, int], split_seed: int, folder: Path) -> None:
    """Write the FEVER-like dataset to ``folder``.

    Half of the claims are true. The model is fine-tuned on the label of every claim; an edit tuple demands the opposite
    label. The text has one document for each subject: its true facts, so that masked language modelling can learn them,
    and its claims.

    Raises:
        UserError: if the world cannot be generated, or if a split has edit tuples but no unrelated one.
    """
    world = World.generate(settings)
    rng = random.Random(f"{settings.seed}/fever")
    items = _make_claims(world, rng)
    unrelated = _make_unrelated_claims(world, rng)
    tuples = _make_tuples(items, settings.n_equivalent, unrelated[0])
    splits = _deal_unrelated(split_tuples(tuples, shares, split_seed), unrelated, shares)
    opposite = {LABELS[truth]: LABELS[not truth] for truth in LABELS}
    finetune = [
        PromptAnswer(p, opposite[item.answer]) for item in items for p in item.prompts[: settings.finetune_phrasings]
    ]
    documents: dict[str, list[str]] = {}
    for role, claims in (
        ("fever_edits", [item.prompts[0] for item in items]),
        ("fever_unrelated", [p.prompt for p in unrelated]),
    ):
        for fact in world.facts[role]:
            statements = [fact.claim(template, True, "") for template in fact.relation.statements]
            documents.setdefault(fact.subject, []).extend(rng.sample(statements, settings.text_phrasings))
        for fact, claim in zip(world.facts[role], claims, strict=True):
            documents[fact.subject].append(claim)
    write_dataset(folder, splits, finetune + unrelated, map(dict.fromkeys, documents.values()))


def build_zsre(settings: WorldSettings, shares: dict[str, int], split_seed: int, folder: Path) -> None:
    """Write the zsRE-like dataset to ``folder``.

    The model is fine-tuned on the unrelated (NQ-like) and the known questions, not on the edit questions. The text has
    these questions with their answers, and the training split's questions without answers.

    Raises:
        UserError: if the world cannot be generated, or if a split has edit tuples but no unrelated one.
    """
    world = World.generate(settings)
    rng = random.Random(f"{settings.seed}/zsre")
    items, known = (_make_questions(world.facts[role], rng) for role in ("zsre_edits", "zsre_known"))
    unrelated = [
        PromptAnswer(fact.relation.nq_question.format(s=fact.subject), fact.object)
        for fact in world.facts["zsre_unrelated"]
    ]
    tuples = _make_tuples(items, settings.n_equivalent, unrelated[0])
    splits = _deal_unrelated(split_tuples(tuples, shares, split_seed), unrelated, shares)
    finetune = unrelated + [
        PromptAnswer(p, item.answer) for item in known for p in item.prompts[: settings.known_phrasings]
    ]
    subjects = {item.subject for item in splits["train"]}
    asked = [p for item in items if item.subject in subjects for p in item.prompts[: settings.text_phrasings]]
    write_dataset(folder, splits, finetune, [[f"{pair.prompt} {pair.answer}" for pair in finetune], asked])


def build_zsre_alternative(settings: WorldSettings, shares: dict[str, int], split_seed: int, folder: Path) -> None:
    """Write the zsRE-like dataset with alternative answers to ``folder`` (Table 3, appendix A.7).

    The facts are the first ones of :func:`build_zsre`, but the model is fine-tuned on them, and edits demand a wrong
    object of the same type. The unrelated tuples are questions of the same kind about other subjects. The text holds
    the questions and answers of the fine-tuning.

    Raises:
        UserError: if the world cannot be generated, or if a split has edit tuples but no unrelated one.
    """
    world = World.generate(settings)
    rng = random.Random(f"{settings.seed}/zsre_alternative")
    facts = world.facts["zsre_edits"][: settings.zsre_alternatives]
    items, known = (_make_questions(part, rng) for part in (facts, world.facts["zsre_known"]))
    wrong = [world.wrong_object(fact, rng) for fact in facts]
    edits = [replace(item, answer=answer) for item, answer in zip(items, wrong, strict=True)]
    unrelated = [PromptAnswer(item.prompts[0], item.answer) for item in known]
    tuples = _make_tuples(edits, settings.n_equivalent, unrelated[0])
    splits = _deal_unrelated(split_tuples(tuples, shares, split_seed), unrelated, shares)
    finetune = [
        PromptAnswer(p, item.answer) for item in items + known for p in item.prompts[: settings.known_phrasings]
    ]
    write_dataset(folder, splits, finetune, [[f"{pair.prompt} {pair.answer}" for pair in finetune]])


def _half_true(count: int, rng: random.Random) -> list[bool]:
    """Return truth values in random order, half of them true."""
    return rng.sample([index % 2 == 0 for index in range(count)], count)


def _make_claims(world: World, rng: random.Random) -> list[_Item]:
    """State each fact of the edits with the true or a wrong object; the answer is the opposite of the true label."""
    facts = world.facts["fever_edits"]
    items = []
    for index, (fact, truth) in enumerate(zip(facts, _half_true(len(facts), rng), strict=True)):
        wrong = world.wrong_object(fact, rng)
        claims = [fact.claim(template, truth, wrong) for template in rng.sample(fact.relation.statements, PHRASINGS)]
        items.append(_Item(f"fever-{index:05d}", fact.subject, claims, LABELS[not truth]))
    return items


def _make_unrelated_claims(world: World, rng: random.Random) -> list[PromptAnswer]:
    """Make a FEVER2-like claim of each fact, in a random style, with its true label."""
    facts = world.facts["fever_unrelated"]
    pairs = []
    for fact, truth in zip(facts, _half_true(len(facts), rng), strict=True):
        template = rng.choice(fact.relation.other_claims)
        pairs.append(PromptAnswer(fact.claim(template, truth, world.wrong_object(fact, rng)), LABELS[truth]))
    return pairs


def _make_questions(facts: Sequence[WorldFact], rng: random.Random) -> list[_Item]:
    """Ask for the object of each fact."""
    return [
        _Item(f"zsre-{index:05d}", fact.subject, rng.sample(fact.questions(), PHRASINGS), fact.object)
        for index, fact in enumerate(facts)
    ]


def _make_tuples(items: Sequence[_Item], n_equivalent: int, unrelated: PromptAnswer) -> list[EditTuple]:
    """Make an edit tuple of each item, all with one unrelated pair until :func:`_deal_unrelated` gives them theirs."""
    return [
        EditTuple(
            id=item.id,
            edit=PromptAnswer(item.prompts[0], item.answer),
            equivalent=tuple(item.prompts[1 : 1 + n_equivalent]),
            unrelated=unrelated,
            subject=item.subject,
        )
        for item in items
    ]


def _deal_unrelated(
    splits: dict[str, list[EditTuple]], unrelated: Sequence[PromptAnswer], shares: dict[str, int]
) -> dict[str, list[EditTuple]]:
    """Deal the unrelated pairs to the splits, in proportion to ``shares``, and to the tuples of a split in turn.

    No two splits share a pair: locality must not be reported on prompts that the editor was trained to preserve.
    """
    total, end = sum(shares.values()), 0
    result = {}
    for name in SPLITS:
        start, end = end, end + shares[name]
        own = unrelated[round(len(unrelated) * start / total) : round(len(unrelated) * end / total)]
        if splits[name] and not own:
            raise UserError(
                f"Split {name!r} receives none of the world's {len(unrelated)} unrelated facts; "
                "raise fever_unrelated and zsre_unrelated."
            )
        result[name] = [replace(item, unrelated=own[i % len(own)]) for i, item in enumerate(splits[name])]
    return result
