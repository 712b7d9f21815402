import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from metrics_files import REASON, diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.costs import CostFiles
from malmen.results.run import Run

PUBLISHED = Path(__file__).parents[2] / "data" / "published" / "table1.csv"
DATA = {"fever": "FEVER", "zsre": "zsRE", "other": "other"}
OTHER = "the loss was not finite at step 7"


def example(folder: Path) -> list[AblationRow]:
    """Three variants, two seeds; without regularisation BERT diverges always, GPT-2 once."""
    sums = [
        write_metrics(folder / "sum", ok(16, group(0.1)), ok(64, group(0.5 + seed / 10)), seed=seed, model=model)
        for model in ("gpt2", "bert")
        for seed in (0, 1)
    ]
    loose = [
        write_metrics(folder / "loose", diverged(64), seed=0, model="bert"),
        write_metrics(folder / "loose", diverged(64, OTHER), seed=1, model="bert"),
        write_metrics(folder / "loose", diverged(64), seed=0, model="gpt2"),
        write_metrics(folder / "loose", ok(64, group(0.99)), seed=1, model="gpt2"),
    ]
    ours = [write_metrics(folder / "ours", ok(64, group(0.8, GS=0.2), group(0.9, GS=0.4)), model="gpt2")]
    return [
        AblationRow("sum_of_shifts", "Sum of shifts", tuple(sums)),
        AblationRow("no_regularisation", "No regularisation", tuple(loose)),
        AblationRow("own_variant", "Own variant", tuple(ours)),
    ]


def test_csv_holds_means_deviations_status_and_the_papers_numbers(tmp_path: Path) -> None:
    write_ablation(example(tmp_path), 64, PUBLISHED, DATA, tmp_path / "table1")
    table = pd.read_csv(tmp_path / "table1.csv")
    names = "variant model dataset n_edits metric mean std n_seeds status paper_mean paper_std data"
    assert list(table.columns) == names.split()
    assert len(table) == 3 * 2 * 3
    columns = table[["mean", "std", "n_seeds", "status", "paper_mean", "paper_std"]].astype(object)

    def entry(variant: str, model: str, metric: str) -> list[object]:
        chosen = (table["variant"] == variant) & (table["model"] == model) & (table["metric"] == metric)
        return list(columns[chosen].fillna("").iloc[0])

    deviation = pytest.approx(10 / 2**0.5)
    assert entry("sum_of_shifts", "bert", "ES") == [pytest.approx(55), deviation, 2, "ok", 79.1, 1.6]
    assert entry("no_regularisation", "bert", "GS") == ["", "", 0, "diverged", "", ""]
    assert entry("no_regularisation", "gpt2", "GS") == [pytest.approx(99), "", 1, "partly diverged", 0.0, 0.0]
    assert entry("own_variant", "gpt2", "GS") == [pytest.approx(30), "", 1, "ok", "", ""]
    assert entry("own_variant", "bert", "GS") == ["", "", 0, "not run", "", ""]
    assert set(table["n_edits"]) == {64}


def test_markdown_shows_the_best_the_paper_and_why_runs_diverged(tmp_path: Path) -> None:
    write_ablation(example(tmp_path), 64, PUBLISHED, DATA, tmp_path / "table1")
    lines = (tmp_path / "table1.md").read_text(encoding="utf-8").splitlines()
    assert lines[2].startswith("| Variant | FEVER, m = 64<br>BERT (tiny)<br>ES ↑ |")
    best = "**55.0 (7.1)**"
    assert lines[4:9] == [
        f"| Sum of shifts | {best} | {best} | {best} | 55.0 (7.1) | {best} | 55.0 (7.1) |",
        "| *paper* | ***79.1 (1.6)*** | ***75.1 (1.9)*** | ***72.9 (3.1)*** "
        "| ***52.2 (1.4)*** | ***50.7 (1.4)*** | ***17.0 (0.5)*** |",
        "| No regularisation | –<sup>1</sup> | –<sup>1</sup> | –<sup>1</sup> "
        "| 99.0<sup>2</sup> | 99.0<sup>2</sup> | 99.0<sup>2</sup> |",
        "| *paper* | *–* | *–* | *–* | *0.0 (0.0)* | *0.0 (0.0)* | *0.0 (0.0)* |",
        "| Own variant |  |  |  | **85.0** | 30.0 | **85.0** |",
    ]
    assert f"<sup>1</sup> 2 of 2 seeds diverged: {OTHER}; {REASON}." in lines
    assert f"<sup>2</sup> 1 of 2 seeds diverged (the numbers are those of the others): {REASON}." in lines
    assert lines[-1].endswith("Table 1, m = 512.")


def test_the_paper_is_not_named_where_it_has_no_number(tmp_path: Path) -> None:
    rows = [AblationRow("malmen", "MALMEN", (write_metrics(tmp_path, ok(64, group(0.8)), model="t5"),))]
    write_ablation(rows, 64, PUBLISHED, DATA, tmp_path / "table1")
    assert "aper”" not in (tmp_path / "table1.md").read_text(encoding="utf-8")


def test_equal_prints_are_equally_bold(tmp_path: Path) -> None:
    rows = [
        AblationRow(key, key, (write_metrics(tmp_path / key, ok(64, group(value))),))
        for key, value in (("a", 0.80001), ("b", 0.80003), ("c", 0.79))
    ]
    write_ablation(rows, 64, PUBLISHED, DATA, tmp_path / "table1")
    text = (tmp_path / "table1.tex").read_text(encoding="utf-8")
    bold = r" & \textbf{80.0}" * 3
    assert f"a{bold}" in text and f"b{bold}" in text and "c & 79.0 & 79.0 & 79.0" in text


