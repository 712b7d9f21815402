"""Every source of the paper's data through Snakemake, on small files in the real formats."""

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path

import pytest
import yaml
from tiny_translators import GERMAN, save_translator
from upstream_files import FILES, counterfact, nq_open, publish
from workflow_project import Project, copy_project

from malmen.data.parsing import key
from malmen.data.tuples import SPLITS, EditTuple, read_tuples


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mirror")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Project:
    """A copy of the project that expects the small files, which a mirror holds."""
    copy = copy_project(tmp_path_factory.mktemp("sources"))
    publish(copy.folder, mirror)
    return copy


@pytest.fixture(scope="module")
def served(mirror: Path) -> Iterator[str]:
    """The mirror's root on a web server of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(mirror)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def splits(project: Project, source: str, dataset: str) -> dict[str, list[EditTuple]]:
    folder = project.folder / "data" / source / source / dataset
    return {name: read_tuples(folder / f"{name}.jsonl") for name in SPLITS}


def test_the_authors_files_become_data_sets(project: Project, served: str) -> None:
    data = f"data={{source: authors, mirror: '{served}', split: {{train: 9, tune: 1}}}}"
    run = project.run(f"NO_PROXY=127.0.0.1 snakemake --cores 1 --config run=authors '{data}' -- data")
    assert run.status == 0, run.output
    assert run.jobs == {"download_source": 4, "convert_authors": 3, "data": 1}
    for dataset in ("fever", "zsre"):
        assert [len(items) for items in splits(project, "authors", dataset).values()] == [54, 6, 32]
    assert len(list((project.folder / "data" / "authors" / "authors" / "zsre_alternative").iterdir())) == 6


def test_mends_files_become_data_sets(project: Project, mirror: Path) -> None:
    config = (project.folder / "config" / "test.yaml").read_text(encoding="utf-8")
    (project.folder / "config" / "mend.yaml").write_text(config.replace("dataset: fever", "dataset: zsre"))
    bert = "models={bert: {scratch: {architecture: gpt2}, registry: gpt2}}"
    data = f"data={{source: mend, mirror: '{mirror}', split: {{train: 9, tune: 1}}}}"
    command = "snakemake --cores 1 --configfile config/mend.yaml --config run=mend"
    run = project.run(f"{command} '{data}' '{bert}' -- data")
    assert run.status == 0, run.output
    assert run.jobs == {"download_source": 2, "convert_mend": 2, "data": 1}
    assert [len(items) for items in splits(project, "mend", "zsre").values()] == [54, 6, 32]
    wrong = list(chain(*splits(project, "mend", "zsre_alternative").values()))
    assert wrong and all(item.edit.answer.startswith("Other ") for item in wrong)


def test_real_files_become_data_sets(project: Project, mirror: Path) -> None:
    text = (project.folder / "config" / "test.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(text.replace("dataset: fever", "dataset: counterfact"))
    config["models"]["newer"] = config["models"]["gpt2"] | {"dataset": "wikibigedit", "label": "Newer"}
    (project.folder / "config" / "real.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    bert = "models={bert: {scratch: {architecture: gpt2}, registry: gpt2}}"
    files = "realtext: {zsre_edits: [zsre_knowedit_test, zsre_locft], zsre_unrelated: [nq_efficientqa_dev]}"
    data = f"data={{source: realtext, mirror: '{mirror}', split: {{train: 6, tune: 1, validation: 3}}, {files}}}"
    run = project.run(
        f"snakemake --cores 1 --configfile config/real.yaml --config run=realtext '{data}' '{bert}' -- data"
    )
    assert run.status == 0, run.output
    assert run.jobs == {"download_source": 5, "build_realtext": 4, "data": 1}
    for dataset, tuples in (("zsre", 100), ("counterfact", 80), ("wikibigedit", 80)):
        found = splits(project, "realtext", dataset)
        assert [len(items) for items in found.values()] == pytest.approx(
            [0.6 * tuples, 0.1 * tuples, 0.3 * tuples], abs=3
        )
        subjects = [{item.subject for item in items} for items in found.values()]
        assert sum(map(len, subjects)) == len(set.union(*subjects))


def test_own_files_become_a_data_set(project: Project) -> None:
    facts = [{k: v for k, v in counterfact(i).items() if "locality" not in k} for i in range(60)]
    (project.folder / "mine").mkdir()
    (project.folder / "mine" / "facts.json").write_text(json.dumps([*facts, {"prompt": "Who?"}]), encoding="utf-8")
    (project.folder / "mine" / "nq.jsonl").write_text("".join(json.dumps(nq_open(i)) + "\n" for i in range(30)))
    config = yaml.safe_load((project.folder / "config" / "test.yaml").read_text(encoding="utf-8"))
    config |= {"run": "mine", "figures": {}, "tables": {}}
    config["models"] = {"gpt2": config["models"]["gpt2"] | {"dataset": "own"}}
    files = {"facts": "mine/facts.json", "unrelated": "mine/nq.jsonl", "skip_bad": True}
    config["data"] |= {"source": "files", "files": files}
    (project.folder / "config" / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = "snakemake --cores 1 --configfile config/mine.yaml"
    run = project.run(f"{command} -- data")
    assert run.status == 0, run.output
    assert run.jobs == {"build_own_data": 1, "data": 1}
    folder = project.folder / "data" / "mine" / "files" / "own"
    assert sum(len(read_tuples(folder / f"{name}.jsonl")) for name in SPLITS) == 60
    assert json.loads((folder / "counts.json").read_text())["facts_skipped"] == 1
    records = project.folder / "results" / "mine" / "records"
    (record,) = [json.loads(path.read_text()) for path in records.rglob("*.json") if "own_data" in str(path)]
    read = {item["path"]: item["sha256"] for item in record["inputs"]}
    for name in ("mine/facts.json", "mine/nq.jsonl"):
        assert read[name] == hashlib.sha256((project.folder / name).read_bytes()).hexdigest()
    assert project.plan(f"{command} -n -- data").jobs == {}
    changed = [*facts[1:], {"prompt": "Who?"}]
    (project.folder / "mine" / "facts.json").write_text(json.dumps(changed), encoding="utf-8")
    audit = project.run("malmen audit config/mine.yaml --figures-only")
    assert audit.status == 1 and "mine/facts.json" in audit.output, audit.output
    assert project.plan(f"{command} -n -- data").jobs == {"build_own_data": 1, "data": 1}


def rebuilding(mirror: Path, models: Path, filters: str) -> str:
    """Return the command that rebuilds the data with translation models of a folder."""
    translation = f"{{forward: '{models}/there', backward: '{models}/back', beams: 3, translations: 3, max_tokens: 12}}"
    files = "zsre_train: [kilt_zsre_train], zsre_unrelated: [nq_open_dev]"
    rebuild = f"{{{files}, translation: {translation}, parts: 1, filter: {filters}}}"
    data = f"{{source: rebuild, mirror: '{mirror}', split: {{train: 6, tune: 2, validation: 3}}, rebuild: {rebuild}}}"
    return f"snakemake data --cores 1 --config run=rebuild 'data={data}'"


def test_data_are_rebuilt_of_kilt(project: Project, mirror: Path, tmp_path: Path) -> None:
    english = [record["input"].replace(" [SEP]", "") for name in FILES if "kilt" in name for record in FILES[name]]
    save_translator(tmp_path / "there", english, GERMAN)
    save_translator(tmp_path / "back", GERMAN, english, seed=1)
    command = rebuilding(mirror, tmp_path, "{fever: bert}")
    run = project.run(command)
    assert run.status == 0, run.output
    assert run.jobs == {
        "download_source": 5,
        "select_originals": 2,
        "list_finetuning_data": 3,
        "pretrain_model": 1,
        "finetune_model": 1,
        "back_translate": 2,
        "filter_rephrasings": 1,
        "choose_alternatives": 1,
        "pair_tuples": 3,
        "data": 1,
    }
    for dataset in ("fever", "zsre", "zsre_alternative"):
        check_rebuilt(project, dataset)
    # What is there stays: a part that is lost, a filter that is added, and what depends on them, is all that is made.
    for lost in ("steps/zsre/translated/0-of-1.jsonl", "zsre/train.jsonl"):
        (project.folder / "data/rebuild/rebuild" / lost).unlink()
    plan = project.plan(f"{rebuilding(mirror, tmp_path, '{fever: bert, zsre: gpt2_alternative}')} -n")
    assert plan.jobs == {"back_translate": 1, "pretrain_model": 1, "filter_rephrasings": 1, "pair_tuples": 2, "data": 1}


def check_rebuilt(project: Project, dataset: str) -> None:
    """Check a rebuilt data set, and that its report accounts for every prompt."""
    found = splits(project, "rebuild", dataset)
    items = list(chain(*found.values()))
    folder = project.folder / "data" / "rebuild" / "rebuild" / dataset
    counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    steps = {step["step"]: step for step in counts["steps"]}
    assert len(items) == steps["pair"]["kept"] > 0
    assert steps["pair"]["read"] == steps["select"]["kept"] == 60
    assert steps["back-translate"]["read"] == 9 * steps["select"]["kept"]
    assert ("filter" in steps) == (dataset == "fever") and ("choose alternatives" in steps) == ("alt" in dataset)
    rephrasings = steps["filter" if dataset == "fever" else "back-translate"]["kept"]
    assert rephrasings >= sum(len(item.equivalent) for item in items) >= len(items)
    assert (folder / "counts.md").read_text(encoding="utf-8").count("\n") == 2 + len(steps)
    unrelated = {key(item.unrelated.prompt) for item in items}
    assert unrelated.isdisjoint(key(prompt) for item in items for prompt in (item.edit.prompt, *item.equivalent))
    if dataset == "fever":
        assert steps["filter"]["read"] == steps["back-translate"]["kept"]
        assert {item.id for item in found["validation"]} <= {f"fever-{70000 + i}" for i in range(38, 60)}
