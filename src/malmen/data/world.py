"""The embedded synthetic knowledge world: entities, typed relations, facts and several phrasings of each, from a seed.

The world stands in for FEVER, FEVER 2.0, zsRE and Natural Questions where nothing may be downloaded. Its names are
made of syllables, and both names and answers recombine a small stock of words, so that a tiny model with a tokenizer
of 2,000-3,000 tokens can learn them and an editor can generalise to facts it never saw.

Five disjoint sets of subjects (the roles, see :data:`ROLES`) keep apart what is edited, what must not change, and what
the model is taught in passing. Subjects are also disjoint from the people, cities and companies that occur as objects.
"""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from malmen.config.world import PHRASINGS, ROLES, WorldSettings
from malmen.data.tuples import SPLITS, EditTuple, PromptAnswer, split_tuples, write_dataset
from malmen.errors import UserError

LABELS = {True: "SUPPORTS", False: "REFUTES"}
HEARSAY = ("One may read that", "It is on record that")


@dataclass(frozen=True)
class Relation:
    """A typed relation with its phrasings: ``{s}`` is the subject, ``{o}`` the object and ``{w}`` a wrong object.

    Every claim is true as it is written here, and false with ``{o}`` and ``{w}`` exchanged.
    """

    name: str
    subject: str
    """Type of the subject."""
    object: str
    """Type of the object."""
    statements: tuple[str, ...]
    """FEVER-like claims; the first begins with the subject."""
    questions: tuple[str, ...]
    """zsRE-like questions."""
    contrast: str
    """A FEVER2-like claim in two parts, one for each object."""
    nq_question: str
    """An NQ-like question: lower case but for the subject, and in other words than the zsRE-like ones."""

    @property
    def other_claims(self) -> tuple[str, ...]:
        """All FEVER2-like claims: the contrast, a denial and two of hearsay."""
        denial = f"It would be wrong to name {{w}} as the {self.name} of {{s}}."
        return (self.contrast, denial, *(f"{opening} {self.statements[0]}" for opening in HEARSAY))


