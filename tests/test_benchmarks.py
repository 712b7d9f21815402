"""What waits for a GPU runs on a CPU at least, and the page shows the stored results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def output_of(script: str, *arguments: str) -> str:
    """Run a benchmark with plain Python, and return what it printed."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_gptj_in_small() -> None:
    small = ("--device", "cpu", "--n-edits", "8", "--steps", "1", "--blocks", "7", "--width", "64")
    result = json.loads("{" + output_of("gptj.py", *small).partition("{")[2])
    whole, seconds = result["extrapolated"], result["seconds"]
    assert whole["steps"] == 14 * 16_384 // 8
    edit = sum(seconds[part] for part in ("keys and value gradients", "shifts", "addition"))
    expected = seconds["step 0"] + (whole["steps"] - 1) * seconds["step 1"] + edit
    assert whole["hours"] == pytest.approx(expected / 3600)
    # Not below 1 on a processor without bfloat16, where small products can be faster than the large ones of the peak.
    share = result["floor"]["floor seconds"] / seconds["step 1"]
    assert 0 < result["floor"]["share of the floor"] == pytest.approx(share)
    assert result["at once"]["sequences"].keys() == {
        "keys and value gradients",
        "generalisation loss",
        "locality loss",
    }


def test_the_page_shows_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import page  # noqa: PLC0415

    text = (page.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for marker, table in page.TABLES.items():
        assert page.put(text, marker, table()) == text, marker
