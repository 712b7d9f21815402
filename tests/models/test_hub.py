"""Fetching from a server that speaks the hub's protocol: what is fetched, recorded, said and refused."""

import hashlib
import json
import logging
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hub_server import COMMIT, Hub, Repository, ask, serving
from safetensors.torch import load_file, save

from malmen.errors import UserError
from malmen.models.hub import fetch_model
from malmen.models.pickled import PickledWeights
from malmen.models.transfer import ProgressLines

OLDER = "f" * 8 + COMMIT[8:]
SURROUNDINGS = {
    "config.json": b'{"model_type": "gpt2"}',
    "vocab.json": b'{"a": 0, "b": 1, "<|endoftext|>": 2}',
    "merges.txt": b"#version: 0.2\n",
    "chat_template.jinja": b"{{ messages }}",
}
WHOLE = save({"weight": torch.arange(512.0)})
OTHER = save({"bias": torch.arange(8.0)})
FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = json.dumps({"weight_map": {"weight": FIRST, "bias": SECOND}})
UNWANTED = {
    "model.fp16.safetensors": save({"weight": torch.arange(512.0).half()}),
    "consolidated.safetensors": WHOLE,
    "pytorch_model.bin": b"pickled",
    "tf_model.h5": b"other",
    "modeling.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
    "original/model.safetensors": WHOLE,
}
FILES = {**SURROUNDINGS, "model.safetensors": WHOLE, **UNWANTED}
SHARDED = {
    **SURROUNDINGS,
    "model.safetensors.index.json": INDEX.encode(),
    FIRST: WHOLE,
    SECOND: OTHER,
    **UNWANTED,
}
DIGEST = hashlib.sha256(WHOLE).hexdigest()
MOVING = ("main", "v1.0", "refs/pr/4")


def pickled(tensors: Any, folder: Path) -> bytes:
    """Return the bytes of a pickle as torch writes it."""
    torch.save(tensors, folder / "pickle")
    return (folder / "pickle").read_bytes()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    content = pickled({"weight": torch.arange(512.0)}, tmp_path_factory.mktemp("bin"))
    bin_only = {**SURROUNDINGS, "pytorch_model.bin": content}
    repositories: dict[str, Repository | list[Repository]] = {
        "lab/model": Repository(FILES, moving=MOVING),
        "lab/sharded": Repository(SHARDED),
        "lab/pickled": Repository(bin_only),
        "lab/proposed": [
            Repository(bin_only, OLDER, ("main",)),
            Repository({**bin_only, "model.safetensors": WHOLE}, COMMIT, ("refs/pr/2",)),
        ],
        "lab/half": Repository({**SURROUNDINGS, "model.fp16.safetensors": UNWANTED["model.fp16.safetensors"]}),
        "lab/speechless": Repository({"config.json": FILES["config.json"], "model.safetensors": WHOLE}),
        "lab/gated": Repository(FILES, gated=True),
        "lab/broken": Repository(FILES, cut=True),
        "lab/huge": Repository(FILES, sizes={"model.safetensors": 10**15}),
    }
    with serving(repositories) as server:
        yield server


