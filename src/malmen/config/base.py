"""What all sections of the configuration share: their base classes, and the types of their values."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveInt,
)

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())
"""How pydantic reads a section: unknown keys are errors, and the string below a field describes it."""

PROMPT, ANSWER = "{prompt}", "{answer}"
"""What stands for a prompt and its answer in a template."""


class Section(BaseModel):
    """A section of the configuration that only the configuration itself reads."""

    model_config = ConfigDict(**STRICT, frozen=True)


def all_different(values: list[Any]) -> list[Any]:
    """Return the values; raise ``ValueError`` if there are none or two are equal."""
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError("must be one or more different values")
    return values


def prompt_form(value: str) -> str:
    """Return "plain", "chat" or a template; raise ``ValueError`` for anything else."""
    if value in ("plain", "chat"):
        return value
    if value.count(PROMPT) != 1 or value.count(ANSWER) != 1 or not value.endswith(ANSWER):
        raise ValueError(
            f"must be plain, chat, or a template that holds {PROMPT} once and ends in {ANSWER}, such as "
            f"'Q: {PROMPT} A: {ANSWER}'"
        )
    return value


def regular_expressions(values: list[str]) -> list[str]:
    """Return the values; raise ``ValueError`` unless all of them are regular expressions."""
    for value in values:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"must be regular expressions, which '{value}' is not ({error})") from None
    return values


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Names = Annotated[list[Name], AfterValidator(all_different)]
EditNumbers = Annotated[list[PositiveInt], AfterValidator(all_different)]
"""Several numbers of edits m."""
Seeds = Annotated[list[NonNegativeInt], AfterValidator(all_different)]
Patterns = Annotated[list[str], Field(min_length=1), AfterValidator(regular_expressions)]

Dataset = Literal["fever", "zsre", "zsre_alternative", "counterfact", "wikibigedit", "own"]
Corpus = Literal["fever", "zsre"]

Answers = Literal["new", "true"]
"""Which answer is taken of a user's fact where its record has two: the one that an edit demands, or the true one."""

TaskName = Literal["fact_checking", "question_answering", "sequence_to_sequence"]
"""How a model answers: with the log-odds of SUPPORTS, with tokens that continue the prompt (a decoder-only model), or
with tokens of the decoder while the encoder reads the prompt (an encoder-decoder)."""

Architecture = Literal["bert", "gpt2", "gptj", "t5", "bart"]
"""The architectures that can be trained from scratch."""

Dtype = Literal["float32", "bfloat16"]
"""Precision of a model's weights."""

DeviceMap = Literal["auto"] | Mapping[str, int | str]
"""Where the parts of a model lie: spread over all devices as they fit, or by the names of its modules."""

Tokens = Literal["answer", "all"]
"""Which positions are cached: those that output an answer (CLS in a BERT), or every attended one (always so in an
encoder-decoder)."""

VirtualBatches = Literal["drawn", "sorted"]
"""Whether virtual batches are cut from sequences as they were drawn, or sorted by length."""

BatchSize = PositiveInt | Literal["auto"]
"""How many items run at once; "auto": as many as suit the model, and as memory holds."""

FfnLayer = Literal["first", "second"]
"""The two linear layers of a feed-forward network."""

FfnPatterns = Mapping[FfnLayer, Sequence[str]]
"""Regular expressions for the names of a model's first and second FFN layers, one per stack of blocks."""


def union_by(key: str, members: Sequence[type], default: str | None = None) -> Discriminator:
    """Return what chooses one of several sections by the value of a key, or by ``default`` where the key is absent.

    The members of the union must be tagged with the names of their classes, which errors then carry.
    """
    tags = {value: member.__name__ for member in members for value in get_args(member.__annotations__[key])}

    def tag(section: Any) -> str | None:
        value = section.get(key, default) if isinstance(section, Mapping) else getattr(section, key, None)
        return tags.get(value) if isinstance(value, str) else None

    context: dict[str, int | str | float] = {"key": key, "allowed": ", ".join(map(repr, tags))}
    return Discriminator(tag, custom_error_type=WRONG_KIND, custom_error_message="wrong", custom_error_context=context)


WRONG_KIND = "wrong_kind"
"""The type of the error of a section whose key of a union has a wrong value or none."""
