"""The tables on editing in rounds: success, and what it costs."""

import json
from pathlib import Path

import pandas as pd
import pytest
from cost_files import cost
from rounds_files import REASON, diverged_in_rounds, in_rounds, write_rounds, write_rounds_costs

from malmen.audit.by_run import by_run, disagreements
from malmen.errors import UserError
from malmen.figures.rounds_costs import PricedRounds
from malmen.figures.rounds_costs import write_rounds_costs as write_costs
from malmen.figures.rounds_table import RoundsRow, write_rounds_table
from malmen.results.sources import SourcesFile

ROUNDS = ["1x8", "4x2"]


def rows(folder: Path) -> list[RoundsRow]:
    """Two editors with two seeds; the second diverges in rounds, with one seed or both."""
    ours = [
        write_rounds(
            folder, "malmen", in_rounds("1x8", 0.9 + s / 20, seed=s), in_rounds("4x2", 0.5, seed=s), name=str(s)
        )
        for s in (0, 1)
    ]
    theirs = [
        write_rounds(folder, "mend", in_rounds("1x8", 0.3, seed=s), diverged_in_rounds("4x2", seed=s), name=str(s))
        for s in (0, 1)
    ]
    return [RoundsRow("ours", "MALMEN", tuple(ours)), RoundsRow("theirs", "MEND", tuple(theirs))]


def test_the_unedited_model_stands_above_the_editors(tmp_path: Path) -> None:
    write_rounds_table(rows(tmp_path), ROUNDS, ["ES", "agreement"], "zsRE", tmp_path / "table8")
    lines = (tmp_path / "table8.md").read_text(encoding="utf-8").splitlines()
    heads = "| Editor | at once: 8<br>ES ↑ | LS, agreement ↑ | 4 rounds of 2<br>ES ↑ | LS, agreement ↑ |"
    assert lines[2] == heads
    assert lines[4:7] == [
        "| *unedited model* | *20.0 (0.0)* | *100.0 (0.0)* | *20.0 (0.0)* | *100.0 (0.0)* |",
        "| MALMEN | **92.5 (3.5)** | **92.5 (3.5)** | **50.0 (0.0)** | **50.0 (0.0)** |",
        "| MEND | 30.0 (0.0) | 30.0 (0.0) | –<sup>1</sup> | – |",
    ]
    assert f"<sup>1</sup> MEND, 4 rounds of 2: 2 of 2 seeds diverged: {REASON}." in lines
    assert (tmp_path / "table8.tex").read_text(encoding="utf-8").count(r"\\") >= 5
    assert "<table" in (tmp_path / "table8.html").read_text(encoding="utf-8")


def test_the_csv_is_unrounded_and_the_audit_finds_the_same_numbers(tmp_path: Path) -> None:
    write_rounds_table(rows(tmp_path), ROUNDS, ["ES"], "zsRE", tmp_path / "table8")
    table = pd.read_csv(tmp_path / "table8.csv").set_index(["row", "rounds", "metric"])
    assert table["mean"]["ours", "1x8", "ES"] == pytest.approx(0.925)
    assert table["status"]["theirs", "4x2", "ES"] == "diverged"
    numbers = SourcesFile.read(tmp_path / "table8.sources.json").numbers
    assert len(numbers) == 3 * 2
    for number in numbers:
        measured = by_run(number, Path())
        assert measured and not list(disagreements(number, measured))
    changed = numbers[2].model_copy(update={"values": {"ES": {"mean": 0.9, "std": 0.0}}})
    assert len(list(disagreements(changed, by_run(changed, Path())))) == 2


