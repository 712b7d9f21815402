"""``config/small.yaml`` without a network: real text from a mirror, models from a server that speaks as the hub does.

It is run as it is but for its size: half of the claims, one seed, one m, two meta-steps, one editor; the models are
small stand-ins, in the layouts of real repositories.
"""

import json
import os
import re
import resource
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from hub_server import Repository, serving
from safetensors.torch import load_file
from stand_ins import WRITERS
from transformers import GPT2LMHeadModel
from workflow_project import Project, Run, copy_project

from malmen.models.identity import weights_digest
from malmen.runtime.files import sha256

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


def publish(raw: dict[str, Any], directories: dict[str, Path]) -> dict[str, list[Repository]]:
    """Change models of the configuration to those of a hub with such repositories; return the repositories.

    BERT stays a local directory. GPT-2 has shards, a second copy of the weights, and the pull request of a conversion
    service with safetensors; T5 has a pickle alone.
    """
    bert, gpt2, t5 = (raw["models"][name] for name in ("bert", "gpt2", "t5"))
    bert |= {"pretrained": str(directories["bert"]), "sha256": weights_digest(directories["bert"])}

    whole = directories["gpt2"]
    pulled = whole.with_name("gpt2-pulled")
    GPT2LMHeadModel.from_pretrained(whole).save_pretrained(pulled, max_shard_size="200KB")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(whole / name, pulled / name)
    gpt2 |= {"pretrained": "distilgpt2", "revision": "b" * 40, "sha256": weights_digest(pulled)}
    (whole / "model.safetensors").rename(pulled / "consolidated.safetensors")
    torch.save(load_file(pulled / "consolidated.safetensors"), whole / "pytorch_model.bin")

    weights = directories["t5"] / "pytorch_model.bin"
    torch.save(load_file(directories["t5"] / "model.safetensors"), weights)
    (directories["t5"] / "model.safetensors").unlink()
    pickle = {"file": weights.name, "bytes": weights.stat().st_size, "sha256": sha256(weights)}
    t5 |= {"pretrained": "lab/t5", "revision": "c" * 40, "pickle": pickle}
    return {
        "distilgpt2": [Repository.of(whole, "a" * 40), Repository.of(pulled, "b" * 40, ("refs/pr/2",))],
        "lab/t5": [Repository.of(directories["t5"], "c" * 40)],
    }


def reduced(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration at a smaller size."""
    small: dict[str, Any] = {**raw, "device": "cpu", "seeds": [0], "evaluation": {"max_groups": 1}}
    small["editors"]["malmen"] |= {"hypernetwork": {"rank": 8}, "training": {"min_steps": 2, "max_steps": 2}}
    for model in small["models"].values():
        model["n_edits"] = [16]
    small["models"]["bert"]["base_finetuning"] |= {"epochs": 1, "batch_size": 256}
    small["data"]["realtext"] = {"fever_edits": ["fever_paper_dev"]}
    small["figures"] = {
        name: {**raw["figures"][name], "editors": ["malmen"]} for name in ("figure4", "figure5", "figure6")
    }
    return {key: value for key, value in small.items() if not key.startswith("table")}


def run_with_hub(project: Project, endpoint: str, command: str) -> Run:
    """Run a command that reaches no other host than a hub."""
    nowhere = "http://127.0.0.1:9"
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": "cache", "http_proxy": nowhere, "https_proxy": nowhere}
    kept = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    return project.run(" ".join([*(f"{key}={value}" for key, value in {**own, **kept}.items()), command]))


def test_from_the_hub_to_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    project = copy_project(tmp_path / "project")
    path = project.folder / "config" / "small.yaml"
    raw = reduced(yaml.safe_load(path.read_text(encoding="utf-8")))
    repositories = publish(raw, write_models(tmp_path / "models"))
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with serving(repositories) as hub:
        run = run_with_hub(project, hub.endpoint, "snakemake --cores 1 --configfile config/small.yaml -- figures")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.status == 0, run.output
    assert run.jobs == {
        "download_source": 5,
        "build_realtext": 2,
        "fetch_model": 2,
        "finetune_model": 1,
        "train_editor": 3,
        "evaluate_editor": 3,
        "draw_scaling": 3,
        "figures": 1,
    }
    assert len(re.findall(r"The model (?:distilgpt2|lab/t5) at \w{40}: .* to fetch, 00:01 at 50 MB/s", run.output)) == 2
    assert {name for name in hub.sent() if "safetensors" in name or "bin" in name} == {
        "model.safetensors.index.json",
        *(name for name in repositories["distilgpt2"][1].files if name.startswith("model-")),
        "pytorch_model.bin",
    }
    check_converted(project, raw["models"]["t5"]["pickle"]["sha256"])
    for name, model in (("figure4", "bert"), ("figure5", "gpt2"), ("figure6", "t5")):
        table = pd.read_csv(project.folder / "results" / "small" / "figures" / f"{name}.csv")
        assert set(table["model"]) == {model} and set(table["n_edits"]) == {16}
        assert table["value"].between(0, 1).all() and {"ES", "GS", "LS"} <= set(table["metric"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 120


def check_converted(project: Project, digest: str) -> None:
    """The pickle's digest and that of the safetensors are beside the model, and in the record."""
    model = project.folder / "results" / "small" / "models" / "t5" / "fetched"
    assert not list(model.glob("*.bin"))
    source = json.loads((model / "source.json").read_text(encoding="utf-8"))
    assert source["pickle_sha256"] == digest and source["weights_sha256"] == weights_digest(model)
    (record,) = (
        found
        for path in (project.folder / "results" / "small" / "records").rglob("*.json")
        if "pickle" in (found := json.loads(path.read_text(encoding="utf-8"))).get("settings", {})
        and found["settings"]["pickle"] is not None
    )
    assert record["settings"]["pickle"]["sha256"] == digest
    assert record["model"]["weights"] == source["weights_sha256"] and record["model"]["revision"] == "c" * 40


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
