"""How jobs get GPUs: on one, those of Figure 4's small model run before those of Figure 7's large one.

The jobs are stand-ins that only make their outputs; the rules, their costs and the order are the paper's.
"""

from pathlib import Path

import yaml
from workflow_project import Project, copy_project

STAND_IN = """from pathlib import Path
for output in map(Path, snakemake.output):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("") if output.suffix or "raw" in output.parts else output.mkdir()
if snakemake.resources.get("gpu"):
    with open("on_gpu.txt", "a") as file:
        given = snakemake.threads, snakemake.resources.gpu, snakemake.resources.nodes
        ranks = snakemake.params.machine.get("ranks", 1)
        print(snakemake.rule, snakemake.wildcards.model, *given, ranks, file=file)
"""
FIGURE_4 = "results/paper/figures/figure4.pdf"


def project_of(tmp_path: Path, **of_bert: object) -> Project:
    """A copy of the project whose jobs are stand-ins, and whose paper has small grids of two models."""
    project = copy_project(tmp_path)
    for script in (project.folder / "workflow" / "scripts").glob("*.py"):
        script.write_text(STAND_IN, encoding="utf-8")
    path = project.folder / "config" / "paper.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    models = {name: raw["models"][name] | {"n_edits": [64, 512]} for name in ("gptj", "bert")}
    figures = {f"figure{i}": raw["figures"][f"figure{i}"] | {"editors": ["malmen"]} for i in (7, 4)}
    models["bert"] |= of_bert
    reduced = {**raw, "seeds": [0], "models": models, "figures": figures, "tables": {}, "check_machine": False}
    path.write_text(yaml.safe_dump(reduced, sort_keys=False), encoding="utf-8")
    return project


def given(project: Project) -> list[list[str]]:
    """What jobs were given that asked for a GPU, in their order."""
    return [line.split() for line in (project.folder / "on_gpu.txt").read_text(encoding="utf-8").splitlines()]


def test_on_one_gpu_the_small_models_figure_is_made_first(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    command = "snakemake --cores 4 --resources gpu=1 --configfile config/paper.yaml --"
    fetched = " ".join(f"results/paper/models/{model}/fetched" for model in ("gptj", "bert"))
    assert project.run(f"{command} data {fetched}").status == 0
    assert not (project.folder / "on_gpu.txt").exists()
    run = project.run(f"{command} figures")
    assert run.status == 0, run.output
    ran = given(project)
    assert [model for _, model, *_ in ran] == ["bert"] * 5 + ["gptj"] * 4
    assert [rule for rule, *_ in ran if rule != "train_editor"] == ["finetune_model"] + ["evaluate_editor"] * 4
    drawn = [line for line in run.output.splitlines() if ": Drawing " in line]
    assert "figure4" in drawn[0] and "figure7" in drawn[1]


def test_a_job_is_given_all_its_gpus_or_the_run_is_refused(tmp_path: Path) -> None:
    project = project_of(tmp_path, gpus=4)
    command = "snakemake --cores 8 --resources gpu={} --configfile config/paper.yaml -- " + FIGURE_4
    refused = project.run(command.format(1))
    sentence = "_editor (malmen on bert at m = 64) takes 4 GPUs, but jobs are given 1; add --resources gpu=4."
    assert refused.status != 0 and sentence in refused.output, refused.output
    assert not (project.folder / "on_gpu.txt").exists()
    run = project.run(command.format(4))
    assert run.status == 0, run.output
    shared = ["4", "4", "1", "4"]  # threads, GPUs, nodes, ranks
    expected = {"finetune_model": ["1"] * 4, "train_editor": shared, "evaluate_editor": shared}
    assert {rule: numbers for rule, _, *numbers in given(project)} == expected