@pytest.fixture(autouse=True)
def asked(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.requests.clear()
    ask(monkeypatch, hub, tmp_path / "cache")


def refused(folder: Path, hub_id: str, revision: str = COMMIT, **more: Any) -> str:
    """Return the sentence that a fetch ends with, which leaves neither a model nor half of one."""
    with pytest.raises(UserError) as raised:
        fetch_model(hub_id, revision, folder / "model", **more)
    assert {path.name for path in folder.iterdir()} <= {"cache"}
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def source(folder: Path) -> dict[str, str]:
    record: dict[str, str] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    return record


def test_one_copy_of_the_weights_is_fetched(hub: Hub, tmp_path: Path) -> None:
    fetch_model("lab/model", COMMIT, tmp_path / "model", DIGEST)
    wanted = {*SURROUNDINGS, "model.safetensors"}
    assert names(tmp_path / "model") == {*wanted, "source.json"}
    assert hub.sent() == wanted
    assert source(tmp_path / "model") == {"model": "lab/model", "revision": COMMIT, "weights_sha256": DIGEST}
    for name in wanted:
        assert (tmp_path / "model" / name).read_bytes() == FILES[name]
        assert not (tmp_path / "model" / name).is_symlink()


def test_of_several_files_those_of_the_index_are_fetched(hub: Hub, tmp_path: Path) -> None:
    fetch_model("lab/sharded", COMMIT, tmp_path / "model")
    assert names(tmp_path / "model") == {*SHARDED, "source.json"} - set(UNWANTED)
    assert hub.sent() == set(SHARDED) - set(UNWANTED)


def test_a_commit_of_a_pull_request_has_safetensors(hub: Hub, tmp_path: Path) -> None:
    assert "no safetensors" in refused(tmp_path, "lab/proposed", OLDER)
    fetch_model("lab/proposed", COMMIT, tmp_path / "model", DIGEST)
    assert names(tmp_path / "model") == {*SURROUNDINGS, "model.safetensors", "source.json"}
    assert "pytorch_model.bin" not in hub.sent()


def test_what_is_fetched_is_said_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="malmen")
    fetch_model("lab/model", COMMIT, tmp_path / "model")
    (said,) = [line for line in caplog.messages if "to fetch" in line]
    assert said == f"The model lab/model at {COMMIT}: 0.0 MB to fetch, 00:01 at 50 MB/s"
    (digest,) = [line for line in caplog.messages if DIGEST in line]
    assert "none was known" in digest
    caplog.clear()
    fetch_model("lab/model", COMMIT, tmp_path / "again", DIGEST)
    assert not [line for line in caplog.messages if "to fetch" in line or "none was known" in line]


def test_progress_is_said_in_lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, logger="malmen")
    monkeypatch.setattr(ProgressLines, "every_seconds", 0.0)
    library = import_module("huggingface_hub.utils.tqdm")  # its package has a class of this name
    monkeypatch.setattr(library, "are_progress_bars_disabled", lambda *_: False)
    for name, unit in (("bytes", "B"), ("bytes.transfer", "B"), ("files", "it")):
        bar = ProgressLines(total=4_000_000_000, unit=unit, name=name, mininterval=0.0)
        bar.update(1_000_000_000)
        bar.refresh()
        bar.close()
    said = {line.split(",")[0] for line in caplog.messages}
    assert said == {"Fetching: 0.0 MB of 4.0 GB", "Fetching: 1.0 GB of 4.0 GB"}
    assert caplog.messages[-1].endswith(" left")


def test_a_full_disk_is_told_before_the_fetch(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = refused(tmp_path, "lab/huge")
    assert "needs 1000000.0 GB on the disk of" in sentence and "HF_HOME" in sentence
    assert "model.safetensors" not in hub.sent()
    total, used, _ = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=total, used=used, free=3000))
    assert "which has 0.0 MB left" in refused(tmp_path, "lab/model")


