"""What the settings of all editors share: a label, and which layers are edited."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from malmen.config.base import STRICT, FfnLayer


@dataclass(frozen=True, config=STRICT, kw_only=True)
class EditedLayersSettings:
    """What an editor is called, and which layers it edits."""

    label: Annotated[str, Field(min_length=1)]
    """Name in figures and tables; every editor needs one."""
    ffn_layers: Annotated[tuple[FfnLayer, ...], Field(min_length=1)] = ("second",)
    """Which linear layers of a feed-forward network are edited: its "first", its "second", or both."""
    last_blocks: PositiveInt = 6
    """In how many of the last Transformer blocks (of the encoder and of the decoder, where a model has both)."""
    blocks: tuple[NonNegativeInt, ...] | None = None
    """In which blocks, counted from 0 and in ascending order, in place of the last ones."""
    may_diverge: bool = False
    """Whether a divergence is a result to report (the paper's "–") rather than an error."""

    def __post_init__(self) -> None:
        """Raise ``ValueError`` unless ``blocks`` are block numbers in ascending order."""
        blocks = self.blocks
        if blocks is not None and (not blocks or sorted(set(blocks)) != list(blocks)):
            raise ValueError(f"blocks is {list(blocks)} but must be one or more block numbers in ascending order")
