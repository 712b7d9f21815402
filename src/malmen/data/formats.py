"""The formats in which people have facts to edit, and the one record that all of them become.

A file's format is recognised by the fields of its records, whether they are JSON lines, a JSON list or the rows of a
table. In some formats two fields hold answers: the one that an edit demands, and the one that is true.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from malmen.config.base import Answers
from malmen.data.fever import OPPOSITE, label, settled_label
from malmen.data.json_values import read_values
from malmen.data.nq import NQ_PREFIX, as_question
from malmen.data.tuples import TUPLE, PromptAnswer, is_text, tuple_from_json
from malmen.data.user_files import Fields, Kind, Record, columns_of, read_records
from malmen.data.user_text import named
from malmen.errors import UserError
from malmen.runtime.problems import refuse_all
from malmen.runtime.text import counted, short_repr

logger = logging.getLogger("malmen")


class Asked(Protocol):
    """What has a prompt and an answer."""

    @property
    def prompt(self) -> str:
        """The prompt."""

    @property
    def answer(self) -> str:
        """The answer."""


A = TypeVar("A", bound=Asked)


@dataclass(frozen=True, slots=True)
class FactRecord:
    """A fact as any format states it.

    Attributes:
        prompt: the question, or the beginning of a sentence.
        answer: the answer that was asked for.
        rephrasings: other prompts with the same answer.
        subject: what the fact is about; None if the record does not say.
        unrelated: prompts, with answers, that an edit should not change.
        where: the place in the file, such as "line 3".
        id: of an edit tuple of this package; None in other formats.
        truth: the true answer, where another one was asked for and the record states both; else None.
    """

    prompt: str
    answer: str
    rephrasings: tuple[str, ...] = ()
    subject: str | None = None
    unrelated: tuple[PromptAnswer, ...] = ()
    where: str = ""
    id: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class FactsFormat(Kind[FactRecord]):
    """A format of facts.

    Attributes:
        answer: the field that is the answer.
        recognised: the fields that tell the format, for documentation.
    """

    answer: str = "answer"
    recognised: str = ""


@dataclass(frozen=True)
class ReadFrom:
    """What facts were read from, as a report states it.

    Attributes:
        format: the name of the file's format.
        answer: the field that is the answer.
        records: the number of records in it.
        skipped: how many of them were left out because they do not fit.
    """

    format: str
    answer: str
    records: int
    skipped: int

    def __str__(self) -> str:
        left_out = f", without {counted(self.skipped, 'record')} that {'does' if self.skipped == 1 else 'do'} not fit"
        return f"{self.format}; the answers are {self.answer!r}{left_out if self.skipped else ''}"


@dataclass(frozen=True)
class ReadFacts:
    """The facts of a file.

    Attributes:
        records: the facts, in order.
        read: where they come from.
    """

    records: list[FactRecord]
    read: ReadFrom


def read_fact_records(
    path: Path,
    answers: Answers = "new",
    skip_bad: bool = False,
    may_contradict: Collection[str] = (),
) -> ReadFacts:
    """Read the facts of a file in any format.

    One record after the other is read and converted; neither the text nor the parsed file is ever whole in memory.

    Args:
        path: the file; ``-`` is standard input.
        answers: which answer is taken where a record has two.
        skip_bad: leave out the records that do not fit, and count them.
        may_contradict: the names of formats whose facts may give one prompt two answers.

    Raises:
        UserError: if there is no such file, it has no format that is known or mixes two, or records do not fit; names
            the file, and all of these records with their fields.
    """
    kinds = formats(answers)
    reading = read_records(path, kinds, wanted=WANTED)
    records, file = reading.items, named(path)
    if not (records or reading.problems):
        raise UserError(f"{file} is empty; write lines such as {QUESTION_EXAMPLE} into it.")
    allowed = reading.kind.name in may_contradict
    others = {} if allowed else contradictions(records, lambda record: f"{file}, {record.where}")
    problems = [*reading.problems, *others.values()]
    if not skip_bad:
        refuse_all(problems, reading.checked)
    records = [record for place, record in enumerate(records) if place not in others]
    if not records:
        raise UserError(f"No record of {file} fits; for example: {problems[0]}")
    kind = next(kind for kind in kinds if kind is reading.kind)
    read = ReadFrom(kind.name, kind.answer, reading.n, reading.n - len(records))
    if read.skipped:
        left_out = counted(read.skipped, "bad record")
        logger.warning("%s: left out %s; the first: %s", file, left_out, problems[0])
    if kind.name not in (OWN, TUPLES):
        logger.info("%s: %s in the format of %s.", file, counted(len(records), "record"), read)
    return ReadFacts(records, read)


def count_records(path: Path) -> int:
    """Return the number of records in a file in any format; raise :class:`UserError` if it has no format at all."""
    return sum(1 for _ in read_values(path, WANTED, columns_of(formats())))


def contradictions(items: Sequence[A], place: Callable[[A], str]) -> dict[int, str]:
    """Return, by index, a sentence for each item whose prompt has another answer in an earlier one.

    Args:
        items: facts or records.
        place: returns where an item stands.
    """
    first: dict[str, int] = {}
    found = {}
    for index, item in enumerate(items):
        earlier = first.setdefault(item.prompt, index)
        if items[earlier].answer != item.answer:
            found[index] = (
                f"{place(item)}: the prompt {short_repr(item.prompt)} has the answer {short_repr(item.answer)} here "
                f"but {short_repr(items[earlier].answer)} in {place(items[earlier])}; keep one of them."
            )
    return found


# What stands in a field.


def given(record: Record, *names: str) -> str | None:
    """Return the first of these fields that a record has and that is not empty."""
    return next((name for name in names if not is_empty(record.get(name))), None)


def is_empty(value: object) -> bool:
    """Return whether a field holds nothing: null, or a text, a list or an object without content."""
    content = value.strip() if isinstance(value, str) else value
    return content is None or (isinstance(content, str | list | dict) and not content)


def text(value: object, name: str) -> str:
    """Return a text without the spaces around it; raise ``ValueError`` if a field holds none."""
    if not is_text(value):
        raise ValueError(f"{name!r} must be a non-empty string, not {short_repr(value)}")
    return value.strip()


def one_text(value: object, name: str) -> str:
    """Return a text, or the first of a list of texts or of lists of them."""
    while isinstance(value, list) and value:
        value = value[0]
    if not is_text(value):
        raise ValueError(f"{name!r} must be a non-empty string or a list of them, not {short_repr(value)}")
    return value.strip()


def texts(record: Record, *names: str) -> tuple[str, ...]:
    """Return the texts, one or a list, of the fields that a record has of these; none if it has none."""
    found: list[str] = []
    for name in names:
        if given(record, name):
            value = record[name]
            several = value if isinstance(value, list) else [value]
            if not all(map(is_text, several)):
                raise ValueError(f"{name!r} must be a non-empty string or a list of them, not {short_repr(value)}")
            found += [item.strip() for item in several]
    return tuple(found)


def own_rephrasings(record: Record) -> tuple[str, ...]:
    """Return the rephrasings of a record of this package."""
    value = record.get("rephrasings") or []
    if not isinstance(value, list) or not all(map(is_text, value)):
        raise ValueError(f"'rephrasings' must be a list of non-empty strings, not {short_repr(value)}")
    return tuple(item.strip() for item in value)


def subject_of(record: Record) -> str | None:
    """Return the subject, if a record has one; what is not text is kept as JSON, since only MEMIT looks at it."""
    value = record.get("subject")
    if not isinstance(value, str | None):
        value = json.dumps(value)
    return value.strip() or None if value else None


def pair_of(record: Record, prompt: str, *answers: str) -> tuple[PromptAnswer, ...]:
    """Return the unrelated prompt of two fields; none if both are empty."""
    answer = given(record, *answers)
    if not given(record, prompt) and not answer:
        return ()
    if not given(record, prompt):
        raise ValueError(f"{prompt!r} is empty, but {answer!r} is not")
    if not answer:
        raise ValueError(f"{answers[0]!r} is empty, but {prompt!r} is not")
    return (PromptAnswer(text(record[prompt], prompt), one_text(record[answer], answer)),)


def truth_of(record: Record, new: str, true: str) -> str | None:
    """Return the true answer beside the new one, both of which a record may have as a text or a list of them.

    None if nothing is true but what is new. That the answer is not asked for is no reason to refuse a malformed one.
    """
    try:
        truth = one_text(record[true], true)
        return None if truth == one_text(record[new], new) else truth
    except (KeyError, ValueError):
        return None


def locality(value: Any) -> tuple[PromptAnswer, ...]:
    """Return the prompts of EasyEdit's nested dictionary, such as {"Relation_Specificity": [{"prompt": ...}, ...]}."""
    pairs: list[PromptAnswer] = []
    for name, part in need(value, dict, "locality").items():
        place = f"locality.{name}"
        for item in part if isinstance(part, list) else [part]:
            prompts, answers = need(item, dict, place).get("prompt"), item.get("ground_truth")
            if not isinstance(prompts, list):
                prompts, answers = [prompts], [answers]
            if not isinstance(answers, list) or len(answers) != len(prompts):
                raise ValueError(f"'{place}' has {counted(len(prompts), 'prompt')} but other numbers of ground_truth")
            for prompt, answer in zip(prompts, answers, strict=True):
                question = text(prompt, f"{place}.prompt")
                pairs.append(PromptAnswer(question, one_text(answer, f"{place}.ground_truth")))
    return tuple(pairs)


