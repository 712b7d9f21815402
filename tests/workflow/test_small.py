"""``config/small.yaml`` without a network: real text from a mirror, and local directories in place of the hub's models.

It is run as it is but for its size: half of the claims, one seed, one m, two meta-steps, one editor; the models are
small stand-ins.
"""

import json
import os
import re
import resource
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from stand_ins import WRITERS
from workflow_project import Project, Run, copy_project

from malmen.models.identity import weights_digest

MIRROR = os.environ.get("MALMEN_MIRROR")
CLAIMS = "fever.ai/download/fever/paper_dev.jsonl"
pytestmark = pytest.mark.skipif(not MIRROR, reason="MALMEN_MIRROR is not set")


def write_models(folder: Path) -> dict[str, Path]:
    """Write a stand-in for each model, with a tokenizer trained on some of the mirror's claims."""
    claims = (Path(MIRROR or "") / CLAIMS).read_text(encoding="utf-8").splitlines()[:1000]
    lines = [json.loads(line)["claim"] for line in claims]
    directories = {name: folder / name for name in WRITERS}
    for name, write in WRITERS.items():
        write(directories[name], lines)
    return directories


def reduced(raw: dict[str, Any], directories: dict[str, Path]) -> dict[str, Any]:
    """Return the configuration at a smaller size, with local directories for models."""
    small: dict[str, Any] = {**raw, "device": "cpu", "seeds": [0], "evaluation": {"max_groups": 1}}
    small["editors"]["malmen"] |= {"hypernetwork": {"rank": 8}, "training": {"min_steps": 2, "max_steps": 2}}
    for name, model in small["models"].items():
        model |= {"pretrained": str(directories[name]), "n_edits": [16], "sha256": weights_digest(directories[name])}
    small["models"]["bert"]["base_finetuning"] |= {"epochs": 1, "batch_size": 256}
    small["data"]["realtext"] = {"fever_edits": ["fever_paper_dev"]}
    small["figures"] = {
        name: {**raw["figures"][name], "editors": ["malmen"]} for name in ("figure4", "figure5", "figure6")
    }
    return {key: value for key, value in small.items() if not key.startswith("table")}


def run_offline(project: Project, command: str) -> Run:
    """Run a command to which every host is unreachable."""
    nowhere = "http://127.0.0.1:9"
    offline = {"HF_HUB_OFFLINE": "1", "http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": ""}
    return project.run(" ".join([*(f"{key}={value}" for key, value in offline.items()), command]))


def test_without_a_network_and_with_local_models(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    project = copy_project(tmp_path / "project")
    path = project.folder / "config" / "small.yaml"
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(reduced(raw, write_models(tmp_path / "models"))), encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = run_offline(project, "snakemake --cores 1 --configfile config/small.yaml -- figures")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.status == 0, run.output
    assert run.jobs == {
        "download_source": 5,
        "build_realtext": 2,
        "finetune_model": 1,
        "train_editor": 3,
        "evaluate_editor": 3,
        "draw_scaling": 3,
        "figures": 1,
    }
    for name, model in (("figure4", "bert"), ("figure5", "gpt2"), ("figure6", "t5")):
        table = pd.read_csv(project.folder / "results" / "small" / "figures" / f"{name}.csv")
        assert set(table["model"]) == {model} and set(table["n_edits"]) == {16}
        assert table["value"].between(0, 1).all() and {"ES", "GS", "LS"} <= set(table["metric"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120


def test_the_hubs_models_need_a_revision(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    run = run_offline(project, "snakemake --cores 1 --configfile config/small.yaml -- results/small/models/t5/fetched")
    assert run.status == 1
    assert "Error: models.t5.revision " in run.output and "google/t5-small-ssm-nq" in run.output


def test_a_machine_that_cannot_hold_a_job_refuses_it_before_any_starts(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho 1000\n", encoding="utf-8")
    smi.chmod(0o755)
    command = f"PATH={smi.parent}:$PATH snakemake --cores 1 --configfile config/small.yaml"
    target, source = "results/small/memory/figure9.cost.json", "data/raw/fever2_fixers_dev"
    assert project.run(f"{command} -n -- {target}").status == 0
    run = project.run(f"{command} -- {target} {source}")
    assert run.status == 1 and not (project.folder / source).exists()
    assert len(re.findall(r"This machine cannot hold the run 'small': .* GPU memory.* 1\.0\b", run.output)) == 1
    assert "Traceback" not in run.output
    assert project.run(f"{command} -- {source}").status == 0  # data need no GPU
    assert (project.folder / source).exists()
