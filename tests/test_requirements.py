"""What the project needs: packages, their bounds and exact versions, and the files that its commands name."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
NEVER_IMPORTED = {"dvc", "protobuf", "pygments", "sentencepiece"}
"""Run as a command, or imported by transformers and Snakemake, which do not require them."""


def test_lock_holds_exact_versions_that_the_project_allows() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(pins) == len(lines)
    declared = [*NEEDED, *(Requirement(text) for text in PROJECT["optional-dependencies"]["dev"])]
    assert [str(wanted) for wanted in declared if canonicalize_name(wanted.name) not in pins] == []
    assert [str(wanted) for wanted in declared if pins[canonicalize_name(wanted.name)] not in wanted.specifier] == []


def test_the_project_requires_what_it_imports_and_nothing_else() -> None:
    modules = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.partition(".")[0])
    # pydantic requires the one version of pydantic_core that fits it.
    modules -= {*sys.stdlib_module_names, "malmen", "pydantic_core"}
    owners = packages_distributions()
    imported = {canonicalize_name(owners[module][0]) for module in modules}
    assert imported | NEVER_IMPORTED == {canonicalize_name(wanted.name) for wanted in NEEDED}


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile", ".ci/run", ".ci/versions"])
def test_the_files_and_tests_that_a_command_names_exist(file: str) -> None:
    places = r"\.ci|benchmarks|config|docs|tests|tools|workflow"
    named = re.findall(rf"(?<![\w./-])((?:{places})/[\w./-]*\w)(?:::(\w+))?", (ROOT / file).read_text(encoding="utf-8"))
    assert named
    assert [path for path, _ in named if not (ROOT / path).exists()] == []
    assert [name for path, name in named if name and f"def {name}(" not in (ROOT / path).read_text()] == []


def test_the_image_is_made_from_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (python,) = re.findall(r"^FROM python:([\d.]+)-slim$", text, re.MULTILINE)
    assert python in SpecifierSet(PROJECT["requires-python"])
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied and [name for name in copied if not (ROOT / name).exists()] == []
    (extras,) = re.findall(r"--editable '\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_tests_that_share_a_run_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    if "workerinput" not in vars(request.config) or not request.config.getoption("loadgroup"):
        pytest.skip("pytest runs in one process")
    assert request.node.nodeid.endswith("@test_requirements.py")  # which pytest-xdist sends its groups by
