"""What waits for a GPU runs on a CPU at least, and the page shows the stored results."""

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def output_of(script: str, *arguments: str) -> str:
    """Run a benchmark with plain Python, and return what it printed."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_gptj_in_small(tmp_path: Path) -> None:
    small = ("--device", "cpu", "--n-edits", "8", "--steps", "1", "--blocks", "7", "--width", "64")
    result = json.loads("{" + output_of("gptj.py", *small, "--out", str(tmp_path)).partition("{")[2])
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


def test_the_comparison_of_devices_makes_its_models(tmp_path: Path) -> None:
    output_of(
        "device_agreement.py", "--devices", "cpu", "--small", "--n-edits", "4", "--steps", "2", "--out", str(tmp_path)
    )
    result = json.loads((tmp_path / "small_device_agreement.json").read_text(encoding="utf-8"))
    assert result["metrics"].keys() == {"bert", "gpt2"} and "partial" not in result
    assert all(0 <= value <= 1 for of in result["metrics"].values() for value in of["cpu"].values())


def test_each_plain_computation_takes_the_usual_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import paths  # noqa: PLC0415

    def losses(way: paths.Way) -> list[float]:
        steps = paths.Steps(4, {"n_embd": 48, "n_head": 2, "n_layer": 6}, way)
        with way():
            step = steps.trainer.step(steps.group)
        return [step.generalisation, step.locality, step.gradient_norm]

    expected = losses(nullcontext)
    for name, way in paths.PLAIN_WAYS.items():
        assert losses(way) == pytest.approx(expected, rel=1e-2, abs=1e-5), name


def test_the_page_shows_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import page  # noqa: PLC0415

    text = (page.ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    for marker, table in page.TABLES.items():
        assert page.put(text, marker, table()) == text, marker


def test_the_operations_of_ranks_add_up_to_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import floor  # noqa: PLC0415
    import traffic  # noqa: PLC0415

    for step in traffic.steps():
        parts = floor.language_model(step.shape, step.m)[0] | floor.editor(step.shape, step.m)[0]
        assert step.operations(1) == pytest.approx(sum(parts.values()))
        assert not any(step.sent(1).values())
        solving = 3 * step.operations(3) - step.operations(1)  # six layers on three ranks: two each
        assert solving == pytest.approx(0, abs=1e-6 * step.operations(1))
        assert 4 * step.operations(4) - step.operations(1) == pytest.approx(2 * step.solution)  # two ranks own one


def test_a_link_carries_the_matrices_of_six_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import traffic  # noqa: PLC0415

    few, many = traffic.Step("gpt2", 64).sent(2), traffic.Step("gpt2", 4096).sent(2)
    n, d_in, d_out = 3 * 64, 3072, 768
    assert list(few.values())[:3] == [
        4 * 6 * n * (d_in + d_out) / 2,  # K and D of the other rank
        4 * 6 * n * d_out,  # K dL/dS
        4 * 6 * (d_in * d_out + n * d_out),  # S and P
    ]
    assert list(many.values())[:3] == [0, 4 * 6 * (d_in**2 + 2 * d_in * d_out), 4 * 6 * 2 * d_in * d_out]
    assert few["the hyper-network's gradient"] == many["the hyper-network's gradient"] == 4 * 2 * 2 * 3840 * 1920


def test_two_ranks_in_small(tmp_path: Path) -> None:
    small = ("--blocks", "7", "--width", "64", "--n-edits", "3", "--steps", "1", "--turns", "1")
    output_of("parallel.py", *small, "--out", str(tmp_path))
    result = json.loads((tmp_path / "small_parallel_cpu_m3.json").read_text(encoding="utf-8"))
    one, two = result["measured"]
    assert "partial" not in result
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert two["training step"]["speed-up"] == pytest.approx(
        one["training step"]["seconds"] / two["training step"]["seconds"]
    )
    assert two["difference"]["untrained"] < 1e-5
    assert two["difference"]["trained"] < 1e-4


PYTHON = """#!/bin/sh
# Stands for Python: no part measures anything, compare.py fails, and gptj.py takes too long to end by itself.
case "$1 $2" in
"-c import torch"*) echo 1 ;;
*/reporting.py*) shift && ls "$@" 2>/dev/null || true ;;
*) echo "$*" >>"$CALLS"
    case $1 in
    */compare.py) exit 3 ;;
    */gptj.py) exec sleep 30 ;;
    */device_agreement.py) echo '{}' >"$RESULTS/device_agreement.json" ;;
    */memory.py) echo '{}' >"$RESULTS/memory_gpt2_cuda.json" ;;
    */memit.py) echo '{}' >"$RESULTS/memit_cuda.json" ;;
    esac ;;
esac
"""


def test_the_script_for_a_gpu_goes_on_and_resumes(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    script = tmp_path / "benchmarks" / "on_a_gpu.sh"
    script.parent.mkdir()
    text = (BENCHMARKS / "on_a_gpu.sh").read_text(encoding="utf-8")
    script.write_text(text.replace('part "$3" 240', 'part "$3" 1'), encoding="utf-8")
    calls, results, out = tmp_path / "calls", tmp_path / "results", tmp_path / "out"
    places = {"PYTHON": python, "CALLS": calls, "RESULTS": results, "OUT": out, "PATH": os.environ["PATH"]}

    def run() -> tuple[list[str], str]:
        calls.write_text("", encoding="utf-8")
        environment = {name: str(place) for name, place in places.items()}
        done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        lines = calls.read_text(encoding="utf-8").splitlines()
        return [Path(line.split()[0]).name for line in lines], done.stdout

    parts, said = run()
    assert parts == ["device_agreement.py", "compare.py", "gptj.py", "memory.py", "memit.py"]
    assert "compare_cuda_m4096: FAILED with exit status 3" in said
    assert "gptj_cuda: cut off after 1 s" in said
    assert "parallel_cuda_m4096: left out, there is one GPU only" in said
    assert {path.name for path in out.glob("*.json")} == {path.name for path in results.iterdir()}
    parts, said = run()
    assert parts == ["compare.py", "gptj.py"]
    assert "memit_cuda: was there" in said


def test_a_result_of_other_code_or_half_of_one_does_not_stand_for_a_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import reporting  # noqa: PLC0415

    path = tmp_path / "part.json"
    assert not reporting.is_done(path)
    reporting.write("part", {}, tmp_path, partial=True)
    assert not reporting.is_done(path)
    reporting.write("part", {}, tmp_path)
    assert reporting.is_done(path)
    monkeypatch.setattr(reporting, "code", lambda: "another")
    assert not reporting.is_done(path)


@pytest.mark.slow
def test_all_parts_for_a_gpu_run_in_small_without_snakemake(tmp_path: Path) -> None:
    absent = tmp_path / "absent" / "snakemake.py"
    absent.parent.mkdir()
    absent.write_text("raise ImportError('plain Python')", encoding="utf-8")
    places = {"PYTHON": sys.executable, "RESULTS": str(tmp_path), "PYTHONPATH": str(absent.parent)}
    subprocess.run(["bash", BENCHMARKS / "on_a_gpu.sh", "--small"], env={**os.environ, **places}, check=True)
    assert len(list(tmp_path.glob("small_*.json"))) == 6
