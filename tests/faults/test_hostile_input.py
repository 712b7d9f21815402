"""Nothing that is read can run code, leave its folder, or reach a shell."""

import ast
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from reliability import record
from tiny_models import save_model, tiny_model

from malmen.config.architectures import layer_names_of, shape_of
from malmen.config.load import load
from malmen.config.upstream_files import UpstreamFile, upstream_files
from malmen.data.download import Retries, download, mirror_places
from malmen.errors import UserError
from malmen.models.hub import SURROUNDINGS, UNWANTED
from malmen.models.identity import weights_digest
from malmen.models.load import load_model
from malmen.own_facts.model import usual_task

ROOT = Path(__file__).parents[2]


class Poison:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def poison(path: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps(Poison(trace)))


def poisoned() -> None:
    injected = "in place of a model's weights, and beside them under five names"
    record("a pickle that runs code", injected, 1, "never loaded; a model of pickles alone is refused in one sentence")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A tiny GPT-2 as an ordinary directory."""
    return save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))


def test_the_poison_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Poison(tmp_path / "trace")))
    assert (tmp_path / "trace").is_dir()


def test_a_model_that_has_pickled_weights_only_is_refused(directory: Path, tmp_path: Path) -> None:
    (directory / "model.safetensors").unlink()
    poison(directory / "pytorch_model.bin", tmp_path / "trace")
    with pytest.raises(UserError, match="safetensors"):
        load_model(directory, "question_answering")
    with pytest.raises(UserError, match="pytorch_model"):
        weights_digest(directory)
    assert not (tmp_path / "trace").exists()
    poisoned()


def test_a_pickle_beside_safetensors_is_not_touched(directory: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pkl", "tokenizer.pkl"):
        poison(directory / name, tmp_path / "trace")
    load_model(directory, "question_answering")
    assert not (tmp_path / "trace").exists()
    poisoned()


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_in_a_models_directory_is_not_run(name: str, directory: Path, tmp_path: Path) -> None:
    (directory / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'trace')!r})\nclass Evil: pass\n")
    content = json.loads((directory / name).read_text())
    classes = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    content["auto_map"] = dict.fromkeys(classes, "evil.Evil") | {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    (directory / name).write_text(json.dumps(content))
    load_model(directory, "question_answering")
    assert not (tmp_path / "trace").exists()
    record("code in a model directory", "`auto_map` of its configurations names a module beside them", 1, "ignored")


@pytest.mark.parametrize(
    "ending", ["bin", "pt", "pth", "ckpt", "pkl", "h5", "msgpack", "py", "so", "sh", "zip", "tar.gz"]
)
def test_neither_pickles_nor_code_nor_archives_are_fetched(ending: str) -> None:
    assert any(fnmatch("config.json", pattern) for pattern in SURROUNDINGS)
    assert not any(fnmatch(f"model.{ending}", pattern) for pattern in SURROUNDINGS)
    assert any(fnmatch(f"folder/model.{ending}", pattern) for pattern in UNWANTED)
    record("pickles, code and archives of the hub", "files with twelve endings", 1, "not fetched")


def calls() -> Iterator[tuple[Path, ast.Call]]:
    """Yield all calls in the package and the workflow's scripts."""
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]:
        yield from ((path, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


UNPACKING = {"src/malmen/models/pickled.py", "src/malmen/models/package.py"}
"""The modules that open pickles and archives, of a digest that is known beforehand: each has tests of its own."""


def imports() -> set[str]:
    """Return all modules that the package and the workflow's scripts import, other than those that unpack."""
    found: set[str] = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]:
        if str(path.relative_to(ROOT)) in UNPACKING:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module}
    return found


def searched() -> None:
    happened = "none; models are loaded without remote code only"
    record("own code that unpickles, unpacks, or calls a shell", "every import and call was checked", 1, happened)


def test_nothing_that_unpickles_or_unpacks_is_used() -> None:
    used = {name.split(".")[0] for name in imports()}
    assert "json" in used
    assert not used & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "tarfile", "zipfile", "py7zr"}
    names = {ast.unparse(call.func) for path, call in calls() if str(path.relative_to(ROOT)) not in UNPACKING}
    forbidden = {"torch.load", "torch.save", "eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
    assert "yaml.safe_load" in names
    assert not names & (
        forbidden | {"shutil.unpack_archive", "pooch.Untar", "pooch.Unzip", "np.load", "pd.read_pickle"}
    )
    searched()


def test_no_text_reaches_a_shell() -> None:
    for path, call in calls():
        shell = [keyword for keyword in call.keywords if keyword.arg == "shell"]
        assert not shell, f"{path}: {ast.unparse(call)}"
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        assert "shell:" not in path.read_text(), path
    searched()


def test_every_model_is_loaded_without_remote_code() -> None:
    loads = [(path, call) for path, call in calls() if ast.unparse(call.func).endswith(".from_pretrained")]
    assert len(loads) >= 3
    for path, call in loads:
        assert "trust_remote_code=False" in ast.unparse(call), f"{path}: {ast.unparse(call)}"
    searched()


def elsewhere() -> None:
    record("URLs and mirrors other than http(s)", "`file:`, `ftp:`, `data:`, `ssh:`, `s3:`, no host", 1, "refused")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/file", "data:text/plain,a", "/etc/passwd", "https://"]
)
def test_urls_are_http_or_https(url: str) -> None:
    with pytest.raises(ValueError):
        UpstreamFile("x", (url,), "0" * 64, "CC0")
    elsewhere()