def test_what_is_in_the_cache_needs_no_network(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hub_id in ("lab/model", "lab/sharded"):
        fetch_model(hub_id, COMMIT, tmp_path / "first" / hub_id)
    seen = len(hub.requests)
    ask(monkeypatch, None, tmp_path / "cache")
    for hub_id in ("lab/model", "lab/sharded"):
        fetch_model(hub_id, COMMIT, tmp_path / "second" / hub_id)
        assert names(tmp_path / "second" / hub_id) == names(tmp_path / "first" / hub_id)
    assert len(hub.requests) == seen


@pytest.mark.parametrize("moving", [*MOVING, COMMIT[:8]])
def test_a_revision_that_can_move_is_recorded_as_its_commit(
    tmp_path: Path, moving: str, caplog: pytest.LogCaptureFixture
) -> None:
    fetch_model("lab/model", moving, tmp_path / "model")
    (warning,) = [line for line in caplog.messages if repr(moving) in line]
    assert COMMIT in warning
    assert source(tmp_path / "model")["revision"] == COMMIT


def test_without_network_a_revision_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache remembers the commit of a branch or tag that other programs downloaded by its name."""
    fetch_model("lab/model", COMMIT, tmp_path / "first")
    references = tmp_path / "cache" / "models--lab--model" / "refs"
    references.mkdir(exist_ok=True)
    (references / "main").write_text(COMMIT)
    ask(monkeypatch, None, tmp_path / "cache")
    for revision in ("main", COMMIT[:8]):
        fetch_model("lab/model", revision, tmp_path / revision)
        assert source(tmp_path / revision)["revision"] == COMMIT
    with pytest.raises(UserError, match=r"lab/model at v1\.0 cannot be fetched.*HF_HUB_OFFLINE"):
        fetch_model("lab/model", "v1.0", tmp_path / "none")


def test_without_network_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, None, tmp_path / "cache")
    sentence = refused(tmp_path, "lab/model")
    assert f"lab/model at {COMMIT} cannot be fetched" in sentence and "HF_HUB_OFFLINE" in sentence


@pytest.mark.parametrize(
    ("hub_id", "revision", "part"),
    [
        ("lab/missing", COMMIT, "The hub has no model lab/missing"),
        ("/lab/model/of/a/directory", COMMIT, "The hub has no model /lab/model"),
        ("lab/model", "e" * 40, f"no revision {'e' * 40}"),
        ("lab/gated", COMMIT, "accept its terms"),
        ("lab/model", "v2.0", "no revision v2.0"),
        ("lab/pickled", COMMIT, "no safetensors"),
        ("lab/half", COMMIT, "no safetensors"),
        ("lab/speechless", COMMIT, "has no tokenizer"),
        ("lab/broken", COMMIT, "cannot be fetched"),
    ],
)
def test_what_the_hub_does_not_have(tmp_path: Path, hub_id: str, revision: str, part: str) -> None:
    assert part in refused(tmp_path, hub_id, revision)


def test_other_weights_than_those_asked_for(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "lab/model", sha256="0" * 64)
    assert f"The weights of lab/model at {COMMIT} have SHA-256 {DIGEST}" in sentence and "0" * 64 in sentence


# Pickles


def known(content: bytes, **changes: Any) -> PickledWeights:
    """Return what a configuration knows of a pickle."""
    found = PickledWeights("pytorch_model.bin", len(content), hashlib.sha256(content).hexdigest(), "bfloat16")
    return replace(found, **changes)


def test_a_pickle_becomes_safetensors(tmp_path: Path) -> None:
    content = pickled({"weight": torch.arange(512.0)}, beside(tmp_path))
    fetch_model("lab/pickled", COMMIT, tmp_path / "model", pickle=known(content))
    assert names(tmp_path / "model") == {*SURROUNDINGS, "model.safetensors", "source.json"}
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert source(tmp_path / "model") == {
        "model": "lab/pickled",
        "revision": COMMIT,
        "pickle_sha256": hashlib.sha256(content).hexdigest(),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    assert torch.equal(tensors["weight"], torch.arange(512.0).bfloat16())


def beside(tmp_path: Path) -> Path:
    """Return a folder beside the one whose content a test looks at."""
    folder = tmp_path.with_name(f"{tmp_path.name}-pickles")
    folder.mkdir(exist_ok=True)
    return folder


def test_another_file_than_the_known_one_is_not_opened(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pickled({"weight": torch.arange(512.0)}, beside(tmp_path))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("the pickle was opened"))
    assert "0" * 64 in refused(tmp_path, "lab/pickled", pickle=known(content, sha256="0" * 64))
    hub.requests.clear()
    size = refused(tmp_path, "lab/model", pickle=known(content))
    assert "pytorch_model.bin of lab/model" in size and "7 bytes" in size and f"{len(content):,}" in size
    assert "pytorch_model.bin" not in hub.sent()  # its size was enough
    assert "has no file other.bin" in refused(tmp_path, "lab/pickled", pickle=known(content, file="other.bin"))
