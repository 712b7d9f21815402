"""The order in which jobs run on one GPU: those of Figure 4's small model before those of Figure 7's large one.

The jobs are stand-ins that only make their outputs; the rules, their costs and the order are the paper's.
"""

from pathlib import Path

import yaml
from workflow_project import copy_project

STAND_IN = """from pathlib import Path
for output in map(Path, snakemake.output):
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("") if output.suffix or "raw" in output.parts else output.mkdir()
if snakemake.resources.get("gpu"):
    with open("on_gpu.txt", "a") as file:
        print(snakemake.rule, snakemake.wildcards.model, file=file)
"""


def test_on_one_gpu_the_small_models_figure_is_made_first(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    for script in (project.folder / "workflow" / "scripts").glob("*.py"):
        script.write_text(STAND_IN, encoding="utf-8")
    path = project.folder / "config" / "paper.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    models = {name: raw["models"][name] | {"n_edits": [64, 512]} for name in ("gptj", "bert")}
    figures = {f"figure{i}": raw["figures"][f"figure{i}"] | {"editors": ["malmen"]} for i in (7, 4)}
    reduced = {**raw, "seeds": [0], "models": models, "figures": figures, "tables": {}, "check_machine": False}
    path.write_text(yaml.safe_dump(reduced, sort_keys=False), encoding="utf-8")
    command = "snakemake --cores 4 --resources gpu=1 --configfile config/paper.yaml --"
    fetched = " ".join(f"results/paper/models/{model}/fetched" for model in models)
    assert project.run(f"{command} data {fetched}").status == 0
    assert not (project.folder / "on_gpu.txt").exists()
    run = project.run(f"{command} figures")
    assert run.status == 0, run.output
    ran = [line.split() for line in (project.folder / "on_gpu.txt").read_text(encoding="utf-8").splitlines()]
    assert [model for _, model in ran] == ["bert"] * 5 + ["gptj"] * 4
    assert [rule for rule, _ in ran if rule != "train_editor"] == ["finetune_model"] + ["evaluate_editor"] * 4
    drawn = [line for line in run.output.splitlines() if ": Drawing " in line]
    assert "figure4" in drawn[0] and "figure7" in drawn[1]
