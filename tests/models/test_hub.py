"""A local HTTP server that answers like the Hugging Face hub, and jobs that fetch a model from it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from malmen.errors import UserError
from malmen.models.hub import pinned

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "gpt2"}',
    "vocab.json": b'{"a": 0, "b": 1, "<|endoftext|>": 2}',
    "merges.txt": b"#version: 0.2\n",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": save({"weight": torch.arange(512.0)}),
    "model.fp16.safetensors": save({"weight": torch.arange(512.0).half()}),
    "pytorch_model.bin": b"pickled",
    "modeling.py": b"raise SystemExit",
    "onnx/config.json": b"{}",
}
WANTED = {"config.json", "vocab.json", "merges.txt", "chat_template.jinja", "model.safetensors"}
WEIGHTS = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
MOVING = ("main", "v1.0", "refs%2Fpr%2F4", COMMIT[:8])
"""A branch, a tag, a pull request and a short commit, which all stand for the commit now."""
HELD_BACK = {"pickled": ".safetensors", "half": "model.safetensors", "speechless": "merges.txt"}
"""What repositories lack, by the end of its name."""


class Hub(BaseHTTPRequestHandler):
    """The repositories lab/model, those that lack something, lab/gated, and lab/broken, whose files are cut."""

    requests: list[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, body: bool) -> None:
        self.requests.append(self.path)
        path = self.path.partition("?")[0]
        api = path.startswith("/api/models/")
        owner, name, action, revision, *rest = path.removeprefix("/api/models").split("/")[1:]
        if (owner, name) not in [("lab", known) for known in ("model", "gated", "broken", *HELD_BACK)]:
            self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif name == "gated":
            self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif api and action == "revision" and revision in (*MOVING, COMMIT):
            self.reply(200, json.dumps({"id": f"{owner}/{name}", "sha": COMMIT}).encode())
        elif revision != COMMIT:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif api and action == "tree":
            self.reply(200, self.tree(name))
        else:
            content = FILES["/".join(rest)]
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            cut = name == "broken" and body
            self.reply(200, content, {"X-Repo-Commit": COMMIT, "ETag": etag}, body, cut)

    def tree(self, name: str) -> bytes:
        files = [f for f in FILES if not f.endswith(HELD_BACK.get(name, "?"))]
        entries = [
            {"type": "file", "path": f, "size": len(FILES[f]), "oid": hashlib.sha1(FILES[f]).hexdigest()} for f in files
        ]
        return json.dumps(entries).encode()

    def reply(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True, cut: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(
    folder: Path, hub_id: str, revision: str = COMMIT, sha256: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a job that fetches a model to ``folder/model``, with a cache of its own."""
    code = (
        "import sys; from pathlib import Path\nfrom malmen.jobs.job import logged\n"
        "from malmen.models.hub import fetch_model\n"
        "with logged(Path('job.log')): fetch_model(sys.argv[1], sys.argv[2], Path('model'), *sys.argv[3:])"
    )
    own = {"HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", code, hub_id, revision, *([sha256] if sha256 else [])],
        cwd=folder,
        env={**kept, **own, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def endpoint(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def assert_one_sentence(run: subprocess.CompletedProcess[str], folder: Path, *parts: str) -> None:
    """The job failed, said why in one line, and left neither a model nor half of one."""
    errors = [line for line in run.stderr.splitlines() if "Error: " in line]
    assert run.returncode == 1
    assert len(errors) == 1
    assert "Traceback" not in run.stderr
    for part in parts:
        assert part in errors[0]
    assert {path.name for path in folder.iterdir()} <= {"cache", "job.log"}


def test_configuration_weights_and_tokenizer_are_fetched(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    run = fetch(tmp_path, "lab/model", sha256=WEIGHTS, HF_ENDPOINT=endpoint(hub))
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "model").iterdir()} == WANTED | {"source.json"}
    record = json.loads((tmp_path / "model" / "source.json").read_text())
    assert record == {"model": "lab/model", "revision": COMMIT, "weights_sha256": WEIGHTS}
    for name in WANTED:
        assert (tmp_path / "model" / name).read_bytes() == FILES[name]
        assert not (tmp_path / "model" / name).is_symlink()


def test_what_is_in_the_cache_needs_no_network(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    assert fetch(tmp_path / "first", "lab/model", HF_ENDPOINT=endpoint(hub)).returncode == 0
    seen = len(Hub.requests)
    (tmp_path / "second").mkdir()
    cache = str(tmp_path / "first" / "cache")
    run = fetch(tmp_path / "second", "lab/model", HF_ENDPOINT=endpoint(hub), HF_HOME=cache, HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "second" / "model").iterdir()} == WANTED | {"source.json"}
    assert len(Hub.requests) == seen


@pytest.mark.parametrize("moving", ["main", "v1.0", "refs/pr/4", COMMIT[:8]])
def test_a_revision_that_can_move_is_recorded_as_its_commit(
    hub: ThreadingHTTPServer, tmp_path: Path, moving: str
) -> None:
    run = fetch(tmp_path, "lab/model", moving, HF_ENDPOINT=endpoint(hub))
    assert run.returncode == 0, run.stderr
    (warning,) = [line for line in run.stderr.splitlines() if repr(moving) in line]
    assert COMMIT in warning
    assert json.loads((tmp_path / "model" / "source.json").read_text())["revision"] == COMMIT


def test_without_network_a_revision_is_what_it_was(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    """The cache remembers the commit of a branch or tag that other programs downloaded by its name."""
    cache = tmp_path / "cache"
    assert fetch(tmp_path, "lab/model", HF_ENDPOINT=endpoint(hub)).returncode == 0
    (cache / "hub" / "models--lab--model" / "refs").mkdir(exist_ok=True)
    (cache / "hub" / "models--lab--model" / "refs" / "main").write_text(COMMIT)
    for number, revision in enumerate(("main", COMMIT[:8])):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = fetch(folder, "lab/model", revision, HF_HOME=str(cache), HF_HUB_OFFLINE="1")
        assert run.returncode == 0, run.stderr
        assert json.loads((folder / "model" / "source.json").read_text())["revision"] == COMMIT
    (tmp_path / "none").mkdir()
    run = fetch(tmp_path / "none", "lab/model", "v1.0", HF_HOME=str(cache), HF_HUB_OFFLINE="1")
    assert_one_sentence(run, tmp_path / "none", "lab/model", "v1.0", "HF_HUB_OFFLINE")


def test_without_network_and_cache(tmp_path: Path) -> None:
    run = fetch(tmp_path, "lab/model", HF_HUB_OFFLINE="1")
    assert_one_sentence(run, tmp_path, "lab/model", COMMIT, "cannot be fetched", "HF_HUB_OFFLINE")


@pytest.mark.parametrize(
    ("hub_id", "revision", "part"),
    [
        ("lab/missing", COMMIT, "The hub has no model lab/missing"),
        ("/lab/model/of/a/directory", COMMIT, "The hub has no model /lab/model"),
        ("lab/model", "f" * 40, f"no revision {'f' * 40}"),
        ("lab/gated", COMMIT, "accept its terms"),
        ("lab/model", "v2.0", "no revision v2.0"),
        ("lab/pickled", COMMIT, "no safetensors"),
        ("lab/half", COMMIT, "no safetensors"),
        ("lab/speechless", COMMIT, "has no tokenizer"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: ThreadingHTTPServer, tmp_path: Path, hub_id: str, revision: str, part: str
) -> None:
    assert_one_sentence(fetch(tmp_path, hub_id, revision, HF_ENDPOINT=endpoint(hub)), tmp_path, part)


def test_a_transfer_that_breaks(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    run = fetch(tmp_path, "lab/broken", HF_ENDPOINT=endpoint(hub))
    assert_one_sentence(run, tmp_path, "lab/broken", "cannot be fetched")


def test_other_weights_than_those_asked_for(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    run = fetch(tmp_path, "lab/model", sha256="0" * 64, HF_ENDPOINT=endpoint(hub))
    assert_one_sentence(run, tmp_path, f"The weights of lab/model at {COMMIT} have SHA-256 {WEIGHTS}", "0" * 64)


def test_a_model_without_a_revision_is_not_fetched() -> None:
    assert pinned("lab/model", COMMIT, "models.bert.revision") == COMMIT
    with pytest.raises(UserError, match=r"^models\.bert\.revision .* lab/model"):
        pinned("lab/model", None, "models.bert.revision")
