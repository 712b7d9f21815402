import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from metrics_files import diverged, group, ok, write_metrics

from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.curves import curve_points
from malmen.figures.metrics import long_form, read_metrics
from malmen.figures.scaling import draw_scaling
from malmen.results.sources import Origin, Shown, SourcesFile
from malmen.runtime.files import sha256

ROOT = Path(__file__).parents[2]


def two_seeds(folder: Path) -> list[Path]:
    runs = [[ok(16, group(0.5), group(0.7)), ok(64, group(0.4))], [ok(16, group(0.8)), diverged(64)]]
    return [write_metrics(folder, *some, seed=seed) for seed, some in enumerate(runs)]


def sources(stem: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(stem.with_name(f"{stem.name}.sources.json").read_text())
    return content


def test_points_of_a_curve_name_the_runs_that_they_average(tmp_path: Path) -> None:
    paths = two_seeds(tmp_path)
    first, second = curve_points(long_form(read_metrics(paths), ["ES", "GS"]))
    assert first.of == {"editor": "malmen", "n_edits": 16}
    assert first.values["ES"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2 / 2**0.5)}
    assert first.runs == {str(paths[0]): [(16, 0)], str(paths[1]): [(16, 1)]}
    assert second.values["GS"] == {"mean": pytest.approx(0.4), "std": None}
    assert second.runs == {str(paths[0]): [(64, 0)], str(paths[1]): [(64, 1)]}


def test_a_figure_carries_the_map_beside_it_and_in_pdf_and_png(tmp_path: Path) -> None:
    paths = two_seeds(tmp_path)
    draw_scaling(paths, tmp_path / "figure5", "GPT-2")
    content = sources(tmp_path / "figure5")
    assert content["files"] == {str(path): sha256(path) for path in paths}
    assert len(content["numbers"]) == 2
    png = (tmp_path / "figure5.png").read_bytes()
    place = png.index(b"tEXtSources\0")
    length = int.from_bytes(png[place - 4 : place])
    assert json.loads(png[place + len(b"tEXtSources\0") : place + 4 + length]) == content
    (subject,) = re.findall(rb"/Subject \((.*)\)", (tmp_path / "figure5.pdf").read_bytes())
    assert json.loads(re.sub(rb"\\(.)", rb"\1", subject)) == content


def test_a_table_carries_the_map_beside_it_and_in_html_and_latex(tmp_path: Path) -> None:
    paths = tuple(two_seeds(tmp_path / "many--hyphens"))
    write_ablation(
        [AblationRow("malmen", "MALMEN", paths)],
        16,
        ROOT / "data/published/table1.csv",
        {"zsre": "zsRE"},
        tmp_path / "table1",
    )
    content = sources(tmp_path / "table1")
    ours = [number for number in content["numbers"] if number["how"] != "as published"]
    table = pd.read_csv(tmp_path / "table1.csv").set_index("metric")
    (number,) = ours
    assert number["of"]["label"] == "MALMEN" and number["of"]["model"] == "gpt2"
    for metric in ("ES", "GS", "LS"):
        assert number["values"][metric] == {
            "mean": pytest.approx(table.loc[metric, "mean"]),
            "std": pytest.approx(table.loc[metric, "std"]),
        }
    comment = (tmp_path / "table1.html").read_text().partition("<!-- Sources: ")[2].removesuffix(" -->\n")
    assert "--" not in comment and json.loads(comment) == content
    assert json.loads((tmp_path / "table1.tex").read_text().partition("\n% Sources: ")[2]) == content


def test_the_map_depends_on_nothing_but_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    origin = Origin(tmp_path / "a.csv")
    shown = [Shown.from_origins({"model": "gpt2"}, {"hours": float("nan")}, "as published", [origin])] * 2
    sources = SourcesFile.of_numbers("t", shown)
    assert sources.in_one_line() == SourcesFile.of_numbers("t", shown).in_one_line()
    assert sources.numbers[0].values == {"hours": None}
    assert SourcesFile.of_numbers("t", []).in_one_line() == '{"result":"t","files":{},"numbers":[]}'


def test_the_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1")
    shown = Shown.from_origins({"n_edits": 4}, {"ES": 0.5}, "mean", [Origin(tmp_path / "a.csv", 4, 0)])
    sources = SourcesFile.of_numbers("t", [shown])
    sources.write(tmp_path / "t.sources.json")
    assert SourcesFile.read(tmp_path / "t.sources.json") == sources
    assert json.loads((tmp_path / "t.sources.json").read_text())["numbers"][0]["from"] == {
        str(tmp_path / "a.csv"): [[4, 0]]
    }