def test_the_audit_counts_each_seed_of_the_unedited_model_once(tmp_path: Path) -> None:
    some = [
        RoundsRow(
            editor,
            editor,
            (write_rounds(tmp_path, editor, *(in_rounds("1x8", 0.9, seed=s, pre_GS=0.2 + s / 10) for s in range(3))),),
        )
        for editor in ("malmen", "mend")
    ]
    write_rounds_table(some, ["1x8"], ["GS"], "zsRE", tmp_path / "t")
    number = SourcesFile.read(tmp_path / "t.sources.json").numbers[0]
    assert number.values["pre_GS"] == pytest.approx({"mean": 0.3, "std": 0.1})
    assert not list(disagreements(number, by_run(number, Path())))
    changed = number.model_copy(update={"values": {"pre_GS": {"mean": 0.3, "std": 0.2}}})
    assert len(list(disagreements(changed, by_run(changed, Path())))) == 1


def test_the_numbers_of_the_seeds_that_did_not_diverge_are_shown(tmp_path: Path) -> None:
    runs = [in_rounds("4x2", 0.6, seed=0), diverged_in_rounds("4x2", seed=1)]
    row = RoundsRow("ours", "MALMEN", (write_rounds(tmp_path, "malmen", *runs),))
    write_rounds_table([row], ["4x2", "1x8"], ["ES"], "zsRE", tmp_path / "t")
    text = (tmp_path / "t.md").read_text(encoding="utf-8")
    assert "| MALMEN | 60.0<sup>1</sup> |  |" in text
    assert "1 of 2 seeds diverged" in text


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    good = rows(tmp_path)
    with pytest.raises(UserError, match="asks for the measure 'XS'; choose from ES, GS"):
        write_rounds_table(good, ROUNDS, ["XS"], "zsRE", tmp_path / "t")
    with pytest.raises(UserError, match="there are 0"):
        write_rounds_table(good, ["2x2"], ["ES"], "zsRE", tmp_path / "t")
    twice = RoundsRow("twice", "MALMEN", good[0].files[:1] * 2)
    with pytest.raises(UserError, match="repeats the run of malmen on gpt2 with seed 0"):
        write_rounds_table([twice], ROUNDS, ["ES"], "zsRE", tmp_path / "t")


def test_costs_have_a_block_for_each_kind_of_rounds(tmp_path: Path) -> None:
    trained, prepared = tmp_path / "trained.cost.json", tmp_path / "prepared.cost.json"
    trained.write_text(json.dumps([cost(8, 0, 30), cost(8, 1, 50), cost(2, 0, 20)]))
    prepared.write_text(json.dumps([cost(1, 0, 600)]))
    malmen = write_rounds_costs(
        tmp_path, "malmen", ("1x8", 0, [8], 100), ("1x8", 1, [16], 300), ("4x2", 0, [1] * 4, 90)
    )
    memit = write_rounds_costs(tmp_path, "memit", ("1x8", 0, [160], 100))
    priced = [
        PricedRounds.of({"editor": "malmen", "label": "MALMEN", "rounds": [str(malmen)], "training": [str(trained)]}),
        PricedRounds.of({"editor": "memit", "label": "MEMIT", "rounds": [str(memit)], "preparation": [str(prepared)]}),
    ]
    write_costs(priced, ROUNDS, "GPT-2", "zsRE", tmp_path / "t")
    lines = (tmp_path / "t.md").read_text(encoding="utf-8").splitlines()
    assert lines[4:6] == [
        "| MALMEN | – | 40.0 s | 1.5 s | 200 MiB | 20.0 s | 500 ms | 90 MiB |",
        "| MEMIT | 10.0 min | – | 20.0 s | 100 MiB | – | – | – |",
    ]
    table = pd.read_csv(tmp_path / "t.csv").set_index(["editor", "rounds"])
    assert table["seconds_per_edit"]["malmen", "4x2"] == 0.5
    assert table["preparation_seconds"]["memit", "1x8"] == 600
    numbers = SourcesFile.read(tmp_path / "t.sources.json").numbers
    checked = [number for number in numbers if "rounds" in number.of]
    assert len(numbers) == 6 and len(checked) == 5
    for number in checked:
        measured = by_run(number, Path())
        assert measured and not list(disagreements(number, measured))
