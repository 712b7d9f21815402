"""The table of how far training moved each kind of a hyper-network's parameters."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from malmen.errors import UserError
from malmen.figures.moved_table import KINDS, TrainedEditor, write_moved
from malmen.results.training import Moved, TrainingFile


def trained(folder: Path, name: str, etas: list[float]) -> TrainedEditor:
    """Write trainings that moved eta so far and nothing else."""
    for seed, eta in enumerate(etas):
        moved = {kind: Moved(0.0, None if kind == "B" else 0.0) for kind in KINDS} | {"eta": Moved(eta, 10 * eta)}
        place = folder / name / f"m8_seed{seed}"
        place.mkdir(parents=True)
        TrainingFile(status="ok", reason=None, losses=(), moved=moved).write(place / "training.json")
    raw = {"editor": name, "label": name.upper(), "seeds": [0, 1], "folders": [str(folder / name)]}
    return TrainedEditor.of(raw, 8)


def test_means_over_seeds_and_their_sources(tmp_path: Path) -> None:
    editors = [trained(tmp_path, "one", [0.1, 0.3]), trained(tmp_path, "many", [0.5])]
    write_moved(editors, 8, tmp_path / "moved")
    rows = pd.read_csv(tmp_path / "moved.csv").to_dict("records")
    table = {(row["editor"], row["parameters"]): row for row in rows}
    assert table["one", "eta"]["largest"] == pytest.approx(0.2)
    assert table["many", "eta"]["relative"] == pytest.approx(5)
    assert table["one", "A"]["largest"] == 0 and math.isnan(table["one", "B"]["relative"])
    page = (tmp_path / "moved.md").read_text(encoding="utf-8")
    assert "ONE" in page and "0.2" in page and "–" in page
    numbers = json.loads((tmp_path / "moved.sources.json").read_text(encoding="utf-8"))["numbers"]
    eta = next(one for one in numbers if one["of"] == {"editor": "one", "parameters": "eta", "n_edits": 8})
    assert list(eta["from"].values()) == [[[8, 0]], [[8, 1]]]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    editor = trained(tmp_path, "one", [0.1])
    (tmp_path / "one" / "m8_seed0" / "training.json").write_text("{}")
    with pytest.raises(UserError, match=r"training\.json is not a training file"):
        write_moved([editor], 8, tmp_path / "moved")