def need(value: Any, kind: type[dict[str, Any]] | type[list[Any]], name: str) -> Any:
    """Return a value; raise ``TypeError`` unless it is of a kind."""
    if not isinstance(value, kind):
        what = "an object" if kind is dict else "a list"
        raise TypeError(f"{name!r} must be {what}, not {short_repr(value)}")
    return value


def filled(template: str, subject: str, name: str) -> str:
    """Put a subject into a template."""
    if template.count("{}") != 1:
        raise ValueError(f"{name!r} must hold {{}} once, where the subject stands, not {short_repr(template)}")
    return template.replace("{}", subject)


# The formats.


def own(record: Record, where: str) -> FactRecord:
    """Read a fact of this package."""
    return FactRecord(
        text(record["prompt"], "prompt"),
        text(record["answer"], "answer"),
        own_rephrasings(record),
        subject_of(record),
        pair_of(record, "unrelated_prompt", "unrelated_answer"),
        where,
    )


def own_tuple(record: Record, where: str, ids: set[str]) -> FactRecord:
    """Read an edit tuple of this package, whose id is not among those of earlier ones; add it to them."""
    item = tuple_from_json(record)
    if item.id in ids:
        raise ValueError(f"the id {short_repr(item.id)} occurs twice")
    ids.add(item.id)
    return FactRecord(
        item.edit.prompt,
        item.edit.answer,
        item.equivalent,
        item.subject,
        (item.unrelated,),
        where,
        item.id,
        item.truth,
    )


