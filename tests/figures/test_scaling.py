from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from metrics_files import diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures import scaling
from malmen.figures.metrics import load_metrics, write_csv
from malmen.figures.scaling import draw_scaling
from malmen.figures.style import KNOWN


def draw(paths: list[Path], stem: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    """Return the figure instead of saving it."""
    figures: list[Figure] = []
    monkeypatch.setattr(scaling, "save", lambda figure, *_: figures.append(figure))
    draw_scaling(paths, stem, "GPT-2 on zsRE")
    return figures[0]


def line_of(axes: Axes, editor: str) -> Line2D:
    return next(line for line in axes.lines if line.get_color() == KNOWN[editor].colour)


def shades(axes: Axes) -> list[PolyCollection]:
    return [item for item in axes.collections if isinstance(item, PolyCollection) and item.get_paths()]


def ticks(axes: Axes) -> list[float]:
    """Return the ticks that are shown, as powers of two."""
    low, high = axes.get_xlim()
    return [float(np.log2(tick)) for tick in axes.get_xticks() if low <= tick <= high]


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def two_editors(folder: Path) -> list[Path]:
    return [
        write_metrics(folder, ok(16, group(0.9 - seed / 10)), ok(256, group(0.5)), editor=editor, seed=seed)
        for editor in ("ft", "malmen")
        for seed in (0, 1, 2)
    ]


def test_line_is_the_mean_and_shade_the_sample_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = draw(two_editors(tmp_path), tmp_path / "f", monkeypatch)
    assert [axes.get_title() for axes in figure.axes] == list(scaling.PANELS.values())
    for axes in figure.axes:
        x, y = np.asarray(line_of(axes, "malmen").get_data())
        assert x.tolist() == [16, 256]
        assert y == pytest.approx([80, 50])
        corners = np.asarray(shades(axes)[0].get_paths()[0].vertices)
        at_first = corners[corners[:, 0] == 16][:, 1]
        assert (at_first.min(), at_first.max()) == pytest.approx((70, 90))
        assert axes.get_ylim()[0] < 0 and axes.get_ylim()[1] > 100
        assert axes.get_xscale() == "log"
        assert ticks(axes) == [4, 5, 6, 7, 8]
        before = next(line for line in axes.lines if line.get_linestyle() == ":")
        assert np.asarray(before.get_ydata()) == pytest.approx(10)


def test_other_numbers_of_edits_in_the_files_are_left_out(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, ok(16, group()), ok(64, group()), ok(256, group()), seed=0)
    other = write_metrics(tmp_path / "other", ok(64, group()), editor="ft")
    draw_scaling([path, other], tmp_path / "figure", "", n_edits=[16, 256])
    assert set(pd.read_csv(tmp_path / "figure.csv")[["editor", "n_edits"]].apply(tuple, axis=1)) == {
        ("malmen", 16),
        ("malmen", 256),
    }


def test_one_seed_has_no_shade_and_other_editors_may_have_other_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        write_metrics(tmp_path, *(ok(m, group()) for m in (16, 64, 256)), editor="ft"),
        write_metrics(tmp_path, *(ok(m, group()) for m in (64, 1000)), editor="malmen"),
    ]
    axes = draw(paths, tmp_path / "f", monkeypatch).axes[0]
    assert np.asarray(line_of(axes, "ft").get_xdata()).tolist() == [16, 64, 256]
    assert np.asarray(line_of(axes, "malmen").get_xdata()).tolist() == [64, 1000]
    assert not shades(axes)


def test_diverged_runs_are_gaps_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write_metrics(tmp_path, ok(16, group()), diverged(64), ok(256, group()), editor="mend", seed=0),
        write_metrics(tmp_path, diverged(16), diverged(64), ok(256, group(0.7)), editor="mend", seed=1),
    ]
    figure = draw(paths, tmp_path / "f", monkeypatch)
    y = np.asarray(line_of(figure.axes[0], "mend").get_ydata())
    assert y == pytest.approx([90, np.nan, 80], nan_ok=True)
    assert "Diverged and left out: MEND at $m$ = $2^{4}$ (1 of 2 seeds), $2^{6}$ (2 of 2 seeds)." in texts(figure)


def test_nothing_is_named_where_nothing_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Diverged" not in texts(draw(two_editors(tmp_path), tmp_path / "f", monkeypatch))


def test_a_single_number_of_edits_shows_deviations_as_bars_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [
        write_metrics(tmp_path, ok(100, group(0.5 + seed / 10)), editor=editor, seed=seed)
        for editor in ("ft", "malmen")
        for seed in (0, 1)
    ]
    axes = draw(paths, tmp_path / "f", monkeypatch).axes[0]
    places = [float(np.asarray(line_of(axes, editor).get_xdata())[0]) for editor in ("ft", "malmen")]
    assert places[0] < 100 < places[1]
    assert len(axes.containers) == 2
    assert ticks(axes) != []


@pytest.mark.parametrize(
    "numbers", [(16,), (20, 22), tuple(2**k for k in range(4, 15)), tuple(2**k for k in range(30))]
)
def test_between_one_and_nine_ticks_at_powers_of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: tuple[int, ...]
) -> None:
    path = write_metrics(tmp_path, *(ok(m, group()) for m in numbers))
    axes = draw([path], tmp_path / "f", monkeypatch).axes[0]
    shown = ticks(axes)
    assert 1 <= len(shown) <= 9
    assert all(tick == round(tick) for tick in shown)


def test_legend_and_notes_cover_nothing_when_crowded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editors = ["ft", "mend", "memit", "malmen", "variant with a long name", "another long name", "the last of them"]
    runs: list[dict[str, Any]] = [diverged(m) if m > 256 else ok(m, group()) for m in (16, 256, 512, 1024, 4096)]
    figure = draw([write_metrics(tmp_path, *runs, editor=e) for e in editors], tmp_path / "f", monkeypatch)
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    note = next(text for text in figure.texts if "Diverged" in text.get_text()).get_window_extent()
    axes = [axes.get_tightbbox() for axes in figure.axes]
    bottom = min(box.y0 for box in axes if box is not None)
    top = max(box.y1 for box in axes if box is not None)
    assert figure.bbox.y1 >= legend.y1 > legend.y0 >= top > bottom >= note.y1 > note.y0 >= 0
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and note.x1 <= figure.bbox.x1
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "before editing"


def test_two_runs_give_identical_bytes_and_the_csv_is_what_is_drawn(tmp_path: Path) -> None:
    paths = [*two_editors(tmp_path), write_metrics(tmp_path, diverged(16), editor="mend")]
    for name, order in (("a", paths), ("b", paths[::-1])):
        draw_scaling(order, tmp_path / name / "figure5", "GPT-2 on zsRE")
    for suffix in ("pdf", "png", "csv", "sources.json"):
        first, second = ((tmp_path / name / f"figure5.{suffix}").read_bytes() for name in "ab")
        assert first == second
    write_csv(tmp_path / "expected.csv", load_metrics(paths))
    assert (tmp_path / "a" / "figure5.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_only_one_model_per_figure(tmp_path: Path) -> None:
    paths = [write_metrics(tmp_path, ok(16, group()), model=model) for model in ("bert", "gpt2")]
    with pytest.raises(UserError, match="there are 2 \\(bert on fever, gpt2 on zsre\\)"):
        draw_scaling(paths, tmp_path / "f", "")
    with pytest.raises(UserError, match="there are 0 \\(none\\)"):
        draw_scaling([], tmp_path / "f", "")
