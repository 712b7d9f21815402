"""Each measurement on numbers for which a claim holds, and on numbers for which it does not."""

import inspect
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cost_files import cost, priced
from memory_files import write_memory_file
from metrics_files import diverged, group, ok, write_metrics

from malmen.errors import UserError
from malmen.figures.claims import MEASUREMENTS
from malmen.figures.compute import PricedEditor
from malmen.figures.evidence import Evidence, Finding, Verdict
from malmen.figures.measurements import measure
from malmen.figures.setting import Setting
from malmen.figures.summary import About, collect, read_claims, write_summary

CLAIMS = Path(__file__).parents[2] / "data" / "published" / "claims.yaml"
VARIANTS = {"sum_of_shifts": "mend", "no_regularisation": "loose"}


def evidence(
    folder: Path, *paths: Path, costs: list[PricedEditor] | None = None, memory: Path | None = None
) -> Evidence:
    """Return the evidence of gpt2."""
    (found,) = collect(paths, costs or [priced(folder, "none", None, [])], [memory] if memory else [], VARIANTS)
    return found


def curve(folder: Path, editor: str, **values: Any) -> Path:
    """Write the metrics of an editor: ``m16=0.9`` sets ES, GS and LS, None a diverged run."""
    runs = [diverged(int(m[1:])) if v is None else ok(int(m[1:]), group(v)) for m, v in values.items()]
    return write_metrics(folder, *runs, editor=editor)


def found(item: Evidence, measurement: str, **arguments: Any) -> Finding:
    finding = measure(item, measurement, arguments)
    assert finding is not None
    return finding


PAIR = {"editor": "malmen", "baseline": "mend"}


@pytest.mark.parametrize(
    ("ours", "theirs", "at_least", "verdict", "times"),
    [
        ({"m1": 0.9, "m16": 0.8, "m128": 0.3}, {"m1": 0.7, "m16": 0.1}, 10, "holds", "16 times"),
        ({"m1": 0.9, "m16": 0.8, "m128": 0.3}, {"m1": 0.7, "m16": 0.4}, 100, "does not hold", "16 times"),
        ({"m1": 0.9, "m16": 0.8, "m128": 0.7}, {"m1": 0.7}, 100, "holds", "128 times"),
        ({"m1": 0.9, "m16": 0.8}, {"m1": 0.7}, 100, "not testable", "16 times"),
        # Above the baseline again after having been below does not count.
        ({"m1": 0.9, "m16": 0.3, "m128": 0.8}, {"m1": 0.7}, 100, "does not hold", "at no larger m"),
        ({"m1": 0.9, "m16": None, "m128": 0.8}, {"m1": 0.7}, 100, "does not hold", "at no larger m"),
        ({"m1": 0.1}, {"m1": 0.7}, 10, "does not hold", "throughout"),
        ({"m2": 0.9, "m8": 0.75, "m64": 0.7}, {"m2": 0.95, "m8": 0.6, "m16": 0.1}, 8, "holds", "8 times"),
    ],
)
def test_edits_ratio(
    tmp_path: Path, ours: dict[str, Any], theirs: dict[str, Any], at_least: float, verdict: str, times: str
) -> None:
    item = evidence(tmp_path, curve(tmp_path, "malmen", **ours), curve(tmp_path, "mend", **theirs))
    finding = found(item, "edits_ratio", **PAIR, at_least=at_least)
    assert finding.verdict == verdict
    assert times in finding.measured


def test_the_largest_m_of_both_counts_where_neither_diverged(tmp_path: Path) -> None:
    malmen = curve(tmp_path, "malmen", m2=0.1, m8=0.9, m64=0.9, m128=0.2)
    item = evidence(tmp_path, malmen, curve(tmp_path, "mend", m2=0.5, m8=0.5, m64=None))
    above = found(item, "above_at_largest", editor="malmen", others=["mend"])
    assert above == Finding("MALMEN 90.0 %, MEND 50.0 % at m = 8", "holds")
    assert found(item, "above_at_largest", editor="mend", others=["malmen"]).verdict == "does not hold"


@pytest.mark.parametrize(("ft", "verdict"), [(0.79, "holds"), (0.8, "does not hold"), (0.81, "does not hold")])
def test_an_editor_is_above_if_it_is_above_each_of_the_others(tmp_path: Path, ft: float, verdict: Verdict) -> None:
    curves = {"malmen": {"m8": 0.5, "m64": 0.8}, "mend": {"m8": 0.9, "m64": 0.2}, "ft": {"m8": 0.1, "m64": ft}}
    paths = [curve(tmp_path, editor, **values) for editor, values in curves.items()]
    item = evidence(tmp_path, *paths)
    arguments = {"editor": "malmen", "others": ["ft", "mend", "memit"]}
    text = f"MALMEN 80.0 %, FT {100 * ft:.1f} %, MEND 20.0 % at m = 64"
    assert found(item, "above_at_largest", **arguments) == Finding(text, verdict)
    assert {origin.file for origin in item.sources("above_at_largest", arguments)} == set(paths)


