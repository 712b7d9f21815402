from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from malmen.figures.style import KNOWN, editor_styles, plain, save, theme
from malmen.runtime.files import beside


def test_known_editors_look_the_same_in_every_figure() -> None:
    alone, crowded = editor_styles(["mend"]), editor_styles(["zero", "malmen", "mend", "ft", "alpha", "memit"])
    assert alone["mend"] == crowded["mend"] == KNOWN["mend"]
    assert list(crowded) == ["ft", "mend", "memit", "alpha", "zero", "malmen"]


def test_ten_editors_differ_in_colour_in_marker_and_in_line() -> None:
    styles = editor_styles([*KNOWN, *"abcdef"]).values()
    for part in ("colour", "marker", "line"):
        assert len({getattr(style, part) for style in styles}) == 10


def test_theme_ignores_and_restores_the_settings_around_it() -> None:
    with mpl.rc_context({"font.size": 31.0, "figure.facecolor": "red"}):
        with theme():
            assert mpl.rcParams["figure.facecolor"] == "white"
            assert mpl.rcParams["pdf.fonttype"] == 42
        assert mpl.rcParams["font.size"] == 31.0


def test_save_writes_whole_files_without_dates(tmp_path: Path) -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(0.5, 0.5, plain("cost $5 or $6"))
    save(figure, tmp_path / "gpt-1.5b", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt-1.5b.pdf", "gpt-1.5b.png", "gpt-1.5b.sources.json"]
    pdf, png = (beside(tmp_path / "gpt-1.5b", suffix).read_bytes() for suffix in (".pdf", ".png"))
    assert pdf.startswith(b"%PDF") and b"Date" not in pdf and b"Type3" not in pdf and b"/FontFile2" in pdf
    assert png[16:24] == (600).to_bytes(4) + (300).to_bytes(4)
    assert png.count(b"tEXt") == png.count(b"tEXtSources") == 1


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("old")
    figure = Figure()
    figure.text(0, 0, "$broken mathematics{$")
    with pytest.raises(ValueError):
        save(figure, tmp_path / "a", [])
    assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]
    assert (tmp_path / "a.pdf").read_text() == "old"
