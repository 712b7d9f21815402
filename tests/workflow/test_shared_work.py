"""The cache of a grid in the workflow: what it changes, and what its limit, its removal and its return do not."""

import shutil
from collections import Counter

import pytest
import yaml
from workflow_project import Finished, Project

METRICS = "results/test/metrics/validation/gpt2/malmen/m16_seed0.json"


@pytest.fixture(scope="module")
def cached(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the finished run in which one run was made anew with a cache."""
    project = Project(tmp_path_factory.mktemp("cached") / "project")
    shutil.copytree(finished.folder, project.folder)
    configure(project, min_runs=1)
    run = project.run(f"snakemake --cores 1 -- {METRICS}")
    assert run.status == 0, run.output
    assert run.jobs == {"cache_base_outputs": 2, "train_editor": 1, "evaluate_editor": 1}
    return project


def configure(project: Project, **cache: float) -> None:
    config = project.config()
    config["cache"] = cache
    (project.folder / "config" / "demo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def planned(project: Project, *targets: str) -> Counter[str]:
    return project.plan(f"snakemake -n --cores 1 -- {' '.join(targets)}").jobs


def test_a_higher_limit_makes_nothing_again(cached: Project) -> None:
    configure(cached, min_runs=1, max_gb=1.0)
    assert not planned(cached, METRICS)


def test_a_cache_that_was_deleted_is_not_missed_and_comes_back_alone(cached: Project) -> None:
    folder = cached.path("cache", "gpt2")
    shutil.move(folder, folder.with_name("away"))
    try:
        assert not planned(cached, METRICS)
        assert set(planned(cached, "caches")) == {"cache_base_outputs", "caches"}
    finally:
        shutil.move(folder.with_name("away"), folder)


def test_a_cache_that_is_out_of_date_is_made_first_and_nothing_is_left_out(cached: Project) -> None:
    config = cached.config()
    config["evaluation"]["max_groups"] = 1  # fewer tuples are measured, and cached
    (cached.folder / "config" / "demo.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert "run `snakemake caches` first" in cached.run(f"snakemake -n -- {METRICS}").output
    run = cached.run(f"snakemake --cores 1 -- {METRICS}")
    assert run.status == 1
    assert "run `snakemake caches` first" in run.output
    validation = "results/test/cache/gpt2/malmen/validation"
    assert cached.run(f"snakemake --cores 1 -- {validation}").status == 0
    assert planned(cached, METRICS) == {"evaluate_editor": 1}


def test_a_cache_above_the_limit_is_refused_before_it_is_made(cached: Project) -> None:
    configure(cached, min_runs=1, max_gb=1.0e-9)
    run = cached.run("snakemake --cores 1 -- results/test/cache/bert/malmen/train")
    assert run.status == 1
    assert "cache.max_gb (1e-09)" in run.output
    assert not cached.path("cache", "bert", "malmen", "train").exists()