def test_each_of_the_others_counts_at_its_own_largest_m(tmp_path: Path) -> None:
    others = [curve(tmp_path, "mend", m8=0.6, m64=None), curve(tmp_path, "ft", m8=0.1, m64=0.7)]
    item = evidence(tmp_path, curve(tmp_path, "malmen", m8=0.5, m64=0.8), *others)
    text = "MALMEN 80.0 %, FT 70.0 % at m = 64; MALMEN 50.0 %, MEND 60.0 % at m = 8"
    finding = found(item, "above_at_largest", editor="malmen", others=["ft", "mend"])
    assert finding == Finding(text, "does not hold")


def test_scores_are_means_over_metrics_and_seeds(tmp_path: Path) -> None:
    paths = [
        write_metrics(tmp_path, ok(8, group(0.9, LS=0.3), group(0.9, LS=0.3)), seed=0),
        write_metrics(tmp_path, ok(8, group(0.5, LS=0.5)), seed=1),
    ]
    assert evidence(tmp_path, *paths).scores("malmen").to_dict() == pytest.approx({8: (0.7 + 0.5) / 2})


def test_falls_faster(tmp_path: Path) -> None:
    item = evidence(tmp_path, curve(tmp_path, "malmen", m2=0.9, m8=0.8), curve(tmp_path, "mend", m2=0.9, m8=0.5))
    arguments = {"editor": "mend", "baseline": "malmen"}
    text = "from m = 2 to 8: MEND -40.0 points, MALMEN -10.0 points"
    assert found(item, "falls_faster", **arguments) == Finding(text, "holds")
    assert found(item, "falls_faster", **PAIR).verdict == "does not hold"
    rising = evidence(tmp_path, curve(tmp_path, "malmen", m2=0.5, m8=0.8), curve(tmp_path, "mend", m2=0.5, m8=0.6))
    assert found(rising, "falls_faster", **arguments).verdict == "does not hold"


@pytest.mark.parametrize(("lowest", "verdict"), [(0.89, "holds"), (0.85, "does not hold"), (0.95, "holds")])
def test_gap_to_lead(tmp_path: Path, lowest: float, verdict: str) -> None:
    paths = [curve(tmp_path, "malmen", m2=0.9, m8=lowest), curve(tmp_path, "ft", m2=0.9, m8=0.9)]
    arguments = {"others": ["ft", "mend"], "metric": "LS", "at_most": 0.02}
    finding = found(evidence(tmp_path, *paths), "gap_to_lead", editor="malmen", **arguments)
    assert finding.verdict == verdict
    assert ("leads" in finding.measured) == (lowest == 0.95)


@pytest.mark.parametrize(("value", "verdict"), [(None, "holds"), (0.79, "holds"), (0.81, "does not hold")])
def test_worse_or_diverged_through_the_name_of_a_variant(tmp_path: Path, value: float | None, verdict: str) -> None:
    item = evidence(tmp_path, curve(tmp_path, "loose", m8=value), curve(tmp_path, "malmen", m8=0.9, m64=0.9))
    arguments = {"editor": "no_regularisation", "baseline": "malmen", "at_least": 0.1}
    finding = found(item, "worse_or_diverged", **arguments)
    assert finding.verdict == verdict
    assert ("all seeds diverged at m = 8" in finding.measured) == (value is None)


@pytest.mark.parametrize(
    ("at_least", "seconds", "verdict", "change"),
    [
        (0.389, 60, "holds", "40.0 % less time"),
        (0.389, 70, "does not hold", "30.0 % less time"),
        (0, 99, "holds", "1.0 % less time"),
        (0, 101, "does not hold", "1.0 % more time"),
        (0, 730, "does not hold", "7.3 times as much time"),
    ],
)
def test_time_saved(tmp_path: Path, at_least: float, seconds: float, verdict: str, change: str) -> None:
    costs = [
        priced(tmp_path, "malmen", [cost(8, 0, 1), cost(64, 0, seconds - 1)], [cost(8, 0, 1), cost(64, 0, 1)]),
        priced(tmp_path, "mend", None, [cost(8, 0, 1), cost(64, 0, 100)]),
    ]
    paths = [curve(tmp_path, "malmen", m64=0.9), curve(tmp_path, "mend", m64=0.9)]
    finding = found(evidence(tmp_path, *paths, costs=costs), "time_saved", **PAIR, at_least=at_least)
    assert finding.verdict == verdict
    assert f"MALMEN {seconds} s, MEND 100 s at m = 64: {change}" in finding.measured


