"""Later papers' numbers: the file, and the table that shows them below ours."""

from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from rounds_files import diverged_in_rounds, in_rounds, write_rounds

from malmen.audit.by_run import by_run, disagreements
from malmen.errors import UserError
from malmen.figures.published_rounds import COLUMNS, ONLY_PUBLISHED, READ_IN, SCORES, write_published
from malmen.results.sources import AS_PUBLISHED, SourcesFile

FOLDER = Path(__file__).parents[2] / "data" / "published"
PUBLISHED = FOLDER / "later_editors.csv"


@pytest.fixture
def table() -> pd.DataFrame:
    """The file of published numbers, as text."""
    return pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)


def test_every_row_has_a_source_a_protocol_and_a_number(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    for row in table.to_dict("records"):
        assert row["source"] and row["protocol"] and row["editor"], row
        assert row["read_in"] in READ_IN, row
        assert row["decoding"] in ("", "teacher-forced", "own prefix", "free"), row
        numbers = [row[name] for name in (*SCORES, *ONLY_PUBLISHED) if row[name]]
        assert numbers or row["note"], row
        assert all(0 <= float(row[name]) <= 100 for name in (*SCORES, "capability") if row[name]), row
        if row["rounds"] and row["n_edits"]:
            assert int(row["rounds"]) * int(row["n_edits"]) == int(row["total"]), row
    assert not table.duplicated().any()


def test_a_source_and_protocol_stand_together(table: pd.DataFrame) -> None:
    pairs = list(zip(table["source"], table["protocol"], strict=True))
    changes = sum(one != other for one, other in pairwise(pairs))
    assert changes + 1 == len(set(pairs))


def test_what_the_papers_own_tables_say_is_the_same(table: pd.DataFrame) -> None:
    ours = table[(table["source"].str.startswith("Tan")) & (table["n_edits"] == "8192")].set_index("editor")
    paper = pd.read_csv(FOLDER / "table2.csv").set_index(["variant", "metric"])["mean"]
    for editor, variant in (("MALMEN", "malmen"), ("MALMEN, all tokens", "all_tokens")):
        for metric in ("ES", "GS", "LS"):
            assert float(ours[metric][editor]) == paper[variant, metric]
        assert float(ours["total_seconds"][editor]) == pytest.approx(3600 * paper[variant, "hours"])
    times = pd.read_csv(FOLDER / "compute.csv").set_index("editor_label")["total_seconds"]
    most = table[(table["source"].str.startswith("Tan")) & (table["n_edits"] == "16384")].set_index("editor")
    assert {editor: int(most["total_seconds"][editor]) for editor in ("MALMEN", "MEMIT")} == times.to_dict()


def test_some_published_numbers(table: pd.DataFrame) -> None:
    def scores(source: str, **of: str) -> list[str]:
        rows = table[table["source"].str.startswith(source)]
        for name, value in of.items():
            rows = rows[rows[name] == value]
        (row,) = rows.to_dict("records")
        return [row[name] for name in ("ES", "GS", "LS", "agreement", "capability", "seconds_per_edit") if row[name]]

    of = {"model": "GPT-J", "total": "10000", "dataset": "zsRE"}
    assert scores("MeG", editor="MALMEN", decoding="teacher-forced", **of) == ["98.5", "79.1", "81.4"]
    assert scores("MeG", editor="MALMEN", decoding="own prefix", **of) == ["96.8", "59.4", "16.6"]
    lifelong = scores("UltraEdit", dataset="zsRE", total="20000")
    assert lifelong == ["90.07", "87.36", "49.51"]
    fine = {"model": "Llama-3-8B", "dataset": "zsRE", "editor": "LocFT-BF"}
    assert scores("LocFT", **fine) == ["98.97", "75.83", "57.04", "0.27"]
    assert scores("AlphaEdit", model="GPT-J", editor="AlphaEdit", dataset="zsRE") == ["99.79", "96.00", "28.29"]


def test_ours_stand_above_the_published_numbers(tmp_path: Path) -> None:
    paths = [
        write_rounds(tmp_path, "malmen", in_rounds("1x8", 0.9), in_rounds("4x2", 0.5)),
        write_rounds(tmp_path, "mend", in_rounds("1x8", 0.3), diverged_in_rounds("4x2")),
    ]
    write_published(paths, ["mend", "malmen"], ["1x8", "4x2"], PUBLISHED, "zsRE", tmp_path / "table9")
    lines = (tmp_path / "table9.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| :")]
    assert rows[1].startswith("| this run | zsRE | GPT2 (tiny) | MEND | 1 × 8 | teacher-forced | 30.0 | 30.0 | 30.0 |")
    assert rows[3].startswith("|  | zsRE | GPT2 (tiny) | MEND | 4 × 2 | teacher-forced | – | – | – |")
    first = "| Tan, Zhang and Fu (ICLR 2024)<sup>1</sup> | zsRE | GPT-J | MALMEN | 1 × 8,192 | teacher-forced | 99.7 |"
    assert rows[5].startswith(first)
    assert "4.4 h in all" in rows[5]
    assert "MEND, 4×2: 1 of 1 seed diverged" in lines[-1]
    assert any("*200 × 100*" in row and "*90.07*" in row for row in rows)


def test_its_numbers_have_sources(tmp_path: Path, table: pd.DataFrame) -> None:
    path = write_rounds(tmp_path, "malmen", in_rounds("1x8", 0.9), in_rounds("4x2", 0.5))
    for name in "ab":
        write_published([path], ["malmen"], ["1x8", "4x2"], PUBLISHED, "zsRE", tmp_path / name / "table9")
    for suffix in ("md", "html", "tex", "csv", "sources.json"):
        first, second = ((tmp_path / name / f"table9.{suffix}").read_bytes() for name in "ab")
        assert first == second
    numbers = SourcesFile.read(tmp_path / "a" / "table9.sources.json").numbers
    ours = [number for number in numbers if number.how != AS_PUBLISHED]
    assert len(ours) == 2
    for number in ours:
        measured = by_run(number, Path())
        assert measured and not list(disagreements(number, measured))
    published = pd.read_csv(tmp_path / "a" / "table9.csv", dtype=str, keep_default_na=False)
    assert len(published) == 2 + len(table)
    with pytest.raises(UserError, match=r"absent\.csv cannot be read"):
        write_published([path], ["malmen"], ["1x8"], tmp_path / "absent.csv", "zsRE", tmp_path / "t")
