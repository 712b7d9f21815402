from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from metrics_files import diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures import residual
from malmen.figures.residual import draw_residual
from malmen.figures.style import KNOWN


def draw(paths: list[Path], stem: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(residual, "save", lambda figure, *_: figures.append(figure))
    draw_residual(paths, stem, "GPT-2")
    return figures[0]


def example(folder: Path) -> list[Path]:
    """MALMEN's residual is 0.02, then 0.05 and 0.15 by seed; MEND's one seed diverges at the larger m."""
    malmen = [
        write_metrics(folder, ok(2, group(residual=0.02)), ok(8, group(residual=value)), seed=seed)
        for seed, value in enumerate((0.05, 0.15))
    ]
    mend = write_metrics(folder, ok(2, group(residual=3.0), group(residual=5.0)), diverged(8), editor="mend")
    return [*malmen, mend]


def test_lines_are_means_on_whole_decades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = draw(example(tmp_path), tmp_path / "f", monkeypatch)
    (axes,) = figure.axes
    lines = {line.get_color(): np.asarray(line.get_data()) for line in axes.lines}
    assert lines[KNOWN["malmen"].colour][1] == pytest.approx([0.02, 0.1])
    assert lines[KNOWN["mend"].colour][1] == pytest.approx([4, np.nan], nan_ok=True)
    assert (axes.get_yscale(), axes.get_ylim()) == ("log", (0.01, 10))
    assert "MEND at $m$ = $2^{3}$ (1 of 1 seed)" in "".join(text.get_text() for text in figure.texts)


def test_a_deviation_that_reaches_zero_ends_at_the_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [
        write_metrics(tmp_path, *(ok(m, group(residual=value)) for m in (2, 8)), seed=seed)
        for seed, value in enumerate((0.001, 0.5))
    ]
    (axes,) = draw(paths, tmp_path / "f", monkeypatch).axes
    (shade,) = (item for item in axes.collections if isinstance(item, PolyCollection))
    corners = np.asarray(shade.get_paths()[0].vertices)
    assert corners[:, 1].min() == pytest.approx(axes.get_ylim()[0])
    assert corners[:, 1].max() == pytest.approx(0.2505 + 0.499 / 2**0.5)


def test_the_csv_is_what_is_drawn_and_two_runs_give_identical_bytes(tmp_path: Path) -> None:
    paths = example(tmp_path)
    draw_residual(paths, tmp_path / "a" / "figure8", "GPT-2")
    draw_residual(paths[::-1], tmp_path / "b" / "figure8", "GPT-2")
    for suffix in ("pdf", "png", "csv"):
        first, second = ((tmp_path / name / f"figure8.{suffix}").read_bytes() for name in "ab")
        assert first == second
    table = pd.read_csv(tmp_path / "a" / "figure8.csv")
    assert set(table["metric"]) == {"residual"}
    assert table["value"].tolist() == pytest.approx([0.02, 0.02, 0.05, 0.15, 4.0, np.nan], nan_ok=True)


def test_an_editor_without_residuals_is_named(tmp_path: Path) -> None:
    paths = [*example(tmp_path), write_metrics(tmp_path, ok(2, group()), editor="ft")]
    with pytest.raises(UserError, match="ft on gpt2 has none"):
        draw_residual(paths, tmp_path / "f", "")