@pytest.mark.parametrize("mirror", ["file:///etc", "ftp://host", "ssh://host/a", "s3://bucket"])
def test_mirrors_are_folders_or_http(mirror: str) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        mirror_places(next(iter(upstream_files().values())), mirror)
    elsewhere()


def test_every_download_has_a_checksum() -> None:
    assert all(source.checksum for source in upstream_files().values())


@pytest.mark.parametrize("checksum", [{"sha256": "0" * 64}, {"sha256": None, "git_blob": "0" * 40}])
def test_a_mirror_that_holds_something_else_is_not_trusted(
    checksum: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    source = UpstreamFile("x", ("http://127.0.0.1:9/x",), **checksum, licence="CC0")
    place = tmp_path / "mirror" / "127.0.0.1:9" / "x"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(UserError, match="wrong checksum"):
        download(source, tmp_path / "raw" / "x", str(tmp_path / "mirror"), Retries(tries=1))
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [".x.lock"]
    record(
        "a mirror with another file",
        "its SHA-256, or git's id, is not the one published",
        1,
        "refused; the message says so",
    )


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "a;b", "$(a)", "`a`", "a\n", "-a", "", "{a}", "é", "a\0"])
def test_names_of_a_configuration_are_safe_as_names_of_files(name: str) -> None:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "test.yaml").read_text(encoding="utf-8"))
    load(raw)
    other_run = raw | {"run": name}
    other_model = raw | {"models": raw["models"] | {name: raw["models"]["bert"] | {"label": "other"}}}
    other_editor = raw | {"editors": raw["editors"] | {name: {"based_on": "malmen"}}}
    for changed in (other_run, other_model, other_editor):
        with pytest.raises(UserError):
            load(changed)
    injected = "of runs, models and editors: `../up`, `a;b`, `$(a)`, `-a`, NUL, ..."
    record("names that could leave a folder or reach a shell", injected, 1, "refused in one sentence")


BROKEN: list[tuple[str, bytes]] = [
    ("config.json", b""),
    ("config.json", b"[]"),
    ("config.json", b"null"),
    ("config.json", b'{"model_type": "gpt2", "n_head": 0}'),
    ("config.json", b'{"model_type": "gpt2", "n_layer": "three"}'),
    ("config.json", b'{"model_type": "gpt2", "n_embd": [16]}'),
    ("config.json", b'{"model_type": "gpt2", "vocab_size": null}'),
    ("config.json", b'{"model_type": ["gpt2"]}'),
    ("config.json", b'{"model_type": "no such"}'),
    ("config.json", b'{"model_type": "t5", "num_layers": 1, "feed_forward_proj": 3}'),
    ("tokenizer.json", b""),
    ("tokenizer.json", b'{"version": "1.0"}'),
    ("tokenizer.json", b"\xff\xfe"),
    ("tokenizer_config.json", b""),
    ("tokenizer_config.json", b"[1]"),
    ("tokenizer_config.json", b'{"tokenizer_class": 3}'),
    ("model.safetensors", b""),
    ("model.safetensors", b"\xff" * 64),
]
BROKEN_NAMES = "its configuration, tokenizer or weights empty, cut off, of wrong types, or lacking some"


@pytest.mark.parametrize(("name", "content"), BROKEN)
def test_a_broken_model_directory_is_one_sentence(name: str, content: bytes, directory: Path) -> None:
    (directory / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        load_model(directory, "question_answering")
    assert str(directory) in str(raised.value)
    if name == "config.json":
        layer_names_of(directory), shape_of(directory)  # leave it to loading to say what is wrong
        with suppress(UserError):
            usual_task(directory)
    record("a broken model directory", BROKEN_NAMES, 1, "one sentence names it")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_file_of_a_model_that_is_cut_off_is_named(name: str, part: float, directory: Path) -> None:
    whole = (directory / name).read_bytes()
    (directory / name).write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match=str(directory)):
        load_model(directory, "question_answering")
    record("a broken model directory", BROKEN_NAMES, 1, "one sentence names it")


def test_weights_that_lack_some_are_refused(directory: Path) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    tensors = load_file(directory / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack transformer\.h\.1\.mlp\.c_fc\.weight"):
        load_model(directory, "question_answering")
    record("a broken model directory", BROKEN_NAMES, 1, "one sentence names it")
