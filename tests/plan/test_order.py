"""The order of figures and tables, by hand and for the paper's grid, and that Snakemake has the same."""

from pathlib import Path

import pytest

from malmen.audit.planned import Step, resolved, step
from malmen.config.load import load_file
from malmen.plan.estimate import Estimate, Known, Time
from malmen.plan.jobs import CostedJob, Total, plan
from malmen.plan.order import in_order, needed_by, priorities

ROOT = Path(__file__).parents[2]
PAPER = ROOT / "config" / "paper.yaml"


def job(rule: str, inputs: str, outputs: str, hours: float | None = None) -> CostedJob:
    """A job that reads and makes files, named in a row, and takes one to two times so long."""
    step = Step(rule=rule, wildcards={}, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()))
    return CostedJob(step, Estimate(time=Time(hours, 2 * hours) if hours else None))


JOBS = [
    job("fetch", "", "data"),
    job("train_small", "data", "small", 2),
    job("train_large", "data", "large large.cost", 9),
    job("compare", "small large", "comparison", 1),
    job("ablate", "small", "ablation", 3),
    job("count", "data", "counts", 4),
    job("draw_large", "large", "results/figures/figure1.pdf results/figures/figure1.png"),
    job("draw_small", "small published", "results/figures/figure2.pdf"),
    job("draw_both", "comparison", "results/figures/figure3.pdf"),
    job("write_ablation", "ablation", "results/tables/table1.md"),
    job("write_counts", "counts", "results/tables/table2.md"),
    job("write_compute", "large.cost", "results/tables/compute.md"),
    job("write_index", "results/figures/figure1.png", "results/index.html"),
    job("publish", "results/index.html", ""),
]


def test_a_job_needs_all_that_leads_to_it() -> None:
    made_by = {output: job for job in JOBS for output in job.job.outputs}
    assert set(needed_by(JOBS[7], made_by)) == {"draw_small", "train_small", "fetch"}


def test_what_is_nearest_comes_first_and_shared_work_counts_once() -> None:
    targets = in_order(JOBS)
    # Alone, table2 (4 hours) would come before table1 (5), of which 2 hours are over by then.
    assert [target.name for target in targets] == ["figure2", "table1", "table2", "figure1", "figure3"]
    assert [target.there_after.low for target in targets] == [2, 5, 9, 18, 19]
    assert [target.there_after.high for target in targets] == [4, 10, 18, 36, 38]
    assert [len(target.with_model) for target in targets] == [1, 2, 1, 1, 3]


def test_a_job_has_the_priority_of_the_first_that_needs_it() -> None:
    found = priorities(JOBS)
    assert (found["fetch"], found["train_small"], found["draw_small"]) == (5, 5, 5)
    assert (found["ablate"], found["count"], found["train_large"], found["compare"], found["draw_both"]) == (
        4,
        3,
        2,
        1,
        1,
    )
    assert not {"write_compute", "write_index", "publish"} & set(found)


def test_without_figures_there_is_no_order() -> None:
    assert in_order(JOBS[:3]) == [] and priorities(JOBS[:3]) == {}


@pytest.fixture(scope="module")
def jobs() -> list[CostedJob]:
    """The paper's."""
    return plan(PAPER, Known(load_file(PAPER)))


def test_the_papers_small_models_come_first_and_all_is_done_in_the_end(jobs: list[CostedJob]) -> None:
    targets = in_order(jobs)
    places = {target.name: place for place, target in enumerate(targets)}
    assert places["figure4"] < places["figure5"] < places["figure6"] < places["figure7"]
    whole = Total.of(jobs).time
    assert whole and targets[-1].there_after.low == pytest.approx(whole.low)
    assert [target.there_after.high for target in targets] == sorted(target.there_after.high for target in targets)


def test_snakemake_has_these_priorities(jobs: list[CostedJob]) -> None:
    expected = priorities(jobs)
    with resolved(PAPER, ROOT, {"run": "never_run"}) as named:
        pending = [job for job in named if job.rule.script and job.dag.needrun(job)]
        found = {step(job).name: job.rule.expand_priority(job.wildcards_dict, job.input, 1) for job in pending}
    assert len(found) >= len(jobs) - 4  # data may have been downloaded
    assert found == {name: expected.get(name, 0) for name in found}
    needed = {target.name: {job.job.name for job in target.jobs} & set(found) for target in in_order(jobs)}
    small, large = needed["figure4"], needed["figure7"] - needed["figure4"]
    assert min(found[name] for name in small) > max(found[name] for name in large if "gptj" in name)
