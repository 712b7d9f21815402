from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from memory_files import write_memory_file

from malmen.errors import UserError
from malmen.figures import memory_figure as memory
from malmen.figures.memory_figure import draw_memory
from malmen.figures.style import KNOWN
from malmen.results.memory import MemoryFile

LABELS = {"separated": "MALMEN", "concatenated": "MEND-style"}


def draw(path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    monkeypatch.setattr(memory, "save", lambda figure, *_: figures.append(figure))
    draw_memory(path, path.with_suffix(""), "GPT-2", LABELS)
    return figures[0]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_peaks_stand_where_they_were_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_memory_file(tmp_path / "m.json", {128: 512, 32: 384}, {32: 384, 128: 1024})
    figure = draw(path, monkeypatch)
    (axes,) = figure.axes
    drawn = {(line.get_color(), line.get_marker()): np.asarray(line.get_data()).tolist() for line in axes.lines}
    assert drawn[KNOWN["malmen"].colour, "o"] == [[32, 128], [0.375, 0.5]]
    assert drawn[KNOWN["mend"].colour, "^"] == [[32, 128], [0.375, 1]]
    (loaded,) = (line for line in axes.lines if line.get_linestyle() == ":")
    assert set(np.asarray(loaded.get_ydata()).tolist()) == {0.25}
    assert axes.get_ylim() == (0, 1.08)
    assert legend(figure) == ["MEND-style", "MALMEN", "model loaded"]


@pytest.mark.parametrize(("highest", "unit", "drawn"), [(1023, "MiB", 1023), (1024, "GiB", 1)])
def test_the_unit_is_that_of_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, highest: int, unit: str, drawn: float
) -> None:
    path = write_memory_file(tmp_path / "m.json", {32: 300}, {32: highest})
    (axes,) = draw(path, monkeypatch).axes
    assert axes.get_ylabel() == f"peak memory ({unit})"
    assert axes.get_ylim() == pytest.approx((0, 1.08 * drawn))
    assert max(np.asarray(line.get_ydata()).max(initial=0) for line in axes.lines) == drawn


def test_what_exceeded_the_limit_is_a_cross_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_memory_file(tmp_path / "m.json", {32: 384, 128: 512}, {32: 768, 128: None}, limit=2048)
    figure = draw(path, monkeypatch)
    (axes,) = figure.axes
    crosses = [line for line in axes.lines if line.get_marker() == "x" and len(np.asarray(line.get_xdata()))]
    assert [np.asarray(line.get_data()).tolist() for line in crosses] == [[[128], [2]]]
    assert crosses[0].get_color() == KNOWN["mend"].colour
    assert legend(figure)[-1] == "over the limit"


def test_files_are_written(tmp_path: Path) -> None:
    path = write_memory_file(tmp_path / "m.json", {32: 384}, {32: None}, limit=512)
    draw_memory(path, tmp_path / "figure9", "GPT-2", LABELS)
    assert (tmp_path / "figure9.pdf").read_bytes().startswith(b"%PDF")
    table = pd.read_csv(tmp_path / "figure9.csv")
    assert table["computation"].tolist() == ["loaded", "separated", "concatenated"]
    assert table["status"].tolist() == ["ok", "ok", "over the limit"]
    assert table["peak_bytes"].tolist() == pytest.approx([2**28, 384 * 2**20, np.nan], nan_ok=True)


@pytest.mark.parametrize("change", [('"status": "ok"', '"status": "over the limit"'), ('"separated"', '"other"')])
def test_a_malformed_file_is_named(tmp_path: Path, change: tuple[str, str]) -> None:
    path = write_memory_file(tmp_path / "m.json", {32: 384}, {32: 384})
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(UserError, match=r"m\.json is not a memory file"):
        MemoryFile.read(path)
    with pytest.raises(UserError, match=r"The memory file .*absent\.json does not exist"):
        MemoryFile.read(tmp_path / "absent.json")
