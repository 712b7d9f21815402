import csv
from pathlib import Path

import pandas as pd
import pytest
from metrics_files import REASON, diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures.comparison import write_comparison

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "table3.csv"


def files(folder: Path) -> list[Path]:
    """Two editors at 5 and 9 edits with two seeds; MEND diverges at 9."""
    paths = []
    for seed in (0, 1):
        fine = ok(5, group(edit_success=0.5 + seed / 10, drawdown=-0.01), group(edit_success=0.7, drawdown=0.03))
        many = ok(9, group(edit_success=0.25, drawdown=0.1))
        paths.append(write_metrics(folder, fine, many, editor="malmen", seed=seed, model="bart"))
        paths.append(write_metrics(folder, fine, diverged(9), editor="mend", seed=seed, model="bart"))
    return paths


def test_ours_stand_beside_the_published_numbers(tmp_path: Path) -> None:
    write_comparison(files(tmp_path), ["mend", "malmen"], [9, 5], PUBLISHED, "zsRE", tmp_path / "table3")
    lines = (tmp_path / "table3.md").read_text(encoding="utf-8").splitlines()
    heads = [cell.rpartition("<br>")[2].strip() for cell in lines[2].split("|")[2:-1]]
    assert heads == ["MEND", "MALMEN", "Original", "Paper"] * 2
    assert lines[4:9] == [
        "| 5 | 0.62 (0.04) | 0.62 (0.04) | *0.97* | *0.99* | 0.010 (0.000) | 0.010 (0.000) | *0.005* | *0.007* |",
        "| 9 | – | 0.25 (0.00) |  |  | – | 0.100 (0.000) |  |  |",
        "| 25 | not run | not run | *0.89* | *0.98* | not run | not run | *0.011* | *0.015* |",
        "| 75 | not run | not run | *0.78* | *0.89* | not run | not run | *0.011* | *0.026* |",
        "| 125 | not run | not run | *0.67* | *0.91* | not run | not run | *0.012* | *0.040* |",
    ]
    assert f"MEND, 9 edits: 2 of 2 seeds diverged: {REASON}." in "\n".join(lines)
    assert "“Original”: Mitchell et al. (2022)" in lines[-1]


def test_csv_is_unrounded(tmp_path: Path) -> None:
    write_comparison(files(tmp_path), ["mend", "malmen"], [5], PUBLISHED, "zsRE", tmp_path / "table3")
    table = pd.read_csv(tmp_path / "table3.csv").set_index(["column", "n_edits", "metric"])
    assert table["mean"]["mend", 5, "edit_success"] == pytest.approx(0.625)
    assert table["std"]["mend", 5, "edit_success"] == pytest.approx(0.05 / 2**0.5)
    assert table["n_seeds"]["mend", 5, "edit_success"] == 2
    assert len(table) == 2 * 2 + 16
    assert not {9} & {key[1] for key in table.index}


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    paths = files(tmp_path)
    with pytest.raises(UserError, match="needs one model and mend, ft, not bart and malmen, mend"):
        write_comparison(paths, ["mend", "ft"], [5], PUBLISHED, "zsRE", tmp_path / "table3")
    other = write_metrics(tmp_path, ok(5, group()), editor="mend", model="gpt2")
    with pytest.raises(UserError, match="one model"):
        write_comparison([*paths, other], ["mend", "malmen"], [5], PUBLISHED, "zsRE", tmp_path / "table3")
    with pytest.raises(UserError, match=r"absent\.csv cannot be read"):
        write_comparison(paths, ["mend", "malmen"], [5], tmp_path / "absent.csv", "zsRE", tmp_path / "table3")


def test_the_published_numbers() -> None:
    with PUBLISHED.open(encoding="utf-8", newline="") as stream:
        entries = list(csv.DictReader(stream))
    numbers = {(e["column"], int(e["n_edits"]), e["metric"]): float(e["value"]) for e in entries}
    assert len(numbers) == len(entries) == 16

    def column(name: str, metric: str) -> list[float]:
        return [numbers[name, m, metric] for m in (5, 25, 75, 125)]

    assert column("original", "edit_success") == [0.97, 0.89, 0.78, 0.67]
    assert column("reimplementation", "edit_success") == [0.99, 0.98, 0.89, 0.91]
    assert column("original", "drawdown") == [0.005, 0.011, 0.011, 0.012]
    assert column("reimplementation", "drawdown") == [0.007, 0.015, 0.026, 0.040]