def rewrite(record: Record, where: str, answer: str) -> FactRecord:
    """Read a record of ROME and MEMIT; the unrelated prompts have the true answer."""
    request = need(record["requested_rewrite"], dict, "requested_rewrite")
    inside = "requested_rewrite"

    def target(name: str) -> str:
        value = request[name]
        return text(value["str"] if isinstance(value, dict) else value, f"{inside}.{name}")

    subject = text(request["subject"], f"{inside}.subject")
    neighbours = need(record.get("neighborhood_prompts") or [], list, "neighborhood_prompts")
    unrelated = [
        PromptAnswer(
            text(item["prompt"], "neighborhood_prompts.prompt"), text(item["target"], "neighborhood_prompts.target")
        )
        if isinstance(item, dict)
        else PromptAnswer(text(item, "neighborhood_prompts"), target("target_true"))
        for item in neighbours
    ]
    prompt = filled(text(request["prompt"], f"{inside}.prompt"), subject, f"{inside}.prompt")
    stated = {name: value.get("str") if isinstance(value, dict) else value for name, value in request.items()}
    return FactRecord(
        prompt,
        target(answer),
        texts(record, "paraphrase_prompts"),
        subject,
        tuple(unrelated),
        where,
        truth=truth_of(stated, "target_new", "target_true") if answer == "target_new" else None,
    )


def known(record: Record, where: str) -> FactRecord:
    """Read a fact that ROME found known to GPT-2; its only answer is the true one."""
    subject = text(record["subject"], "subject")
    written = filled(text(record["template"], "template"), subject, "template")
    prompt = text(record["prompt"], "prompt") if given(record, "prompt") else written.strip()
    return FactRecord(prompt, text(record["attribute"], "attribute"), (), subject, (), where)


def easyedit(record: Record, where: str, answer: str) -> FactRecord:
    """Read a record of EasyEdit or KnowEdit."""
    nested = locality(record["locality"]) if given(record, "locality") else ()
    return FactRecord(
        text(record["prompt"], "prompt"),
        one_text(record[answer], answer),
        texts(record, "rephrase_prompt", "rephrase"),
        subject_of(record),
        (*nested, *pair_of(record, "locality_prompt", "locality_ground_truth")),
        where,
        truth=truth_of(record, "target_new", "ground_truth") if answer == "target_new" else None,
    )


