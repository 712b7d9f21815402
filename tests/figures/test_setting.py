"""What figures and tables say of the setting: synthetic data, tiny models, facts behind a point, what a time is."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from metrics_files import group, ok, write_metrics

from malmen.config.load import load
from malmen.figures.ablation import AblationRow, write_ablation
from malmen.figures.metrics import read_metrics
from malmen.figures.setting import CLOCKS, PAPERS, Setting, notes_of
from malmen.workflow.layout import Layout
from malmen.workflow.parameters import Parameters

ROOT = Path(__file__).parents[2]
NOTE = "Tiny models, synthetic data: not the paper's setting."


def parameters(name: str, **data: Any) -> Parameters:
    raw = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    raw["data"] |= data
    return Parameters(Layout(load(raw)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("demo", ["tiny models", "synthetic data"]),
        ("realtext", ["tiny models", "other data"]),
        ("small", ["other models", "other data"]),
        ("paper", []),
    ],
)
def test_the_note_names_what_differs_from_the_paper(name: str, said: list[str]) -> None:
    found = parameters(name)
    note = found.setting(found.config.models)["note"]
    assert [
        part for part in ("tiny models", "other models", "synthetic data", "other data") if part in note.lower()
    ] == said
    assert bool(note) == bool(said)


@pytest.mark.parametrize("name", ["demo", "realtext", "paper"])
def test_only_the_synthetic_world_is_called_synthetic(name: str) -> None:
    found = parameters(name)
    labels = found.data_labels(found.config.models).values()
    assert all(("synthetic" in label) == (name == "demo") for label in labels)


def test_models_that_were_taught_unrelated_answers_are_named() -> None:
    assert parameters("demo").setting(["bert", "gpt2"])["taught"] == ["gpt2"]
    assert parameters("paper").setting(["bert", "gpt2", "gptj"])["taught"] == []


def test_the_papers_ls_has_a_footnote_where_it_is_not_comparable(tmp_path: Path) -> None:
    files = [write_metrics(tmp_path, ok(64, group(0.5)), model=model) for model in ("bert", "gpt2")]
    rows = [AblationRow("malmen", "MALMEN", tuple(files))]
    published = ROOT / "data" / "published" / "table1.csv"
    data = {"fever": "FEVER-like (synthetic)", "zsre": "zsRE-like (synthetic)"}
    write_ablation(rows, 64, published, data, tmp_path / "table1", Setting(NOTE, ["gpt2"]))
    text = (tmp_path / "table1.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("| *paper*")]
    cells = line.split(" | ")
    assert [place for place, cell in enumerate(cells) if "<sup>1</sup>" in cell] == [6]  # LS of GPT-2, not of BERT
    assert text.count("<sup>1</sup>") == 2
    for suffix in ("md", "tex", "html"):
        said = (tmp_path / f"table1.{suffix}").read_text(encoding="utf-8").replace("&#x27;", "'")
        assert NOTE in said and "FEVER-like (synthetic)" in said
    write_ablation(rows, 64, published, data, tmp_path / "again", PAPERS)
    assert "<sup>" not in (tmp_path / "again.md").read_text(encoding="utf-8")


def test_the_notes_count_the_facts_behind_a_point(tmp_path: Path) -> None:
    runs = ok(2, group(), group(), group()), ok(1024, group())
    files = read_metrics([write_metrics(tmp_path, *runs, seed=seed) for seed in (0, 1)])
    first, *others = notes_of(Setting(NOTE), files, width=70)
    assert first == NOTE
    text = " ".join(others).replace("\N{NO-BREAK SPACE}", " ")
    assert "3 × 2 = 6, 1 × 1,024 = 1,024." in text and "same facts" in text
    assert all(len(line) <= 70 for line in others)
    alone = notes_of(PAPERS, files[:1], width=70)
    assert "same facts" not in " ".join(alone)


def test_each_device_has_its_clock() -> None:
    assert "processor time" in Setting(device="cpu").clock and "wall time" in Setting(device="cuda").clock
    assert set(CLOCKS) == {"cpu", "cuda"}