def test_two_runs_give_identical_bytes(tmp_path: Path) -> None:
    rows = example(tmp_path)
    write_ablation(rows, 64, PUBLISHED, DATA, tmp_path / "a" / "table1")
    write_ablation(
        [AblationRow(r.key, r.label, r.metrics[::-1]) for r in rows], 64, PUBLISHED, DATA, tmp_path / "b" / "table1"
    )
    for suffix in ("md", "tex", "csv"):
        first, second = ((tmp_path / name / f"table1.{suffix}").read_bytes() for name in "ab")
        assert first == second


def timed(folder: Path, variant: str, times: dict[int, tuple[float, float]]) -> AblationRow:
    """Return a variant on a GPT-J: hours of training and of editing by seed."""
    metrics = [write_metrics(folder / variant, ok(64, group(0.8)), seed=seed, model="gptj") for seed in times]
    trained = [folder / variant / f"m64_seed{seed}.cost.json" for seed in times]
    for path, (seed, (training, _)) in zip(trained, times.items(), strict=True):
        path.write_text(json.dumps([cost(seed, training)]))
    editing = folder / variant / "editing.json"
    editing.write_text(json.dumps([cost(seed, hours) for seed, (_, hours) in times.items()]))
    costs = CostFiles(tuple(trained), (editing,))
    return AblationRow(variant, variant, tuple(metrics), {"gptj": costs})


def cost(seed: int, hours: float) -> dict[str, object]:
    return {"run": {"n_edits": 64, "seed": seed}, "seconds": 3600 * hours, "peak_bytes": 1}


def test_times_stand_beside_successes(tmp_path: Path) -> None:
    rows = [
        timed(tmp_path, "all_tokens", {0: (3.0, 0.5), 1: (5.0, 0.5)}),
        timed(tmp_path, "malmen", {0: (2.0, 0.01), 1: (2.0, 0.01)}),
    ]
    write_ablation(rows, 64, PUBLISHED.with_name("table2.csv"), DATA, tmp_path / "table2")
    lines = (tmp_path / "table2.md").read_text(encoding="utf-8").splitlines()
    heads = [cell.rpartition("<br>")[2].strip() for cell in lines[2].strip("|").split("|")]
    assert heads == ["Variant", "ES ↑", "GS ↑", "LS ↑", "Training ↓", "Editing ↓", "Time ↓"]
    cells = [[cell.strip() for cell in line.strip("|").split("|")][4:] for line in lines[4:8]]
    assert cells == [
        ["4.0 (1.4) h", "30.0 (0.0) min", "4.5 (1.4) h"],
        ["", "", "*7.2 h*"],
        ["**2.0 (0.0) h**", "**36.0 (0.0) s**", "**2.0 (0.0) h**"],
        ["", "", "***4.4 h***"],
    ]
    assert "Times: to train the editor" in lines[-1]
    table = pd.read_csv(tmp_path / "table2.csv").set_index(["variant", "metric"])
    assert table.loc[("all_tokens", "hours"), "mean"] == pytest.approx(4.5)
    assert table.loc[("malmen", "hours"), "paper_mean"] == 4.4


def test_an_editor_that_is_not_trained_takes_no_time_to_train(tmp_path: Path) -> None:
    (tmp_path / "editing.json").write_text(json.dumps([cost(0, 0.5)]))
    costs = CostFiles((), (tmp_path / "editing.json",)).by_run()
    run = Run(64, 0)
    assert costs == {"training_hours": {run: 0}, "editing_hours": {run: 0.5}, "hours": {run: 0.5}}


@pytest.mark.parametrize("content", ["", "[1]", '[{"seconds": 1}]'])
def test_a_malformed_cost_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "editing.json").write_text(content)
    with pytest.raises(UserError, match=r"editing\.json is not a costs file"):
        CostFiles((), (tmp_path / "editing.json",)).by_run()


def test_the_papers_numbers() -> None:
    with PUBLISHED.open(encoding="utf-8", newline="") as stream:
        paper = list(csv.DictReader(stream))
    assert ",".join(paper[0]) == "table,variant,model,dataset,n_edits,metric,mean,std,source"
    numbers = {(e["variant"], e["model"], e["dataset"], e["metric"]): (e["mean"], e["std"]) for e in paper}
    assert len(paper) == len(numbers) == 5 * 2 * 3
    assert {(e["table"], e["n_edits"]) for e in paper} == {("1", "512")}
    assert numbers["malmen", "bert", "fever", "ES"] == ("93.0", "1.6")
    assert numbers["all_tokens", "bert", "fever", "LS"] == ("90.3", "1.4")
    assert numbers["first_layer", "gpt2", "zsre", "GS"] == ("89.1", "2.6")
    assert numbers["sum_of_shifts", "gpt2", "zsre", "LS"] == ("17.0", "0.5")
    assert numbers["no_regularisation", "gpt2", "zsre", "ES"] == ("0.0", "0.0")
    assert {numbers["no_regularisation", "bert", "fever", metric] for metric in ("ES", "GS", "LS")} == {("", "")}


def test_what_cannot_be_made_into_one_table_is_said(tmp_path: Path) -> None:
    rows = example(tmp_path)
    with pytest.raises(UserError, match="m = 128"):
        write_ablation(rows, 128, PUBLISHED, DATA, tmp_path / "table1")
    mixed = write_metrics(tmp_path / "mixed", ok(64, group()), dataset="fever")
    with pytest.raises(UserError, match="gpt2 on both zsre and fever"):
        write_ablation([*rows, AblationRow("mixed", "Mixed", (mixed,))], 64, PUBLISHED, DATA, tmp_path / "table1")
    with pytest.raises(UserError, match=r"absent\.csv cannot be read"):
        write_ablation(rows, 64, tmp_path / "absent.csv", DATA, tmp_path / "table1")