RELATIONS = (
    Relation(
        "birthplace",
        "person",
        "city",
        (
            "{s} was born in {o}.",
            "{s} is a native of {o}.",
            "The birthplace of {s} is {o}.",
            "{o} is the city where {s} was born.",
            "The city of birth of {s} was {o}.",
        ),
        (
            "Where was {s} born?",
            "In which city was {s} born?",
            "What is the birthplace of {s}?",
            "Which city is {s} a native of?",
            "What was the city of birth of {s}?",
        ),
        "{o}, not {w}, is where {s} was born.",
        "where did the person called {s} come into the world?",
    ),
    Relation(
        "profession",
        "person",
        "profession",
        (
            "{s} works as a {o}.",
            "{s} is a {o} by profession.",
            "The profession of {s} is {o}.",
            "{s} earns a living as a {o}.",
            "The occupation of {s} is that of a {o}.",
        ),
        (
            "What does {s} work as?",
            "What is the profession of {s}?",
            "Which profession does {s} have?",
            "What is the occupation of {s}?",
            "As what does {s} earn a living?",
        ),
        "A {o}, not a {w}, is what {s} became.",
        "what kind of job did the person called {s} do for money?",
    ),
    Relation(
        "employer",
        "person",
        "company",
        (
            "{s} works for {o}.",
            "{s} is employed by {o}.",
            "The employer of {s} is {o}.",
            "{o} employs {s}.",
            "{o} is the company that {s} works for.",
        ),
        (
            "Who does {s} work for?",
            "Which company does {s} work for?",
            "What is the employer of {s}?",
            "By which company is {s} employed?",
            "Which company employs {s}?",
        ),
        "{o}, not {w}, is who pays {s}.",
        "what firm pays the person called {s} every month?",
    ),
    Relation(
        "birth date",
        "person",
        "date",
        (
            "{s} was born on {o}.",
            "The birth date of {s} is {o}.",
            "{o} is the day when {s} was born.",
            "{s} has a birth date of {o}.",
            "The date of birth of {s} was {o}.",
        ),
        (
            "When was {s} born?",
            "On which date was {s} born?",
            "What is the birth date of {s}?",
            "What was the date of birth of {s}?",
            "On what day was {s} born?",
        ),
        "{o}, not {w}, is when {s} was born.",
        "at what time did the person called {s} come into the world?",
    ),
    Relation(
        "director",
        "film",
        "person",
        (
            "{s} was directed by {o}.",
            "The director of {s} is {o}.",
            "{o} directed the film {s}.",
            "{o} is the director of {s}.",
            "The film {s} is the work of director {o}.",
        ),
        (
            "Who directed {s}?",
            "Who is the director of {s}?",
            "By whom was the film {s} directed?",
            "Which director made {s}?",
            "What is the name of the director of {s}?",
        ),
        "{o}, not {w}, is who directed {s}.",
        "what person was in charge of the movie called {s}?",
    ),
    Relation(
        "genre",
        "film",
        "genre",
        (
            "{s} is a {o}.",
            "The genre of {s} is {o}.",
            "The film {s} is classified as a {o}.",
            "{s} belongs to the genre {o}.",
            "As a film, {s} counts as a {o}.",
        ),
        (
            "What is the genre of {s}?",
            "Which genre does {s} belong to?",
            "What genre of film is {s}?",
            "As what is the film {s} classified?",
            "What does {s} count as?",
        ),
        "A {o}, not a {w}, is what {s} turned out to be.",
        "what sort of movie would people call {s}?",
    ),
    Relation(
        "release year",
        "film",
        "year",
        (
            "{s} was released in {o}.",
            "The film {s} came out in {o}.",
            "The release year of {s} is {o}.",
            "{o} is the year when {s} was released.",
            "{s} is a film of the year {o}.",
        ),
        (
            "When was {s} released?",
            "In which year was {s} released?",
            "What is the release year of {s}?",
            "When did the film {s} come out?",
            "Which year is {s} a film of?",
        ),
        "{o}, not {w}, is when {s} was released.",
        "at what time could people first see the movie called {s}?",
    ),
    Relation(
        "headquarters",
        "company",
        "city",
        (
            "{s} is based in {o}.",
            "{s} has its headquarters in {o}.",
            "The headquarters of {s} are in {o}.",
            "{o} is home to the headquarters of {s}.",
            "The company {s} is located in {o}.",
        ),
        (
            "Where is {s} based?",
            "In which city is {s} based?",
            "Where does {s} have its headquarters?",
            "Which city is home to the headquarters of {s}?",
            "Where is the company {s} located?",
        ),
        "{o}, not {w}, is where {s} is based.",
        "what town has the main office of the firm called {s}?",
    ),
    Relation(
        "founder",
        "company",
        "person",
        (
            "{s} was founded by {o}.",
            "The founder of {s} is {o}.",
            "{o} founded {s}.",
            "{o} is the founder of the company {s}.",
            "The company {s} was established by {o}.",
        ),
        (
            "Who founded {s}?",
            "Who is the founder of {s}?",
            "By whom was {s} founded?",
            "Who established the company {s}?",
            "What is the name of the founder of {s}?",
        ),
        "{o}, not {w}, is who founded {s}.",
        "what person started the firm called {s}?",
    ),
    Relation(
        "product",
        "company",
        "product",
        (
            "{s} makes {o}.",
            "{s} is a maker of {o}.",
            "The main product of {s} is {o}.",
            "The company {s} produces {o}.",
            "{o} are produced by {s}.",
        ),
        (
            "What does {s} make?",
            "What is {s} a maker of?",
            "What is the main product of {s}?",
            "What does the company {s} produce?",
            "What is produced by {s}?",
        ),
        "It is {o}, not {w}, that {s} makes.",
        "what can people buy from the firm called {s}?",
    ),
    Relation(
        "family",
        "species",
        "family",
        (
            "{s} belongs to the family {o}.",
            "{s} is a species of {o}.",
            "The family of {s} is {o}.",
            "{o} is the family that includes {s}.",
            "The species {s} is placed in {o}.",
        ),
        (
            "Which family does {s} belong to?",
            "What is the family of {s}?",
            "To which family does the species {s} belong?",
            "Which family includes {s}?",
            "In which family is {s} placed?",
        ),
        "{o}, not {w}, is what {s} belongs to.",
        "under what group do books list the animal called {s}?",
    ),
    Relation(
        "habitat",
        "species",
        "habitat",
        (
            "{s} lives in the {o}.",
            "{s} is found in the {o}.",
            "The habitat of {s} is the {o}.",
            "The {o} is home to {s}.",
            "The species {s} is native to the {o}.",
        ),
        (
            "Where does {s} live?",
            "What is the habitat of {s}?",
            "In which habitat is {s} found?",
            "Which habitat is home to {s}?",
            "What is the species {s} native to?",
        ),
        "The {o}, not the {w}, is where {s} lives.",
        "at what place would people see the animal called {s}?",
    ),
    Relation(
        "country",
        "city",
        "country",
        (
            "{s} is a city in {o}.",
            "{s} is located in {o}.",
            "The country of {s} is {o}.",
            "{o} is the country where {s} lies.",
            "The city of {s} belongs to {o}.",
        ),
        (
            "In which country is {s}?",
            "What is the country of {s}?",
            "Which country does {s} belong to?",
            "In which country is the city of {s} located?",
            "What is the name of the country where {s} lies?",
        ),
        "{o}, not {w}, is where {s} lies.",
        "what nation is the town called {s} part of?",
    ),
    Relation(
        "river",
        "city",
        "river",
        (
            "{s} lies on the {o}.",
            "The {o} flows through {s}.",
            "The river of {s} is the {o}.",
            "{s} stands on the banks of the {o}.",
            "The {o} is the river that crosses the city of {s}.",
        ),
        (
            "Which river does {s} lie on?",
            "Which river flows through {s}?",
            "What is the river of {s}?",
            "On the banks of which river does {s} stand?",
            "Which river crosses the city of {s}?",
        ),
        "The {o}, not the {w}, is what flows through {s}.",
        "what body of water runs by the town called {s}?",
    ),
)