def mend(record: Record, where: str, answer: str) -> FactRecord:
    """Read a question of zsRE as MEND's authors use it; its unrelated question is one of NQ."""
    return FactRecord(
        text(record["src"], "src"),
        one_text(record[answer], answer),
        texts(record, "rephrase"),
        subject_of(record),
        tuple(nq_pair(pair) for pair in pair_of(record, "loc", "loc_ans")),
        where,
        truth=truth_of(record, "alt", "answers") if answer == "alt" else None,
    )


def nq_pair(pair: PromptAnswer) -> PromptAnswer:
    """Write a question of NQ as a question, without what MEND's files put before it."""
    question = pair.prompt.removeprefix(NQ_PREFIX.strip()).strip()
    return PromptAnswer(as_question(text(question, "loc")), pair.answer)


def authors_zsre(record: Record, where: str) -> FactRecord:
    """Read a question of the authors' zsRE, whose unrelated question lacks its question mark."""
    pairs = pair_of(record, "loc", "loc_ans")
    unrelated = (PromptAnswer(pair.prompt.removesuffix("?") + "?", pair.answer) for pair in pairs)
    return FactRecord(
        text(record["src"], "src"),
        text(record["ans"], "ans"),
        texts(record, "rephrase"),
        subject_of(record),
        tuple(unrelated),
        where,
    )


def authors_fever(record: Record, where: str, answers: Answers) -> FactRecord:
    """Read a claim of the authors' FEVER, whose true label is the opposite of the new one."""
    unrelated = (
        PromptAnswer(pair.prompt, settled_label(pair.answer)) for pair in pair_of(record, "unrel_prompt", "unrel_ans")
    )
    new = label(text(record["alt"], "alt"))
    return FactRecord(
        text(record["prompt"], "prompt"),
        new if answers == "new" else OPPOSITE[new],
        texts(record, "equiv_prompt"),
        subject_of(record),
        tuple(unrelated),
        where,
    )


def wikibigedit(record: Record, where: str) -> FactRecord:
    """Read a record of WikiBigEdit, whose question to a persona is a rephrasing, too."""
    return FactRecord(
        text(record["update"], "update"),
        text(record["ans"], "ans"),
        texts(record, "rephrase", "personas"),
        subject_of(record),
        pair_of(record, "loc", "loc_ans"),
        where,
    )


def nq_open(record: Record, where: str) -> FactRecord:
    """Read a question of NQ-open, with the first of its answers; a record with one answer is somebody's own."""
    if not isinstance(record["answer"], list):
        raise ValueError("field 'prompt' is missing (rename 'question' to 'prompt' if that is what it holds)")
    return FactRecord(
        as_question(text(record["question"], "question")), one_text(record["answer"], "answer"), where=where
    )


def having(*names: str, without: Sequence[str] = (), one_of: Sequence[str] = ()) -> Callable[[Record], bool]:
    """Return whether a record has all of some fields, one of others, and none of yet others."""

    def marked(record: Record) -> bool:
        return (
            all(name in record for name in names)
            and not any(name in record for name in without)
            and (not one_of or any(name in record for name in one_of))
        )

    return marked


OWN = "this package (facts)"
TUPLES = "this package (edit tuples)"
QUESTION_EXAMPLE = '{"prompt": "...", "answer": "..."}'
FACT = Fields(
    ("prompt", "answer"),
    ("rephrasings", "subject", "unrelated_prompt", "unrelated_answer"),
    '{"prompt": "...", "answer": "...", "rephrasings": ["..."], "subject": "..."} (rephrasings and subject may be left '
    "out)",
)
"""The fields of a fact of this package."""
WANTED = f"{FACT.wanted}, a table with such columns, or another format that docs/editing-your-own-facts.md lists"


def other_answer(field: str, other: str, answers: Answers) -> Mapping[str, Mapping[str, str]]:
    """Say which flag takes the other of two answers, where one is missing."""
    flag = "true" if answers == "new" else "new"
    return {field: {other: f"answers: {flag} (--answers {flag}) takes {other!r}"}}


