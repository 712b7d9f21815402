"""What an RO-Crate is refused for; crates of whole runs are in tests/workflow."""

from pathlib import Path

import pytest
from checkouts import git

from malmen.audit.planned import PlannedJob
from malmen.errors import UserError
from malmen.sharing.crate import Agent, check_finished, configured_agent, write_crate
from malmen.sharing.entities import given, place


def test_the_agent_is_named_or_gits_user_and_never_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    with pytest.raises(UserError, match="--agent NAME"):
        configured_agent(None, None)
    git(tmp_path, "config", "user.name", "B. Runner")
    assert configured_agent(None, None) == Agent("B. Runner")
    orcid = "https://orcid.org/0000-0002-1825-0097"
    assert configured_agent("A. Tester", orcid) == Agent("A. Tester", orcid)
    with pytest.raises(UserError, match="'0000-0002-1825-0097' is not an ORCID"):
        configured_agent("A. Tester", "0000-0002-1825-0097")


def test_a_run_without_records_has_no_crate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records in results/p; run the workflow first"):
        write_crate("p", Path("config/demo.yaml"), Agent("A. Tester"), tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_ended_has_no_crate() -> None:
    drawn = [f"results/p/figures/figure{number}.pdf" for number in range(3, 9)]
    jobs = [
        PlannedJob(rule="draw", wildcards={}, settings={}, code={}, outputs=tuple(drawn)),
        PlannedJob(rule="train", wildcards={}, settings={}, code={}, outputs=("results/p/models",)),
    ]
    lack = r"run p .* 6 files .*figure3.pdf, .* and 3 more\)"
    with pytest.raises(UserError, match=lack):
        check_finished([], "p", jobs)
    check_finished([], "q", jobs)
    check_finished([], "p", jobs[1:])


def test_files_are_named_by_where_they_lie() -> None:
    assert place("results/p/figures/figure 5.png", False) == "results/p/figures/figure%205.png"
    assert place("results/p/models/gpt2/finetuned", True) == "results/p/models/gpt2/finetuned/"
    assert place("/srv/models/gpt2", True) == "file:///srv/models/gpt2/"


def test_a_single_value_needs_no_list() -> None:
    assert given({"a": [1], "b": [1, 2], "c": None, "d": [], "e": 0}) == {"a": 1, "b": [1, 2], "e": 0}