def test_residuals(tmp_path: Path) -> None:
    paths = [
        write_metrics(tmp_path, ok(2, group(residual=0.01)), ok(8, group(residual=0.02)), editor="malmen"),
        write_metrics(tmp_path, ok(2, group(residual=1.0)), ok(8, group(residual=0.5)), editor="mend"),
    ]
    item = evidence(tmp_path, *paths)
    arguments = {"editor": "malmen", "baseline": "sum_of_shifts"}
    ratio = found(item, "residual_ratio", **arguments, at_least=50)
    assert ratio == Finding("50 times smaller (25 to 100 over m; 1.7 orders)", ratio.verdict)
    assert found(item, "residual_ratio", **arguments, at_least=49).verdict == "holds"
    assert found(item, "residual_ratio", **arguments, at_least=51).verdict == "does not hold"
    assert found(item, "residual_grows", **arguments).verdict == "does not hold"


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ({32: 400, 128: 420}, {32: 400, 128: 480}, "holds"),
        ({32: 400, 128: 421}, {32: 400, 128: 480}, "does not hold"),
        ({32: 400, 128: 400}, {32: 400, 128: 400}, "does not hold"),
        ({32: 400, 128: 900}, {32: 900, 128: None}, "holds"),
        ({32: 400, 128: 900, 256: None}, {32: 400, 128: 900, 256: None}, "does not hold"),
    ],
)
def test_memory_growth(tmp_path: Path, ours: dict[int, int], theirs: dict[int, int], verdict: str) -> None:
    memory = write_memory_file(tmp_path / "m.json", ours, theirs, limit=1000)
    item = evidence(tmp_path, curve(tmp_path, "malmen", m2=0.9), memory=memory)
    assert found(item, "memory_growth", at_most=0.25).verdict == verdict


def test_memory_is_told_in_the_units_of_tables(tmp_path: Path) -> None:
    memory = write_memory_file(tmp_path / "m.json", {8: 400, 64: 420}, {8: 512, 64: 2048})
    finding = found(evidence(tmp_path, curve(tmp_path, "malmen", m2=0.9), memory=memory), "memory_growth", at_most=0.25)
    assert finding.measured == "from m = 8 to 64: MALMEN 400 MiB to 420 MiB, MEND-style 512 MiB to 2.00 GiB"


def test_without_data_nothing_is_found(tmp_path: Path) -> None:
    item = evidence(tmp_path, curve(tmp_path, "malmen", m2=0.9))
    claims = read_claims(CLAIMS)
    assert [claim.id for claim in claims if measure(item, claim.measurement, claim.arguments)] == []


def test_the_papers_claims_name_measurements_with_their_arguments() -> None:
    claims = read_claims(CLAIMS)
    assert len({claim.id for claim in claims}) == len(claims) == 15
    for claim in claims:
        parameters = list(inspect.signature(MEASUREMENTS[claim.measurement]).parameters)[1:]
        assert sorted(parameters) == sorted(claim.arguments), claim.id
    assert {claim.measurement for claim in claims} == set(MEASUREMENTS)


def test_the_page_lists_every_claim(tmp_path: Path) -> None:
    paths = [curve(tmp_path, "malmen", m2=0.9, m64=0.8), curve(tmp_path, "mend", m2=0.9, m64=0.2)]
    about = About("test", "zsRE", Setting("Tiny models."), {"Figure 4": "figures/figure4.png"})
    write_summary(CLAIMS, [evidence(tmp_path, *paths)], about, tmp_path / "summary")
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    heading, _, counts, *_ = text.splitlines()
    assert heading == "# The paper's claims in the run “test”"
    assert counts.startswith("**4 hold, 0 do not, 2 are not testable.")
    assert "**Tiny models.** Data: zsRE." in text and "[Figure 4](figures/figure4.png)" in text
    tested, _, others = text.partition("## Not testable in this run")
    assert "## Tested in this run" in tested and "not testable**" not in tested and "**holds**" not in others
    assert "| MALMEN 80.0 %, MEND 20.0 % at m = 64 | **holds** |" in text
    table = pd.read_csv(tmp_path / "summary.csv").set_index("id")
    assert list(dict.fromkeys(table.index)) == [claim.id for claim in read_claims(CLAIMS)]
    assert table.loc["strongest_scalability", "verdict"] == "holds"
    assert table.loc["above_memit", "verdict"] == "not measured in this run"
    assert "not measured in this run" in (tmp_path / "summary.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("change", [("measurement: edits_ratio", "measurement: no_such"), ("claim:", "claims:")])
def test_malformed_claims_are_named(tmp_path: Path, change: tuple[str, str]) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(CLAIMS.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    with pytest.raises(UserError, match=r"claims\.yaml cannot be read"):
        read_claims(path)
