"""Claims about editing in rounds, on numbers for which they hold and on numbers for which they do not."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rounds_files import diverged_in_rounds, in_rounds, write_rounds

from malmen.figures.after_malmen import collect_rounds, write_after_malmen
from malmen.figures.evidence import Evidence, Finding
from malmen.figures.measurements import measure
from malmen.figures.rounds_claims import MEASUREMENTS, NO_ROUNDS
from malmen.figures.setting import Setting
from malmen.figures.summary import About, read_claims
from malmen.results.sources import SourcesFile

CLAIMS = Path(__file__).parents[2] / "data" / "published" / "later_claims.yaml"
MEAN = {"metrics": ["ES", "GS", "LS"]}


def editor(folder: Path, name: str, scores: Mapping[str, float | None], **other: float) -> Path:
    """Write the runs of an editor: the score in rounds of each name, None if it diverged."""
    runs: list[dict[str, Any]] = [
        diverged_in_rounds(rounds) if score is None else in_rounds(rounds, score, (), 0, **other)
        for rounds, score in scores.items()
    ]
    return write_rounds(folder, name, *runs)


def evidence(*paths: Path) -> Evidence:
    (found,) = collect_rounds(paths, {"gpt2": "GPT-2 (tiny)"})
    return found


def found(item: Evidence, measurement: str, **arguments: Any) -> Finding:
    finding = measure(item, measurement, arguments)
    assert finding is not None
    return finding


@pytest.mark.parametrize(
    ("scores", "verdict", "said"),
    [
        ({"1x64": 0.9, "8x8": 0.6}, "holds", "90.0 % at 1×64, 60.0 % at 8×8 (-30.0 points)"),
        ({"1x64": 0.9, "8x8": 0.8}, "does not hold", "-10.0 points"),
        ({"1x64": 0.9, "8x8": None}, "holds", "diverged at 8×8"),
        ({"1x64": None, "8x8": None}, "holds", "diverged at 1×64, diverged at 8×8"),
        ({"1x64": None, "8x8": 0.1}, "does not hold", "diverged at 1×64, 10.0 % at 8×8"),
        # Only runs with as many edits in all are compared, and in the most rounds.
        ({"1x64": 0.9, "8x8": 0.8, "64x1": 0.1, "64x8": 0.0}, "holds", "64×1"),
        ({"1x64": 0.9, "8x16": 0.1}, "not testable", NO_ROUNDS),
    ],
)
def test_losing_in_rounds(tmp_path: Path, scores: dict[str, float | None], verdict: str, said: str) -> None:
    item = evidence(editor(tmp_path, "malmen", scores))
    finding = found(item, "loses_in_rounds", editor="malmen", **MEAN, at_least=0.2)
    assert finding.verdict == verdict
    assert said in finding.measured
    if verdict != "not testable":
        kept = found(item, "keeps_in_rounds", editor="malmen", **MEAN, at_most=0.199)
        assert {kept.verdict, verdict} == {"holds", "does not hold"}


@pytest.mark.parametrize(
    ("theirs", "at_least", "verdict"),
    [(0.75, 0.05, "holds"), (0.76, 0.05, "does not hold"), (0.81, -0.02, "holds"), (None, 0.05, "holds")],
)
def test_being_ahead_in_the_most_rounds_of_both(
    tmp_path: Path, theirs: float | None, at_least: float, verdict: str
) -> None:
    paths = [
        editor(tmp_path, "ours", {"1x64": 0.1, "8x8": 0.8, "64x1": 0.0}),
        editor(tmp_path, "theirs", {"1x64": 0.9, "8x8": theirs}),
    ]
    arguments = {"editor": "ours", "others": ["theirs", "absent"], "where": "most", "others_where": "most"}
    finding = found(evidence(*paths), "ahead", **arguments, **MEAN, at_least=at_least)
    assert finding.verdict == verdict
    said = "diverged" if theirs is None else f"{100 * theirs:.1f} %"
    assert finding.measured == f"OURS 80.0 %, THEIRS {said} (8×8)"


def test_at_once_against_the_most_rounds(tmp_path: Path) -> None:
    paths = [editor(tmp_path, "ft", {"1x64": 0.9}), editor(tmp_path, "memit", {"1x64": 0.95, "8x8": 0.8, "64x1": 0.7})]
    arguments = {"editor": "ft", "others": ["memit"], "where": "once", "others_where": "most", "metrics": ["ES"]}
    finding = found(evidence(*paths), "ahead", **arguments, at_least=0.0)
    assert finding == Finding("FT 90.0 %, MEMIT 70.0 % (1×64 and 64×1)", "holds")


def test_without_both_editors_nothing_is_measured(tmp_path: Path) -> None:
    item = evidence(editor(tmp_path, "malmen", {"1x64": 0.9, "8x8": 0.6}))
    ahead = {"editor": "malmen", "where": "most", "others_where": "most", **MEAN, "at_least": 0}
    assert measure(item, "ahead", {**ahead, "others": ["mend"]}) is None
    assert measure(item, "ahead", {**ahead, "editor": "mend", "others": ["malmen"]}) is None
    same = {"editor": "malmen", "baseline": "mend", "where": "most", **MEAN, "at_most": 0}
    assert measure(item, "same", same) is None
    pair = evidence(editor(tmp_path, "malmen", {"1x64": 0.9}), editor(tmp_path, "mend", {"1x32": 0.9}))
    assert found(pair, "same", **same).verdict == "not testable"


@pytest.mark.parametrize(("theirs", "verdict"), [(0.81, "holds"), (0.83, "does not hold"), (None, "does not hold")])
def test_being_the_same(tmp_path: Path, theirs: float | None, verdict: str) -> None:
    paths = [editor(tmp_path, "ours", {"8x8": 0.8}), editor(tmp_path, "theirs", {"8x8": theirs})]
    arguments = {"editor": "ours", "baseline": "theirs", "where": "most", **MEAN, "at_most": 0.02}
    assert found(evidence(*paths), "same", **arguments).verdict == verdict


def test_losing_less(tmp_path: Path) -> None:
    paths = [
        editor(tmp_path, "alphaedit", {"1x64": 0.6, "8x8": 0.5, "64x1": 0.1}),
        editor(tmp_path, "memit", {"1x64": 0.9, "8x8": 0.7}),
    ]
    finding = found(evidence(*paths), "loses_less", editor="alphaedit", baseline="memit", **MEAN)
    assert finding.verdict == "holds"
    assert "ALPHAEDIT 60.0 % at 1×64, 50.0 % at 8×8 (-10.0 points); MEMIT 90.0 %" in finding.measured
    turned = found(evidence(*paths), "loses_less", editor="memit", baseline="alphaedit", **MEAN)
    assert turned.verdict == "does not hold"


def test_an_editor_that_diverges_everywhere_does_not_lose_less(tmp_path: Path) -> None:
    paths = [
        editor(tmp_path, "alphaedit", {"1x64": None, "8x8": None}),
        editor(tmp_path, "memit", {"1x64": 0.9, "8x8": 0.7}),
    ]
    finding = found(evidence(*paths), "loses_less", editor="alphaedit", baseline="memit", **MEAN)
    assert finding.verdict == "does not hold"


def test_an_unchanged_ls_has_no_sign_of_a_loss(tmp_path: Path) -> None:
    path = editor(tmp_path, "malmen", {"1x64": 0.9}, LS=0.2, pre_LS=0.2, agreement=0.9)
    finding = found(evidence(path), "hidden_change", others=["malmen"], where="once", at_least=0.1)
    assert "LS +0.0 points" in finding.measured


@pytest.mark.parametrize(("agreement", "verdict"), [(0.6, "holds"), (0.9, "does not hold")])
def test_hidden_change(tmp_path: Path, agreement: float, verdict: str) -> None:
    path = editor(tmp_path, "malmen", {"1x64": 0.9}, LS=0.18, pre_LS=0.2, agreement=agreement)
    finding = found(evidence(path), "hidden_change", others=["malmen", "absent"], where="once", at_least=0.1)
    changed = f"{100 - 100 * agreement:.1f} %"
    assert finding == Finding(f"MALMEN: LS -2.0 points, {changed} of predictions changed (1×64)", finding.verdict)
    assert finding.verdict == verdict


def test_the_file_of_claims() -> None:
    claims = read_claims(CLAIMS)
    assert len({claim.id for claim in claims}) == len(claims)
    for claim in claims:
        parameters = list(inspect.signature(MEASUREMENTS[claim.measurement]).parameters)[1:]
        assert sorted(parameters) == sorted(claim.arguments), claim.id
    assert {claim.measurement for claim in claims} == set(MEASUREMENTS)


def test_the_page_has_every_claim_and_the_sources_of_its_findings(tmp_path: Path) -> None:
    paths = [
        editor(tmp_path, "malmen", {"1x64": 0.9, "8x8": 0.3}),
        editor(tmp_path, "malmen_memory", {"1x64": 0.9, "8x8": 0.85}),
        editor(tmp_path, "mend", {"1x64": 0.9, "8x8": None}),
    ]
    about = About("test", "zsRE", Setting("Tiny models."))
    write_after_malmen(CLAIMS, [evidence(*paths)], about, tmp_path / "after_malmen")
    text = (tmp_path / "after_malmen.md").read_text(encoding="utf-8")
    assert text.startswith("# After MALMEN: claims about editing in rounds in the run “test”")
    table = pd.read_csv(tmp_path / "after_malmen.csv", keep_default_na=False).set_index("id")
    assert list(table.index) == [claim.id for claim in read_claims(CLAIMS)]
    for claim in ("frozen_malmen_collapses", "mend_collapses", "memory_of_keys_helps", "memory_of_keys_suffices"):
        assert table["verdict"][claim] == "holds"
    assert table["verdict"]["ultraedit_lasts"] == "not measured in this run"
    numbers = {number.of["id"]: number for number in SourcesFile.read(tmp_path / "after_malmen.sources.json").numbers}
    first = numbers["memory_of_keys_helps"]
    assert set(first.runs) == {path.as_posix() for path in paths[:2]}
    assert first.how.startswith("ahead in src/malmen/figures/rounds_claims.py: ")
