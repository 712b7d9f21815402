import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_lock_holds_exact_versions_that_the_project_allows() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    assert [str(wanted) for wanted in declared if canonicalize_name(wanted.name) not in pins] == []
    assert [str(wanted) for wanted in declared if pins[canonicalize_name(wanted.name)] not in wanted.specifier] == []


def test_tests_that_share_a_run_stay_in_one_process(request: pytest.FixtureRequest) -> None:
    if "workerinput" not in vars(request.config) or not request.config.getoption("loadgroup"):
        pytest.skip("pytest runs in one process")
    assert request.node.nodeid.endswith("@test_requirements.py")  # which pytest-xdist sends its groups by
