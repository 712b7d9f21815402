import math
from pathlib import Path

import pandas as pd
import pytest
from cost_files import cost, priced

from malmen.errors import UserError
from malmen.figures.compute import PUBLISHED as COLUMNS
from malmen.figures.compute import PricedEditor, bytes_text, compute_costs, time_text, write_compute
from malmen.figures.published import read_published

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "compute.csv"


def example(folder: Path) -> list[PricedEditor]:
    return [
        priced(
            folder,
            "malmen",
            [cost(16, 0, 100), cost(16, 1, 200, 300), cost(64, 0, 50)],
            [cost(16, 0, 1), cost(16, 1, 3), cost(64, 0, 2)],
        ),
        priced(folder, "ft", None, [cost(16, 0, 0.25)]),
        priced(folder, "unregularised", [cost(16, 0, 9)], []),
    ]


def test_costs_are_means_over_seeds(tmp_path: Path) -> None:
    table = compute_costs(example(tmp_path)).set_index(["editor", "n_edits"])
    columns = ["train_seconds", "train_peak_bytes", "edit_seconds", "edit_peak_bytes", "total_seconds"]
    mib = 2**20
    expected = {
        ("malmen", 16): [150, 200 * mib, 2, 100 * mib, 152],
        ("malmen", 64): [50, 100 * mib, 2, 100 * mib, 52],
        ("ft", 16): [math.nan, math.nan, 0.25, 100 * mib, 0.25],
        ("unregularised", 16): [9, 100 * mib, math.nan, math.nan, math.nan],
    }
    assert list(table.index) == list(expected)
    for found, values in zip(table[columns].to_numpy().tolist(), expected.values(), strict=True):
        assert found == pytest.approx(values, nan_ok=True)


def test_the_table_shows_ours_and_the_papers(tmp_path: Path) -> None:
    write_compute(example(tmp_path), PUBLISHED, "zsRE", tmp_path / "compute")
    lines = (tmp_path / "compute.md").read_text(encoding="utf-8").splitlines()
    assert lines[4:10] == [
        "| GPT-2 (tiny), MALMEN | 16 | 2.5 min | 200 MiB | 2.0 s | 100 MiB | 2.5 min |",
        "| GPT-2 (tiny), MALMEN | 64 | 50.0 s | 100 MiB | 2.0 s | 100 MiB | 52.0 s |",
        "| GPT-2 (tiny), FT | 16 | – | – | 250 ms | 100 MiB | 250 ms |",
        "| GPT-2 (tiny), UNREGULARISED | 16 | 9.0 s | 100 MiB | – | – | – |",
        "| *GPT-J (6B), MALMEN* | *16,384* | *–* | *–* | *–* | *–* | *12.25 h* |",
        "| *GPT-J (6B), MEMIT* | *16,384* | *–* | *–* | *–* | *–* | *33.75 h* |",
    ]
    assert "one NVIDIA A100" in lines[-1]
    assert (
        r"\toprule" in (tmp_path / "compute.tex").read_text() and "33.75 h" in (tmp_path / "compute.html").read_text()
    )
    table = pd.read_csv(tmp_path / "compute.csv")
    assert table["total_seconds"].tolist() == pytest.approx([152, 52, 0.25, math.nan, 44100, 121500], nan_ok=True)
    assert set(table["source"][:4]) == {"this run"}


def test_the_papers_times() -> None:
    paper = read_published(PUBLISHED, COLUMNS).set_index("editor")
    assert (paper["total_seconds"] / 3600).to_dict() == {"malmen": 12.25, "memit": 33.75}
    assert set(paper["n_edits"]) == {16384} and set(paper["model"]) == {"gptj"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "12 ms"), (119.94, "119.9 s"), (120, "2.0 min"), (7200, "2.00 h"), (math.nan, "–")],
)
def test_times_are_in_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_sizes() -> None:
    assert [bytes_text(x) for x in (2**20, 2**30, 1.5 * 2**30, math.nan)] == ["1 MiB", "1.00 GiB", "1.50 GiB", "–"]


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    item = example(tmp_path)[1]
    item.costs.editing[0].write_text("[{}]")
    with pytest.raises(UserError, match=r"gpt2_ft\.cost\.json is not a costs file"):
        compute_costs([item])
    with pytest.raises(UserError, match=r"absent\.csv cannot be read"):
        read_published(tmp_path / "absent.csv", COLUMNS)