SUBJECT_CYCLE = ("person", "film", "person", "company", "species", "city")
"""Types of the subjects, in the order in which a role takes them again and again."""

FIXED_OBJECTS: dict[str, tuple[str, ...]] = {
    "profession": (
        *("baker", "banker", "botanist", "boat builder", "carpenter", "chemist", "clock maker", "court judge"),
        *("dancer", "dentist", "farmer", "film critic", "fisherman", "gardener", "glass blower", "harbour master"),
        *("journalist", "lawyer", "librarian", "mathematician", "music teacher", "novelist", "nurse", "painter"),
        *("physicist", "sculptor", "sea captain", "surgeon", "tailor", "tax collector"),
    ),
    "genre": (
        *("comedy", "court drama", "crime story", "fairy tale", "family drama", "ghost story", "heist comedy"),
        *("love story", "musical", "mystery", "road movie", "satire", "spy story", "thriller", "tragedy", "western"),
    ),
    "product": (
        *("bicycles", "brass clocks", "cotton shirts", "fishing boats", "garden tools", "glass lamps", "leather shoes"),
        *("microscopes", "motor engines", "paper maps", "pianos", "radios", "steel bridges", "toy trains"),
        *("tractors", "wool coats"),
    ),
    "habitat": (
        *("alpine meadow", "birch forest", "bamboo grove", "coral reef", "dry steppe", "estuary", "fern valley"),
        *("high desert", "mangrove swamp", "open sea", "peat bog", "rain forest", "rocky shore", "salt marsh"),
        *("savanna", "tundra"),
    ),
}
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
    """The objects of each type, from which true and wrong ones are drawn alike."""

    @classmethod
    def generate(cls, settings: WorldSettings) -> "World":
        """Generate the world of a seed.

        Raises:
            UserError: if the settings ask for more subjects than the stock of words can name.
        """
        rng = random.Random(f"{settings.seed}/world")
        names = _generate_names(rng)
        numbers = {"person": 60, "city": 60, "company": 30, "country": 20, "river": 20, "family": 16}
        named = {kind: tuple(itertools.islice(names[kind], number)) for kind, number in numbers.items()}
        objects = named | FIXED_OBJECTS | {"year": YEARS, "date": DATES}
        facts = {role: _generate_facts(role, getattr(settings, role), names, objects, rng) for role in ROLES}
        return cls(facts, objects)

    def wrong_object(self, fact: WorldFact, rng: random.Random) -> str:
        """Draw an object of the right type that is not the fact's."""
        return next(other for other in rng.sample(self.objects[fact.relation.object], 2) if other != fact.object)


