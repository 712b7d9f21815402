"""CounterFact in EasyEdit's flat format or in that of ROME and MEMIT (a JSON list), and the edit tuples made from it.

A record begins a sentence about a ``subject`` (``prompt``: "Toko Yasuda, the") that truly ends with ``ground_truth``
(guitar). The edit demands ``target_new`` (piano), after ``rephrase_prompt`` ("Toko Yasuda is incredible at"), too. The
unrelated tuple is a true sentence about another subject: ``locality_prompt`` ("John Lennon performs on the") with its
end ``locality_ground_truth`` (guitar, in each record that of the edited sentence). All texts are brought to one line
with single spaces and none around it; a prompt and its end are joined by one space, as a question and its answer are.

In the format of ROME and MEMIT the same is in ``requested_rewrite``, whose ``prompt`` has {} in the place of the
subject, in ``paraphrase_prompts``, and in ``neighborhood_prompts``, whose ends are all that of the edited sentence. The
first of these, such as "The mother tongue of Leon Blum is", is the unrelated tuple.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

from malmen.data.parsing import different, group_by_text, key, perhaps_empty, read_json_list, reading, tidy
from malmen.data.splitting import Topic, topics
from malmen.data.tuples import EditTuple, PromptAnswer

AFTER_NAME = re.compile("('s|[,:;?])$")
"""What may follow a name in the same word."""


@dataclass(frozen=True)
class Statement:
    """A true sentence, cut into a prompt and its end, and the end that an edit demands.

    Attributes:
        id: of the record.
        subject: what the sentence is about.
        prompt: its beginning.
        truth: its end.
        answer: the end that the edit demands.
        rephrasings: other beginnings; none if the record has none.
        unrelated: the unrelated tuple; none if the record has none.
    """

    id: str
    subject: str
    prompt: str
    truth: str
    answer: str
    rephrasings: tuple[str, ...]
    unrelated: tuple[PromptAnswer, ...]


def read_statements(path: Path) -> list[Statement]:
    """Read a file of CounterFact; a malformed file or record is a :class:`UserError` naming file and record."""
    statements: dict[str, Statement] = {}
    for index, record in enumerate(read_json_list(path)):
        with reading(path, f"record {index}"):
            if not isinstance(record, dict):
                raise TypeError(f"expected a JSON object, found {type(record).__name__}")
            found = rewrite(record) if "requested_rewrite" in record else statement(record)
            if found.id in statements:
                raise ValueError(f"the case_id {record['case_id']} occurs twice")
            statements[found.id] = found
    return list(statements.values())


def statement(record: Mapping[str, Any]) -> Statement:
    """Read a record in the flat format; its rephrasing and its unrelated tuple may be absent, null or empty.

    Raises:
        KeyError, TypeError, ValueError: if it is malformed.
    """
    optional = {name: value for name, value in record.items() if value is not None}
    rephrasing, prompt, answer = (
        perhaps_empty(optional.get(name, ""))
        for name in ("rephrase_prompt", "locality_prompt", "locality_ground_truth")
    )
    return Statement(
        id=id_of(record),
        subject=tidy(record["subject"]),
        prompt=tidy(record["prompt"]),
        truth=tidy(record["ground_truth"]),
        answer=tidy(record["target_new"]),
        rephrasings=(rephrasing,) if rephrasing else (),
        unrelated=(PromptAnswer(prompt, answer),) if prompt and answer else (),
    )


def rewrite(record: Mapping[str, Any]) -> Statement:
    """Read a record in the format of ROME and MEMIT, which may have no paraphrases and no neighbourhood.

    Raises:
        KeyError, TypeError, ValueError: if it is malformed.
    """
    request = record["requested_rewrite"]
    if not isinstance(request, dict):
        raise TypeError(f"expected an object as requested_rewrite, found {request!r}")
    subject, prompt = tidy(request["subject"]), tidy(request["prompt"])
    truth, answer = tidy(request["target_true"]["str"]), tidy(request["target_new"]["str"])
    if prompt.count("{}") != 1:
        raise ValueError(f"expected one {{}} in the prompt, found {prompt!r}")
    rephrasings, neighbours = (record.get(name) or [] for name in ("paraphrase_prompts", "neighborhood_prompts"))
    for texts in (rephrasings, neighbours):
        if not isinstance(texts, list):
            raise TypeError(f"expected a list of prompts, found {texts!r}")
    return Statement(
        id=id_of(record),
        subject=subject,
        prompt=prompt.replace("{}", subject),
        truth=truth,
        answer=answer,
        rephrasings=tuple(map(tidy, rephrasings)),
        unrelated=tuple(PromptAnswer(tidy(text), truth) for text in neighbours[:1]),
    )


def id_of(record: Mapping[str, Any]) -> str:
    """Return the id of a record in either format; raise Key- or ``TypeError`` if it has no number."""
    if type(record["case_id"]) is not int:
        raise TypeError(f"expected a number as case_id, found {record['case_id']!r}")
    return f"counterfact-{record['case_id']}"


def select(statements: Iterable[Statement]) -> tuple[list[Statement], dict[str, int]]:
    """Merge records with the same prompt, and keep those that are whole and that no other contradicts.

    Returns:
        The statements, and how many were read, joined to an earlier one, kept, and dropped: because they have no
        unrelated tuple or no rephrasing; because edits contradict each other (they demand two answers to a prompt, or
        in place of one truth about a subject); or because the unrelated prompt has two answers.
    """
    everything = list(statements)
    complete = [item for item in everything if item.unrelated]
    groups, by_prompt = group_by_text(complete, lambda item: item.prompt, lambda item: item.answer)
    joined = [
        replace(group[0], rephrasings=different(group[0].prompt, (text for item in group for text in item.rephrasings)))
        for group in groups
    ]
    rephrased = [item for item in joined if item.rephrasings]
    facts, by_fact = group_by_text(rephrased, lambda item: f"{item.subject} {item.truth}", lambda item: item.answer)
    others, ambiguous = group_by_text(
        chain(*facts), lambda item: item.unrelated[0].prompt, lambda item: item.unrelated[0].answer
    )
    kept = list(chain(*others))
    counts = {
        "read": len(everything),
        "dropped_no_unrelated": len(everything) - len(complete),
        "dropped_contradictory": by_prompt + by_fact,
        "joined": len(complete) - by_prompt - len(groups),
        "dropped_no_rephrasing": len(joined) - len(rephrased),
        "dropped_ambiguous_unrelated": ambiguous,
        "kept": len(kept),
    }
    return kept, counts


def without_preserved(statements: Sequence[Statement]) -> list[Statement]:
    """Drop the edits that change what an unrelated tuple preserves.

    That is, an edit whose prompt or rephrasing is also unrelated, or whose subject and truth an unrelated tuple states
    in other words: an editor would have to change and to keep one fact.
    """
    subjects = {item.subject for item in statements}
    unrelated = [pair for item in statements for pair in item.unrelated]
    prompts = {key(pair.prompt) for pair in unrelated}
    facts = {(subject, key(pair.answer)) for pair in unrelated for subject in named(pair.prompt, subjects)}
    return [
        item
        for item in statements
        if prompts.isdisjoint(map(key, (item.prompt, *item.rephrasings)))
        and (item.subject, key(item.truth)) not in facts
    ]


def named(prompt: str, subjects: Set[str]) -> set[str]:
    """Return which subjects a prompt names, as whole words in the same spelling."""
    words = prompt.split()
    parts = [" ".join(words[start:end]) for start, end in combinations(range(len(words) + 1), 2)]
    return {text for part in parts for text in (part, AFTER_NAME.sub("", part)) if text in subjects}


def topics_among(tuples: Iterable[EditTuple]) -> Callable[[EditTuple], list[Topic]]:
    """Return the function from one of these tuples to its topics, with those of its unrelated prompt.

    These are the prompt itself and the edited subjects that it names. So a split shares with no other what it edits or
    preserves.
    """
    subjects = {item.subject for item in tuples if item.subject is not None}

    def topics_of(item: EditTuple) -> list[Topic]:
        others = sorted(named(item.unrelated.prompt, subjects))
        return [
            *topics(item),
            ("question", key(item.unrelated.prompt)),
            *(("subject", key(subject)) for subject in others),
        ]

    return topics_of


def edit_tuple(item: Statement) -> EditTuple:
    """Make the edit that ends a statement otherwise; it must have a rephrasing and an unrelated tuple."""
    return EditTuple(
        id=item.id,
        edit=PromptAnswer(item.prompt, item.answer),
        equivalent=item.rephrasings,
        unrelated=item.unrelated[0],
        subject=item.subject,
        truth=item.truth,
    )
