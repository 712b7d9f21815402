"""The common style of all figures: sizes for a paper's text width; a colour, marker and line style per editor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from malmen.results.sources import SUFFIX, Shown, SourcesFile
from malmen.runtime.files import beside, replacing

TEXT_WIDTH = 7.0
"""Width of a figure in inches."""

COLUMN_WIDTH = 3.4
"""Width in inches of a figure that takes one of two columns."""

GREY = "#707070"


@dataclass(frozen=True)
class EditorStyle:
    """The style of one editor; its colour, marker or line style alone identifies it."""

    colour: str
    marker: str | tuple[int, int, int]
    line: str | tuple[int, tuple[float, ...]]
    size: float | None = None
    """The size of the marker in points, of one that would look too small; None: that of the style."""


# Colours of Okabe and Ito, distinct for all common kinds of colour blindness.
KNOWN = {
    "ft": EditorStyle("#009E73", "s", (0, (4, 1.5))),
    "mend": EditorStyle("#D55E00", "^", (0, (6, 1.2, 1, 1.2))),
    "memit": EditorStyle("#CC79A7", "D", (0, (2, 1))),
    "malmen": EditorStyle("#0072B2", "o", "-"),
}
"""The fixed styles of the paper's editors, in the order of its legends."""

LATER = {
    "malmen_memory": EditorStyle("#56B4E9", "P", (0, (5, 1.2, 2, 1.2))),
    "malmen_retrained": EditorStyle("#332288", "X", (0, (3, 1, 1, 1))),
    "malmen_running": EditorStyle("#882255", (4, 1, 0), (0, (5, 1, 5, 3))),
    "malmen_untrained": EditorStyle("#44AA99", "p", (0, (1, 1))),
    "ultraedit": EditorStyle("#E69F00", "v", (0, (6, 1.2, 1, 1.2, 1, 1.2))),
    "stableedit": EditorStyle("#999933", "<", (0, (8, 1.5))),
    "rledit_one_step": EditorStyle("#F2A3B3", "h", (0, (1.5, 0.8))),
    "rledit_many_steps": EditorStyle("#AA1144", "H", (0, (7, 1, 2, 1, 2, 1))),
    "rledit_memory": EditorStyle("#6699CC", (6, 1, 0), (0, (2, 1, 4, 1))),
    "memit_memory": EditorStyle("#882288", "d", (0, (4, 1, 1, 1, 1, 1))),
    "emmet": EditorStyle("#661100", ">", (0, (2, 1.6))),
    "alphaedit": EditorStyle("#000000", "*", (0, (9, 1.2, 1, 1.2)), size=6.5),
    "locft": EditorStyle("#117733", "8", (0, (3, 1.5))),
}
"""The fixed styles of editors after MALMEN, in the order of legends."""

SPARE = (
    EditorStyle("#E69F00", "v", (0, (6, 1.2, 1, 1.2, 1, 1.2))),
    EditorStyle("#56B4E9", "P", (0, (5, 1.2, 2, 1.2))),
    EditorStyle("#000000", "X", (0, (3, 1, 1, 1))),
    EditorStyle("#882255", "<", (0, (8, 1.5))),
    EditorStyle("#999933", "p", (0, (3, 1.5))),
    EditorStyle("#661100", ">", (0, (1.5, 0.8))),
)

_SETTINGS = {
    "font.family": "STIXGeneral",  # part of matplotlib: the same glyphs on every machine, similar to Times
    "mathtext.fontset": "stix",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "legend.fontsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.bottom": True,
    "ytick.left": True,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#404040",
    "axes.titlepad": 4,
    "axes.labelpad": 2.5,
    "grid.linewidth": 0.4,
    "grid.color": "#E4E4E4",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # embed fonts as TrueType: journals reject Type 3
}


@contextmanager
def theme() -> Iterator[None]:
    """Use the project's style in the ``with`` block; the settings of user and machine have no effect in it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        sns.set_theme(context="paper", style="whitegrid", rc=_SETTINGS)
        yield


def editor_styles(editors: Iterable[str]) -> dict[str, EditorStyle]:
    """Return the style of each editor, in drawing order; MALMEN on top.

    First come :data:`KNOWN` and :data:`LATER`, then others in spare styles whose colours they leave. Where spare styles
    run out, colours come again with other markers and lines.
    """
    names = sorted(set(editors))
    fixed = {name: style for name, style in (KNOWN | LATER).items() if name in names}
    others = [name for name in names if name not in fixed]
    used = {style.colour for style in fixed.values()}
    spare = sorted(SPARE, key=lambda style: style.colour in used)
    looks = [
        EditorStyle(one.colour, other.marker, other.line)
        for shift in range(len(spare))
        for one, other in zip(spare, [*spare[shift:], *spare[:shift]], strict=True)
    ]
    free = cycle([look for look in looks if look not in fixed.values()])
    styles = {name: style for name, style in fixed.items() if name != "malmen"}
    styles |= {name: next(free) for name in others}
    return styles | ({"malmen": KNOWN["malmen"]} if "malmen" in names else {})


def plain(text: str) -> str:
    """Escape dollar signs, so that matplotlib draws ``text`` literally."""
    return text.replace("$", r"\$")


def save(figure: Figure, stem: Path, shown: Iterable[Shown]) -> None:
    """Write ``stem.pdf`` and ``stem.png`` (300 dpi), without dates or versions; no partial files remain.

    Both files and ``stem.sources.json`` hold the sources of the numbers ``shown``.
    """
    sources = SourcesFile.of_numbers(stem.name, shown)
    text = sources.in_one_line()
    metadata = {
        "pdf": {"CreationDate": None, "Producer": None, "Creator": None, "Subject": text},
        "png": {"Software": None, "Sources": text},
    }
    with theme():
        for kind, entries in metadata.items():
            with replacing(beside(stem, f".{kind}")) as temporary:
                figure.savefig(temporary, format=kind, dpi=300, metadata=entries)
    sources.write(beside(stem, SUFFIX))