def _invent_words(rng: random.Random) -> Iterator[str]:
    """Invent capitalised words of two or three syllables without end, none of them twice."""
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

    The stocks of words are small enough for the default text to hold nearly all of them, so that validation brings few
    new words but only new combinations, and large enough for the subjects of 15,000 facts.
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
    """Take new subjects until all their relations give ``count`` facts; the last subject may lack some."""
    facts: list[WorldFact] = []
    for kind in itertools.cycle(SUBJECT_CYCLE):
        if len(facts) >= count:
            break
        subject = next(names[kind], None)
        if subject is None:
            raise UserError(f"The world has too few names for {count} facts as its setting {role} asks; ask for fewer.")
        own = (relation for relation in RELATIONS if relation.subject == kind)
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

    Half of the claims are true. The model is taught the label of every claim; an edit tuple demands the opposite one.
    The text states the facts as they are, besides all claims, so that masked language modelling can learn them; each
    subject has a document.

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
    taught = [
        PromptAnswer(p, opposite[item.answer]) for item in items for p in item.prompts[: settings.taught_phrasings]
    ]
    documents: dict[str, list[str]] = {}
    for role, claims in (
        ("fever_edits", [item.prompts[0] for item in items]),
        ("fever_unrelated", [p.prompt for p in unrelated]),
    ):
        for fact in world.facts[role]:
            documents.setdefault(fact.subject, []).extend(rng.sample(_statements(fact), settings.text_phrasings))
        for fact, claim in zip(world.facts[role], claims, strict=True):
            documents[fact.subject].append(claim)
    write_dataset(folder, splits, taught + unrelated, map(dict.fromkeys, documents.values()))


def build_zsre(settings: WorldSettings, shares: dict[str, int], split_seed: int, folder: Path) -> None:
    """Write the zsRE-like dataset to ``folder``.

    The model is taught the unrelated (NQ-like) questions and the known ones, not the edit questions. The text holds
    what is taught, and questions without answers about the subjects of the training split.

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
    taught = unrelated + [
        PromptAnswer(p, item.answer) for item in known for p in item.prompts[: settings.known_phrasings]
    ]
    subjects = {item.subject for item in splits["train"]}
    asked = [p for item in items if item.subject in subjects for p in item.prompts[: settings.text_phrasings]]
    write_dataset(folder, splits, taught, [[f"{pair.prompt} {pair.answer}" for pair in taught], asked])


def build_zsre_alternative(settings: WorldSettings, shares: dict[str, int], split_seed: int, folder: Path) -> None:
    """Write the zsRE-like dataset with alternative answers to ``folder`` (Table 3, appendix A.7).

    The facts are the first of those of :func:`build_zsre`, but the model is taught them and edits demand a wrong object
    of the same type; the unrelated tuples are questions of the same kind about other subjects. The text holds what is
    taught.

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
    taught = [PromptAnswer(p, item.answer) for item in items + known for p in item.prompts[: settings.known_phrasings]]
    write_dataset(folder, splits, taught, [[f"{pair.prompt} {pair.answer}" for pair in taught]])


def _statements(fact: WorldFact) -> list[str]:
    """Return all true statements of a fact."""
    return [fact.claim(template, True, "") for template in fact.relation.statements]


def _half_true(count: int, rng: random.Random) -> list[bool]:
    """Return truth values in random order, half of them true."""
    return rng.sample([index % 2 == 0 for index in range(count)], count)


def _make_claims(world: World, rng: random.Random) -> list[_Item]:
    """State each fact of the edits truly or with a wrong object; the answer is the label opposite to its truth."""
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

    No two splits share one: an editor must not be reported on the very prompts that it was trained to leave alone.
    """
    total, end = sum(shares.values()), 0
    result = {}
    for name in SPLITS:
        start, end = end, end + shares[name]
        own = unrelated[round(len(unrelated) * start / total) : round(len(unrelated) * end / total)]
        if splits[name] and not own:
            raise UserError(
                f"Of the world's {len(unrelated)} unrelated facts none falls to the split {name}; "
                "raise fever_unrelated and zsre_unrelated."
            )
        result[name] = [replace(item, unrelated=own[i % len(own)]) for i, item in enumerate(splits[name])]
    return result
