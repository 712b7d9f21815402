"""A local server that speaks the Hugging Face hub's protocol, and the hub's library set up to ask it."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Repository:
    """A model's repository at one commit.

    Attributes:
        files: contents by path.
        commit: the commit.
        moving: branches, tags and pull requests that stand for it.
        gated: whether the user has yet to accept its terms.
        cut: whether transfers of its files break off half-way.
        sizes: what the hub says of files whose size it states wrongly.
    """

    files: Mapping[str, bytes]
    commit: str = COMMIT
    moving: tuple[str, ...] = ("main",)
    gated: bool = False
    cut: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, commit: str = COMMIT, moving: tuple[str, ...] = ("main",)) -> "Repository":
        """Return the repository of a directory's files."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return cls({str(path.relative_to(folder)): path.read_bytes() for path in paths}, commit, moving)

    @property
    def tree(self) -> bytes:
        """What the hub lists."""
        return json.dumps(
            [
                {
                    "type": "file",
                    "path": path,
                    "size": self.sizes.get(path, len(content)),
                    "oid": hashlib.sha1(content).hexdigest(),
                }
                for path, content in self.files.items()
            ]
        ).encode()


@dataclass(frozen=True)
class Hub:
    """A running server.

    Attributes:
        endpoint: its address.
        requests: the paths that were asked for.
    """

    endpoint: str
    requests: list[str]

    def sent(self) -> set[str]:
        """Return the names of the files whose content was asked for."""
        return {path.partition("/resolve/")[2].partition("/")[2] for path in self.requests if "GET /" in path} - {""}


@contextmanager
def serving(repositories: Mapping[str, Repository | Sequence[Repository]]) -> Iterator[Hub]:
    """Serve repositories by their ids; one may have several commits."""
    by_id = {name: [found] if isinstance(found, Repository) else found for name, found in repositories.items()}
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        """Answers like the hub."""

        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            is_api = path.startswith("/api/models/")
            parts = path.removeprefix("/api/models").split("/")[1:]
            # openai's first models have no owner: /gpt2/resolve/COMMIT/FILE
            bare = parts[0] if parts[0] in by_id else None
            name, rest = (bare, parts[1:]) if bare else ("/".join(parts[:2]), parts[2:])
            action, revision, *file = [*map(unquote, rest), "", ""]
            commits = [r for r in by_id.get(name, []) if revision in (r.commit, r.commit[:8], *r.moving)]
            if name not in by_id:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            elif not commits:
                self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            elif commits[0].gated:
                self.reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
            elif is_api and action == "revision":
                self.reply(200, json.dumps({"id": name, "sha": commits[0].commit}).encode())
            elif is_api and action == "tree":
                self.reply(200, commits[0].tree)
            else:
                self.send_file(commits[0], "/".join(filter(None, file)))

        def send_file(self, repository: Repository, path: str) -> None:
            headers = {"X-Repo-Commit": repository.commit}
            if path not in repository.files:
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", **headers})
            content = repository.files[path]
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            if self.command == "HEAD" and path in repository.sizes:
                headers["Content-Length"] = str(repository.sizes[path])
            return self.reply(200, content, headers, repository.cut)

        def reply(
            self, status: int, content: bytes, headers: Mapping[str, str] = MappingProxyType({}), cut: bool = False
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content[: len(content) // 2] if cut else content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield Hub(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(monkeypatch: pytest.MonkeyPatch, hub: Hub | None, cache: Path) -> None:
    """Set the hub's library up to ask a server, or none, and to keep what it fetches in a folder.

    It reads the environment when it is imported, so its constants are replaced.
    """
    from huggingface_hub import constants  # noqa: PLC0415 (few tests need the library)
    from huggingface_hub.utils._http import close_session  # noqa: PLC0415

    from malmen.models import hub as ours  # noqa: PLC0415

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    endpoint = hub.endpoint if hub else "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    for module in (constants, ours):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", hub is None)
    close_session()  # the next one sees the environment of the test
