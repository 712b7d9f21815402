"""The figures and tables of a configuration, each with a name and a kind."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveInt, Tag

from malmen.config.base import EditNumbers, Name, Names, Section, all_different, union_by
from malmen.config.rounds import RoundsName, RoundsNames


class Curve(Section):
    """A curve over the number of edits, from the editors' measurements."""

    title: str | None = None
    """How the report and the figure call it; null: by its name, "figure5" as "Figure 5"."""
    model: Name
    """The edited model."""
    editors: Names
    """The editors drawn, in the legend's order."""
    n_edits: EditNumbers | None = None
    """The values of m; null means the model's. Where a job takes several values of m, all of a job are drawn."""


class Scaling(Curve):
    """Edit, generalisation and locality success (the paper's Figures 4 to 7)."""

    kind: Literal["scaling"]
    """What is shown."""


class Residual(Curve):
    """Mean residual of editors with a hyper-network (the paper's Figure 8)."""

    kind: Literal["residual"]
    """What is shown."""


class InRounds(Section):
    """ES, GS and LS after all rounds, against the number of rounds at a fixed number of edits in all."""

    kind: Literal["rounds"]
    """What is shown."""
    title: str | None = None
    """How the report and the figure call it; null: by its name."""
    model: Name
    """The edited model; its ``rounds`` are shown whose T m is ``total``."""
    editors: Names
    """The editors drawn, in the legend's order."""
    total: PositiveInt
    """The number of all edits, T m."""


class Course(Section):
    """ES, GS and LS of all edits so far, against the rounds made."""

    kind: Literal["course"]
    """What is shown."""
    title: str | None = None
    """How the report and the figure call it; null: by its name."""
    model: Name
    """The edited model."""
    editors: Names
    """The editors drawn, in the legend's order."""
    rounds: RoundsName
    """Which of the model's ``rounds`` are shown, such as "64x8"; their ``after`` names the points."""


class Memory(Section):
    """Peak memory of one meta-step (the paper's Figure 9)."""

    kind: Literal["memory"]
    """What is shown."""
    title: str | None = None
    """How the report and the figure call it; null: by its name."""
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


class Row(Section):
    """A row of an ablation."""

    variant: Name
    """Key of the row; where the table shows published numbers, that of the paper's variant."""
    label: str
    """What the row is called."""
    editor: Name
    """The editor that is shown."""


class Ablation(Section):
    """Variants of an editor side by side (the paper's Tables 1 and 2)."""

    kind: Literal["ablation"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    models: Names
    """The models, one block of columns each."""
    n_edits: PositiveInt
    """The number of edits m."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """The variants, from top to bottom."""
    times: bool = False
    """Whether the table shows the hours of training and editing."""
    published: Literal["table1", "table2"] | None = None
    """The paper's table whose numbers stand below ours (a file of ``data/published``); null: none."""


class Comparison(Section):
    """Success and drawdown by sequence, for several numbers of edits (the paper's Table 3)."""

    kind: Literal["comparison"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The edited model; its data set is "zsre_alternative" in the paper."""
    editors: Names
    """The editors shown, in the order of their columns."""
    n_edits: EditNumbers
    """The numbers of edits m, one line each."""
    published: Literal["table3"] | None = None
    """The paper's table whose numbers stand beside ours (a file of ``data/published``); null: none."""


class Failures(Section):
    """Answers that one group of edits left or made wrong (the paper's Tables 4 and 5)."""

    kind: Literal["failures"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The edited model, one that answers questions."""
    editor: Name
    """The editor."""
    n_edits: PositiveInt
    """The number of edits m of the group: the first m of the validation split, edited with the first seed."""
    prompts: Literal["edited", "unrelated"] = "edited"
    """Which wrong answers are shown: to edit and equivalent prompts, or to unrelated prompts."""
    records: PositiveInt = 10
    """Largest number of failing records in the table; its CSV holds all."""


class RoundsTable(Section):
    """Editors side by side at once and in rounds, by any of the measures."""

    kind: Literal["rounds"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The edited model."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """The editors, from top to bottom; the unedited model stands above them."""
    rounds: RoundsNames
    """Which of the model's ``rounds`` are shown, such as "1x512" and "8x64": one block of columns each."""
    measures: Annotated[list[str], Field(min_length=1), AfterValidator(all_different)] = ["ES", "GS", "LS"]
    """The columns of a block: names of measures, as docs/after-malmen.md lists them."""


class RoundsCosts(Section):
    """What editors cost in rounds: preparation, training, seconds for an edit, memory."""

    kind: Literal["rounds_costs"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The edited model."""
    editors: Names
    """The editors, from top to bottom."""
    rounds: RoundsNames
    """Which of the model's ``rounds`` are shown: one block of columns each."""


class PublishedRounds(Section):
    """Numbers that later papers published, below ours."""

    kind: Literal["published_rounds"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The model whose measurements stand above the published numbers."""
    editors: Names
    """Its editors, from top to bottom."""
    rounds: RoundsNames
    """Which of the model's ``rounds`` are shown, such as "1x512" and "8x64"."""
    published: Literal["later_editors"] = "later_editors"
    """The published numbers (a file of ``data/published``)."""


class MovedTable(Section):
    """How far training moved the parameters of hyper-networks."""

    kind: Literal["moved"]
    """What is shown."""
    title: str | None = None
    """How the report calls it; null: by its name."""
    model: Name
    """The edited model."""
    editors: Names
    """The editors, from left to right; all are trained, and in rounds or curves of this m."""
    n_edits: PositiveInt
    """The m for which they were trained."""


Figure = Annotated[
    Annotated[Scaling, Tag("Scaling")]
    | Annotated[Residual, Tag("Residual")]
    | Annotated[Memory, Tag("Memory")]
    | Annotated[InRounds, Tag("InRounds")]
    | Annotated[Course, Tag("Course")],
    union_by("kind", (Scaling, Residual, Memory, InRounds, Course)),
]
"""A figure; the key ``kind`` chooses the class."""

Table = Annotated[
    Annotated[Ablation, Tag("Ablation")]
    | Annotated[Comparison, Tag("Comparison")]
    | Annotated[Failures, Tag("Failures")]
    | Annotated[RoundsTable, Tag("RoundsTable")]
    | Annotated[RoundsCosts, Tag("RoundsCosts")]
    | Annotated[PublishedRounds, Tag("PublishedRounds")]
    | Annotated[MovedTable, Tag("MovedTable")],
    union_by("kind", (Ablation, Comparison, Failures, RoundsTable, RoundsCosts, PublishedRounds, MovedTable)),
]
"""A table; the key ``kind`` chooses the class."""