def formats(answers: Answers = "new") -> list[FactsFormat]:
    """Return all formats, for records of which one of two answers is taken."""
    new = answers == "new"
    easy, easy_other = ("target_new", "ground_truth") if new else ("ground_truth", "target_new")
    zsre, zsre_other = ("alt", "answers") if new else ("answers", "alt")
    rewritten = "target_new" if new else "target_true"
    example = FACT.example
    ids: set[str] = set()
    return [
        FactsFormat(OWN, FACT, own, having("prompt", "answer"), "answer", "`prompt` and `answer`"),
        FactsFormat(
            TUPLES,
            TUPLE,
            lambda record, where: own_tuple(record, where, ids),
            having("edit", "equivalent"),
            "edit.answer",
            "`edit` and `equivalent`",
        ),
        FactsFormat(
            "ROME and MEMIT (requested_rewrite)",
            Fields(
                ("requested_rewrite",),
                ("paraphrase_prompts", "neighborhood_prompts"),
                example,
                ("case_id", "pararel_idx", "attribute_prompts", "generation_prompts"),
                by_hand=False,
            ),
            lambda record, where: rewrite(record, where, rewritten),
            having("requested_rewrite"),
            f"requested_rewrite.{rewritten}",
            "`requested_rewrite`",
        ),
        FactsFormat(
            "ROME (known facts)",
            Fields(
                ("subject", "attribute", "template"),
                ("prompt",),
                example,
                ("known_id", "prediction", "relation_id"),
                by_hand=False,
            ),
            known,
            having("attribute", "template"),
            "attribute",
            "`attribute` and `template`",
        ),
        FactsFormat(
            "EasyEdit and KnowEdit",
            Fields(
                ("prompt", easy),
                ("rephrase_prompt", "rephrase", "subject", "locality", "locality_prompt", "locality_ground_truth"),
                example,
                (easy_other, "portability", "case_id", "cond", "portability_prompt", "portability_ground_truth"),
                by_hand=False,
                remedies=other_answer(easy, easy_other, answers),
            ),
            lambda record, where: easyedit(record, where, easy),
            having("prompt", without=("answer",), one_of=("target_new", "ground_truth")),
            easy,
            "`prompt` and `target_new` or `ground_truth`, without `answer`",
        ),
        FactsFormat(
            "MEND (zsRE)",
            Fields(
                ("src", zsre),
                ("rephrase", "subject", "loc", "loc_ans"),
                example,
                (zsre_other, "pred", "cond", "portability", "case_id"),
                by_hand=False,
                remedies=other_answer(zsre, zsre_other, answers),
            ),
            lambda record, where: mend(record, where, zsre),
            having("src", without=("ans",), one_of=("alt", "answers")),
            zsre if new else "answers (the first)",
            "`src` and `alt` or `answers`",
        ),
        FactsFormat(
            "MALMEN's authors (zsRE)",
            Fields(("src", "ans"), ("rephrase", "subject", "loc", "loc_ans"), example, by_hand=False),
            authors_zsre,
            having("src", "ans"),
            "ans",
            "`src` and `ans`",
        ),
        FactsFormat(
            "MALMEN's authors (FEVER)",
            Fields(("prompt", "alt"), ("equiv_prompt", "subject", "unrel_prompt", "unrel_ans"), example, by_hand=False),
            lambda record, where: authors_fever(record, where, answers),
            having("prompt", one_of=("equiv_prompt", "unrel_prompt")),
            "alt" if new else "alt (the opposite label)",
            "`prompt` and `equiv_prompt` or `unrel_prompt`",
        ),
        FactsFormat(
            "WikiBigEdit",
            Fields(
                ("update", "ans"),
                ("rephrase", "personas", "subject", "loc", "loc_ans"),
                example,
                ("mhop", "mhop_ans", "tag"),
                by_hand=False,
            ),
            wikibigedit,
            having("update", "ans"),
            "ans",
            "`update` and `ans`",
        ),
        FactsFormat(
            "NQ-open",
            Fields(("question", "answer"), (), example, by_hand=False),
            nq_open,
            lambda record: "question" in record and isinstance(record.get("answer"), list),
            "answer (the first)",
            "`question` and a list `answer`",
        ),
    ]


def read_unrelated_pairs(path: Path, skip_bad: bool = False) -> tuple[list[FactRecord], ReadFrom]:
    """Read prompts, with answers, that an edit should not change, from a file in any format.

    These are the unrelated prompts of its records, such as ``loc``, if any have one; else their own prompts with their
    true answers.

    Args:
        path: the file; ``-`` is standard input.
        skip_bad: leave out the records that do not fit, and count them.

    Raises:
        UserError: as :func:`read_fact_records`.
    """
    found = read_fact_records(path, "true", skip_bad, may_contradict=[kind.name for kind in formats()])
    carried = [
        FactRecord(pair.prompt, pair.answer, where=record.where)
        for record in found.records
        for pair in record.unrelated
    ]
    if carried:
        logger.info("%s: took the unrelated prompts of its records.", named(path))
        return carried, found.read
    if any(record.rephrasings for record in found.records):
        logger.warning("%s: ignored the rephrasings; unrelated questions are asked in one form.", named(path))
    return [replace(record, rephrasings=()) for record in found.records], found.read
