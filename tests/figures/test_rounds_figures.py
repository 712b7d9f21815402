"""The two figures on editing in rounds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rounds_files import diverged_in_rounds, in_rounds, write_rounds

from malmen.audit.by_run import by_run, disagreements
from malmen.errors import UserError
from malmen.figures import course, rounds
from malmen.figures.course import draw_course
from malmen.figures.rounds import draw_rounds
from malmen.figures.style import KNOWN, LATER, editor_styles
from malmen.results.sources import SourcesFile

MANY = [*KNOWN, *LATER]


def files(folder: Path, editors: Sequence[str] = ("malmen", "mend")) -> list[Path]:
    """Each editor in three kinds of rounds with two seeds; MEND diverges in most rounds."""
    paths = []
    for editor in editors:
        runs: list[dict[str, Any]] = []
        for seed in (0, 1):
            runs += [in_rounds("1x16", 0.9, seed=seed, LS=0.3), in_rounds("4x4", 0.6 + seed / 10, [2], seed, LS=0.3)]
            if editor == "mend":
                runs.append(diverged_in_rounds("16x1", 0.4, [1, 2], seed))
            else:
                runs.append(in_rounds("16x1", 0.5, [1, 2, 4, 8], seed, LS=0.3))
        paths.append(write_rounds(folder, editor, *runs))
    return paths


def drawn(module: Any, draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Return the figure instead of saving it."""
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save", lambda figure, *_: figures.append(figure))
    draw()
    return figures[0]


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_rounds_have_a_tick_each_and_diverged_runs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path)
    figure = drawn(rounds, lambda: draw_rounds(paths, tmp_path / "f", "Rounds", 16), monkeypatch)
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1\n× 16", "4\n× 4", "16\n× 1"]
    line = next(line for line in axes.lines if line.get_color() == KNOWN["malmen"].colour)
    assert np.asarray(line.get_ydata()) == pytest.approx([90, 65, 50])
    assert "MEND at 16×1 (2 of 2 seeds)" in texts(figure)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MALMEN", "MEND", "unedited model"]


def test_of_many_kinds_of_rounds_not_all_have_a_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rounds(tmp_path, "malmen", *(in_rounds(f"{2**k}x{2 ** (9 - k)}", 0.5) for k in range(10)))
    axes = drawn(rounds, lambda: draw_rounds([path], tmp_path / "f", "", 512), monkeypatch).axes[0]
    assert [tick.get_text()[:2].strip() for tick in axes.get_xticklabels()][:5] == ["1", "", "4", "", "16"]
    assert len(axes.get_xticks()) == 10


def test_ls_has_an_axis_of_its_own_where_it_is_low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, ["malmen"])
    figure = drawn(rounds, lambda: draw_rounds(paths, tmp_path / "f", "", 16), monkeypatch)
    assert [round(axes.get_ylim()[1]) for axes in figure.axes] == [104, 104, 31]
    assert "LS has an axis of its own." in texts(figure)


def test_the_course_of_a_diverged_editor_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path)
    figure = drawn(course, lambda: draw_course(paths, tmp_path / "f", "Course", "16x1"), monkeypatch)
    table = pd.read_csv(tmp_path / "f.csv")
    chosen = table[(table["metric"] == "ES") & (table["seed"] == 0)].set_index(["editor", "after"])["value"]
    assert chosen["malmen"].to_dict() == {1: 0.5, 2: 0.5, 4: 0.5, 8: 0.5, 16: 0.5}
    assert chosen["mend"].dropna().to_dict() == {1: 0.4, 2: 0.4}
    assert figure.axes[1].get_xlabel() == "rounds made, of 1 edit each"


def test_two_runs_give_identical_bytes_whose_numbers_the_audit_finds(tmp_path: Path) -> None:
    paths = files(tmp_path)
    for name in "ab":
        draw_rounds(paths, tmp_path / name / "figure10", "Rounds", 16)
        draw_course(paths, tmp_path / name / "figure11", "Course", "4x4")
    for stem, points in (("figure10", 6), ("figure11", 4)):
        for suffix in ("pdf", "png", "csv", "sources.json"):
            first, second = ((tmp_path / name / f"{stem}.{suffix}").read_bytes() for name in "ab")
            assert first == second
        numbers = SourcesFile.read(tmp_path / "a" / f"{stem}.sources.json").numbers
        assert len(numbers) == points
        for number in numbers:
            measured = by_run(number, Path())
            assert measured and not list(disagreements(number, measured))


@pytest.mark.parametrize("width", [5.0, 7.0, 10.0])
def test_a_legend_of_many_editors_covers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: float) -> None:
    paths = files(tmp_path, MANY)
    figure = drawn(rounds, lambda: draw_rounds(paths, tmp_path / "f", "Many", 16, width=width), monkeypatch)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    boxes = [box for axes in figure.axes if (box := axes.get_tightbbox()) is not None]
    assert legend.y0 >= max(box.y1 for box in boxes)
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1
    assert legend.height < figure.bbox.height / 2


def test_editors_after_malmen_differ_in_look() -> None:
    styles = editor_styles(MANY).values()
    assert len({style.colour for style in styles}) == len({style.marker for style in styles}) == len(MANY)
    assert len({str(style.line) for style in styles}) == len(MANY)
    looks = editor_styles([*MANY, *(f"other {place}" for place in range(8))])
    assert len(set(looks.values())) == len(looks)


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    paths = files(tmp_path)
    with pytest.raises(UserError, match="no run has as many"):
        draw_rounds(paths, tmp_path / "f", "", 17)
    with pytest.raises(UserError, match="there are 0"):
        draw_course(paths, tmp_path / "f", "", "2x8")
    other = write_rounds(tmp_path, "ft", in_rounds("1x16", 0.5), model="gptj")
    with pytest.raises(UserError, match="there are 2 \\(gpt2 on zsre, gptj on zsre\\)"):
        draw_rounds([*paths, other], tmp_path / "f", "", 16)
