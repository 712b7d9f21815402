"""The schema of all data sets.

A *dataset* is a folder with five files:

==================== ==================================================================================
``train.jsonl``      edit tuples on which editors are trained
``tune.jsonl``       edit tuples on which hyper-parameters are chosen, disjoint from both others
``validation.jsonl`` edit tuples on which results are reported
``finetune.jsonl``   prompts and answers on which the model is fine-tuned before it is edited
``text.txt``         one sequence per line, blank lines between documents (lines on one subject), on which tiny models
                     and their tokenizers are pretrained
==================== ==================================================================================
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeGuard, TypeVar

from malmen.data.user_files import Fields, Kind, read_records
from malmen.errors import UserError
from malmen.runtime.files import replacing
from malmen.runtime.text import short_repr

T = TypeVar("T")
R = TypeVar("R")

SPLITS = ("train", "tune", "validation")
TUPLE = Fields(
    ("id", "edit", "equivalent", "unrelated"),
    ("subject", "truth"),
    '{"id": "1", "edit": {"prompt": "...", "answer": "..."}, "equivalent": ["..."], "unrelated": {"prompt": "...", '
    '"answer": "..."}}',
)
"""The fields of an edit tuple."""


def is_text(value: object) -> TypeGuard[str]:
    """Return whether a value is a string that is not blank and has no lone surrogates."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class PromptAnswer:
    """A prompt and its answer: a question and a phrase (zsRE, NQ), or a claim and SUPPORTS or REFUTES (FEVER)."""

    prompt: str
    answer: str

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless both are non-blank strings."""
        for name in ("prompt", "answer"):
            if not is_text(getattr(self, name)):
                raise ValueError(f"'{name}' must be a non-empty string, not {short_repr(getattr(self, name))}")


@dataclass(frozen=True)
class EditTuple:
    """One edit ``(x, y)`` with prompts equivalent to ``x`` (same ``y``) and an unrelated tuple (section 3).

    ``truth`` is the true answer to ``x`` where the edit demands another and the data state it, as CounterFact does.
    """

    id: str
    edit: PromptAnswer
    equivalent: tuple[str, ...]
    unrelated: PromptAnswer
    subject: str | None = None
    truth: str | None = None

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless there is an id and at least one equivalent prompt, none of them empty."""
        if not is_text(self.id):
            raise ValueError(f"'id' must be a non-empty string, not {short_repr(self.id)}")
        for name in ("subject", "truth"):
            value = getattr(self, name)
            if value is not None and not is_text(value):
                raise ValueError(f"{name!r} must be a non-empty string or null, not {short_repr(value)}")
        if not self.equivalent or not all(map(is_text, self.equivalent)):
            raise ValueError(
                f"'equivalent' must be a non-empty list of non-empty strings, not {short_repr(list(self.equivalent))}"
            )


class Triple(NamedTuple, Generic[T]):
    """One thing for the edits, one for the equivalent prompts and one for the unrelated tuples, in this order."""

    edit: T
    equivalent: T
    unrelated: T

    def map(self, function: Callable[[T], R]) -> "Triple[R]":
        """Return what a function makes of each of the three."""
        return Triple(function(self.edit), function(self.equivalent), function(self.unrelated))


def tuple_from_json(record: Mapping[str, Any]) -> EditTuple:
    """Build an :class:`EditTuple` from its JSON form; raise Key-, Type- or ``ValueError`` if malformed."""
    if not isinstance(record["equivalent"], list):
        raise TypeError(f"'equivalent' must be a list, not {short_repr(record['equivalent'])}")
    for name in ("edit", "unrelated"):
        if not isinstance(record[name], dict):
            raise TypeError(f"{name!r} must be an object with prompt and answer, not {short_repr(record[name])}")
    return EditTuple(
        id=record["id"],
        edit=PromptAnswer(record["edit"]["prompt"], record["edit"]["answer"]),
        equivalent=tuple(record["equivalent"]),
        unrelated=PromptAnswer(record["unrelated"]["prompt"], record["unrelated"]["answer"]),
        subject=record.get("subject"),
        truth=record.get("truth"),
    )


def tuple_to_json(item: EditTuple) -> dict[str, Any]:
    """Return the JSON form of an edit tuple, which has the field ``truth`` only if the truth is known."""
    record = asdict(item)
    if item.truth is None:
        del record["truth"]
    return record


def enumerate_jsonl(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read one JSON object per line, with the line's number.

    Raises:
        UserError: if the file is missing or a line malformed; names file and line.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; check the path.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); download or make it again.") from None
    remedy = "download or make the file again"
    records = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not valid JSON ({getattr(error, 'msg', error)}); {remedy}.") from None
        if not isinstance(record, dict):
            raise UserError(f"{place}: expected a JSON object, found {type(record).__name__}; {remedy}.")
        records.append((number, record))
    return records


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object per line in UTF-8, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read_tuples(path: Path) -> list[EditTuple]:
    """Read a split; malformed records and repeated ids are one :class:`UserError` naming file and lines."""
    ids: set[str] = set()

    def build(record: Mapping[str, Any], _where: str) -> EditTuple:
        item = tuple_from_json(record)
        if item.id in ids:
            raise ValueError(f"the id {short_repr(item.id)} occurs twice")
        ids.add(item.id)
        return item

    kind = Kind("edit tuples", TUPLE, build)
    return read_records(path, [kind], "correct it, or make the file again").sound()


def read_pairs(path: Path) -> list[PromptAnswer]:
    """Read ``finetune.jsonl``; a malformed record is a :class:`UserError` naming file and line."""
    pairs = []
    for number, record in enumerate_jsonl(path):
        try:
            pairs.append(PromptAnswer(**record))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}, line {number}: {error}; make the file again.") from None
    return pairs


def write_dataset(
    folder: Path,
    splits: dict[str, list[EditTuple]],
    finetune: Iterable[PromptAnswer],
    documents: Iterable[Iterable[str]],
) -> None:
    """Write the five files of a dataset (see the module's description)."""
    write_splits(folder, splits)
    write_finetuning_data(folder, finetune, documents)


def write_splits(folder: Path, splits: dict[str, list[EditTuple]]) -> None:
    """Write the edit tuples of a dataset."""
    for name in SPLITS:
        write_jsonl(folder / f"{name}.jsonl", map(tuple_to_json, splits[name]))


def write_finetuning_data(folder: Path, finetune: Iterable[PromptAnswer], documents: Iterable[Iterable[str]]) -> None:
    """Write the data on which models are fine-tuned and pretrained."""
    write_jsonl(folder / "finetune.jsonl", (asdict(pair) for pair in finetune))
    with replacing(folder / "text.txt") as temporary:
        paragraphs = ("".join(f"{line}\n" for line in document) for document in documents)
        temporary.write_text("\n".join(paragraphs), encoding="utf-8")


def read_documents(path: Path) -> list[list[str]]:
    """Read ``text.txt``: the lines of each document. Raises :class:`UserError` if it cannot be read as text."""
    try:
        paragraphs = path.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({type(error).__name__}); make the file again.") from None
    return [paragraph.split("\n") for paragraph in paragraphs if paragraph]
