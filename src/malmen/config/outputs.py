"""The figures and tables of a configuration."""

from typing import Annotated

from pydantic import Field, PositiveInt

from malmen.config.base import EditNumbers, Name, Names, Section


class Figure(Section):
    """A curve over the number of edits, from the editors' measurements."""

    model: Name
    """The edited model."""
    editors: Names
    """The editors drawn, in the legend's order."""
    n_edits: EditNumbers | None = None
    """The values of m; null means the model's. Where a job takes several values of m, all of a job are drawn."""


class MemoryFigure(Section):
    """Peak memory of one meta-step against the number of edits."""

    model: Name
    """The edited model."""
    separated: Name
    """The editor whose meta-gradient is computed apart on hyper-network and language model (the paper's MALMEN)."""
    concatenated: Name
    """The editor whose meta-gradient goes through both in one backward pass (the paper's MEND-style)."""
    n_edits: EditNumbers
    """The values of m. Training tuples are repeated where there are fewer."""
    limit_bytes: PositiveInt | None = None
    """A step that needs more is ended and marked: resident memory on a CPU, the allocator's on a GPU; null: no
    limit."""


class Figures(Section):
    """The figures: what each of them shows; one that is left out is not made."""

    figure4: Figure | None = None
    """Scaling curve, the paper's with BERT on FEVER."""
    figure5: Figure | None = None
    """Scaling curve, the paper's with GPT-2 on zsRE."""
    figure6: Figure | None = None
    """Scaling curve, the paper's with T5-XL on zsRE."""
    figure7: Figure | None = None
    """Scaling curve, the paper's with GPT-J on zsRE."""
    figure8: Figure | None = None
    """Mean residual, the paper's with GPT-2 on zsRE; of editors with a hyper-network."""
    figure9: MemoryFigure | None = None
    """Peak memory, the paper's with GPT-2 on zsRE."""

    @property
    def curves(self) -> dict[str, Figure]:
        """The figures drawn from editors' measurements, by name."""
        return {name: figure for name, figure in self if isinstance(figure, Figure)}

    @property
    def names(self) -> list[str]:
        """All figures that are made."""
        return [name for name, figure in self if figure]


class Row(Section):
    """A row of an ablation."""

    variant: Name
    """The paper's variant, as named in ``data/published/table1.csv`` and ``table2.csv``."""
    label: str
    """What the row is called."""
    editor: Name
    """The editor that is shown."""


class Ablation(Section):
    """An ablation: variants of an editor side by side."""

    models: Names
    """The models, one block of columns each."""
    n_edits: PositiveInt
    """The number of edits m."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """The variants, from top to bottom."""


class Comparison(Section):
    """Success and drawdown by sequence, for several numbers of edits."""

    model: Name
    """The edited model; its data set is "zsre_alternative" in the paper."""
    editors: Names
    """The editors shown, in the order of their columns."""
    n_edits: EditNumbers
    """The numbers of edits m, one line each."""


class Failures(Section):
    """Answers that one group of edits left or made wrong."""

    model: Name
    """The edited model, one that answers questions."""
    editor: Name
    """The editor."""
    n_edits: PositiveInt
    """The number of edits m of the group: the first so many of the validation split, edited with the first seed."""
    records: PositiveInt = 10
    """How many failing records the table shows at most; its CSV holds all."""
