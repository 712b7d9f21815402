import json
import math
from pathlib import Path
from typing import Any

import pytest
from metrics_files import diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures.metrics import COLUMNS, METRICS, load_metrics, write_csv


def test_value_is_the_mean_over_groups(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, ok(16, group(0.5, pre_LS=0.2), group(0.75, pre_LS=0.4)), seed=3)
    table = load_metrics([path])
    assert tuple(table.columns) == COLUMNS == ("model", "dataset", "editor", "n_edits", "seed", "metric", "value")
    assert table["metric"].tolist() == list(METRICS)
    assert table["value"].tolist() == pytest.approx([0.625, 0.625, 0.625, 0.1, 0.1, 0.3, 0.625])
    assert table.iloc[0, :6].tolist() == ["gpt2", "zsre", "malmen", 16, 3, "ES"]


def test_rows_are_sorted_whatever_the_order_of_files_and_runs(tmp_path: Path) -> None:
    paths = [
        write_metrics(tmp_path, ok(64, group()), ok(16, group()), editor=editor, seed=seed)
        for editor in ("mend", "ft")
        for seed in (10, 2)
    ]
    table = load_metrics(paths)
    assert table.equals(load_metrics(paths[::-1]))
    keys = table[table["metric"] == "GS"][["editor", "n_edits", "seed"]].apply(tuple, axis=1).tolist()
    assert keys == [(editor, m, seed) for editor in ("ft", "mend") for m in (16, 64) for seed in (2, 10)]


def test_a_diverged_run_has_empty_values(tmp_path: Path) -> None:
    table = load_metrics([write_metrics(tmp_path, ok(16, group()), diverged(64))])
    assert table[table["n_edits"] == 64]["value"].isna().all()
    assert table[table["n_edits"] == 16]["value"].notna().all()


def test_csv_is_read_back_exactly(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    write_csv(tmp_path / "a.csv", load_metrics([write_metrics(tmp_path, ok(16, group(value)))]))
    text = (tmp_path / "a.csv").read_bytes().decode()
    assert text.splitlines()[:2] == [",".join(COLUMNS), "gpt2,zsre,malmen,16,0,ES,0.30000000000000004"]
    assert "\r" not in text
    assert float(text.splitlines()[1].split(",")[-1]) == value


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"runs": [ok(16, group()) | {"seed": "0"}]}, r"runs\.0\.seed"),
        ({"runs": []}, "at least 1 item"),
        ({"runs": [ok(16)]}, "at least one group"),
        ({"runs": [ok(16, group()) | {"status": "lost"}]}, r"runs\.0\.status"),
        ({"runs": [ok(16, {"ES": 1.0})]}, r"runs\.0\.groups\.0\.pre_ES"),
        ({"runs": [ok(16, group(93.0))]}, "less than or equal"),
        ({"runs": [ok(16, group(math.nan))]}, "finite"),
        ({"runs": [ok(0, group())]}, "n_edits"),
        ({"runs": [diverged(16, reason="")]}, "needs a reason"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    path = write_metrics(tmp_path, **change)
    with pytest.raises(UserError, match=complaint) as error:
        load_metrics([path])
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", '{"model": "gpt2"'])
def test_what_is_no_metrics_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"broken\.json is not a metrics file"):
        load_metrics([path])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json does not exist"):
        load_metrics([tmp_path / "nowhere.json"])


def test_a_measurement_may_not_occur_twice(tmp_path: Path) -> None:
    first = write_metrics(tmp_path, ok(16, group()))
    second = tmp_path / "copy.json"
    second.write_text(json.dumps(json.loads(first.read_text())))
    with pytest.raises(UserError, match=r"copy\.json repeats .* m = 16 found in .*gpt2-malmen-0\.json"):
        load_metrics([first, second])
