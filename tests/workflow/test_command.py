import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from snakemake.cli import get_argument_parser

from malmen.workflow.command import MARKS, configurations, is_running, marked, separate_targets

GPU = {"gpu": 1}
CONFIG = Path("config/test.yaml")

CASES = [
    # typed, passed on, what Snakemake's parser makes of it
    ("--cores 1 --resources gpu=1 all", "--cores 1 --resources gpu=1 -- all", {"targets": {"all"}, "resources": GPU}),
    ("--res gpu=1 all", "--res gpu=1 -- all", {"targets": {"all"}, "resources": GPU}),
    (
        "--resources gpu=1 all --cores 2 -n",
        "--resources gpu=1 --cores 2 -n -- all",
        {"targets": {"all"}, "resources": GPU, "cores": 2, "dryrun": True},
    ),
    (
        "--resources gpu=1 mem_mb=5 figures tables",
        "--resources gpu=1 mem_mb=5 -- figures tables",
        {"targets": {"figures", "tables"}, "resources": {"gpu": 1, "mem_mb": 5}},
    ),
    (
        "--configfile config/test.yaml figures --resources gpu=1 tables",
        "--configfile config/test.yaml --resources gpu=1 -- figures tables",
        {"targets": {"figures", "tables"}, "configfile": [CONFIG], "resources": GPU},
    ),
    (
        "--configfiles a.yml config/test.yaml all",
        "--configfiles a.yml config/test.yaml -- all",
        {"targets": {"all"}, "configfile": [Path("a.yml"), CONFIG]},
    ),
    ("--config seed=3 all", "--config seed=3 -- all", {"targets": {"all"}, "config": ["seed=3"]}),
    ("-C seed=3 results/m=8/a.csv", "-C seed=3 -- results/m=8/a.csv", {"targets": {"results/m=8/a.csv"}}),
    ("--set-threads train=2 all", "--set-threads train=2 -- all", {"targets": {"all"}, "set_threads": {"train": 2}}),
    ("--default-resources all", "--default-resources -- all", {"targets": {"all"}}),
    (
        "--resources gpu=1 all -- figures",
        "--resources gpu=1 -- all figures",
        {"targets": {"all", "figures"}, "resources": GPU},
    ),
    ("", "", {"targets": set()}),
    ("-n", "-n", {"targets": set(), "dryrun": True}),
    ("--cores 1 all", "--cores 1 all", {"targets": {"all"}, "cores": 1}),
    ("--resources=gpu=1 all", "--resources=gpu=1 all", {"targets": {"all"}, "resources": GPU}),
    ("all --resources gpu=1", "all --resources gpu=1", {"targets": {"all"}, "resources": GPU}),
    ("--resources gpu=1 -- all", "--resources gpu=1 -- all", {"targets": {"all"}, "resources": GPU}),
    ("--resources gpu=1 --cores 1 all", "--resources gpu=1 --cores 1 all", {"targets": {"all"}, "resources": GPU}),
    ("--until train evaluate", "--until train evaluate", {"targets": set(), "until": {"train", "evaluate"}}),
]


@pytest.mark.parametrize(("typed", "passed", "expected"), CASES, ids=[case[0] for case in CASES])
def test_targets_are_told_from_values(typed: str, passed: str, expected: dict[str, object]) -> None:
    arguments = separate_targets(typed.split())
    parsed = vars(get_argument_parser().parse_args(arguments))
    assert arguments == passed.split()
    for name, value in expected.items():
        assert (set(parsed[name]) if isinstance(value, set) else parsed[name]) == value


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ("--configfile a.yaml b.yml --cores 1 -- all", ["a.yaml", "b.yml"]),
        ("all --configfiles=a.yaml -n", ["a.yaml"]),
        ("--config seed=3 --configfile a.json", ["a.json"]),
        ("-n all", ["config/demo.yaml"]),
    ],
)
def test_configurations_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passed: str, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert configurations(["-n"]) == []
    Path("config").mkdir()
    Path("config/demo.yaml").touch()
    assert configurations(passed.split()) == [Path(name) for name in expected]


def test_installed_command_runs_as_typed(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(
        "rule all:\n"
        '    output: "done.txt"\n'
        "    resources: gpu=1\n"
        '    params: word=config["word"]\n'
        '    shell: "echo {params.word} {resources.gpu} > {output}"\n'
    )
    command = Path(sys.executable).with_name("snakemake")
    arguments = "--cores 1 --config word=hello --resources gpu=1 all"
    run = subprocess.run([command, *arguments.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "done.txt").read_text() == "hello 1\n"


def test_what_to_do_about_another_machines_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Snakefile").touch()
    MARKS.mkdir(parents=True)
    (MARKS / "elsewhere process 7").write_text("0.0")
    with marked():
        pass
    mark = tmp_path.resolve() / MARKS / "elsewhere process 7"
    said = f"; if it is gone from there, run rm '{mark}' and then snakemake --unlock.\n"
    assert capsys.readouterr().err == f"Another snakemake is at work here (elsewhere process 7){said}"
    assert mark.exists()


def test_a_mark_of_another_machine_or_of_this_process_is_alive(tmp_path: Path) -> None:
    own = psutil.Process()
    for name, begun, alive in (
        (f"{socket.gethostname()} process {own.pid}", own.create_time(), True),
        (f"{socket.gethostname()} process {own.pid}", own.create_time() - 5, False),
        (f"{socket.gethostname()} process {2**22 + 1}", 0.0, False),
        ("elsewhere process 7", 0.0, True),
    ):
        (tmp_path / name).write_text(str(begun))
        assert is_running(tmp_path / name) == alive
