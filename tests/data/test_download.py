"""The downloader against a local HTTP server: what is accepted, what is tried next, and what is left behind."""

import hashlib
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock, create_autospec

import gdown
import gdown.exceptions
import pytest
from gdown.download import GoogleDriveFileToDownload

from malmen.config.upstream_files import UpstreamFile, upstream_files
from malmen.data import download as downloads
from malmen.data.download import (
    MIRROR_VARIABLE,
    Retries,
    download,
    fetch,
    mirror_location,
    mirror_path,
    mirror_places,
)
from malmen.errors import UserError
from malmen.runtime.files import git_blob

CONTENT = b'{"claim": "real"}\n' * 10_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves by path; counts requests.

    ``flaky`` fails once with 503, ``broken`` stops halfway every time, ``parts`` sends half of what is asked for beyond
    what the client has and breaks off, until little is left.
    """

    requested: Counter[str]

    def do_GET(self) -> None:
        self.requested[self.path] += 1
        name = self.path.rsplit("/", 1)[-1]
        if name == "missing" or (name == "flaky" and self.requested[self.path] == 1):
            self.send_error(404 if name == "missing" else 503)
            return
        if name == "parts":
            self.send_part(int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")))
            return
        body = b"something else" if name == "wrong" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if name == "broken" else body)

    def send_part(self, start: int) -> None:
        rest = CONTENT[start:]
        self.send_response(206 if start and rest else 200 if rest else 416)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest if len(rest) < 100_000 else rest[: len(rest) // 2])

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server:
    """A running server: its root URL and how often each path was requested."""

    def __init__(self, root: str, requested: Counter[str]) -> None:
        self.root = root
        self.requested = requested


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    requested: Counter[str] = Counter()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("CountingHandler", (Handler,), {"requested": requested}))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_port}", requested)
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> str:
    """A root URL at which nobody listens."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def source(*urls: str) -> UpstreamFile:
    return UpstreamFile("claims", urls, DIGEST, "CC0", len(CONTENT))


def get(item: UpstreamFile, folder: Path, mirror: str | None = None) -> Path:
    return download(item, folder / "raw" / "claims.jsonl", mirror, Retries(pause=0.0))


def left_beside(folder: Path) -> dict[str, int]:
    """Return what lies where a file was to be fetched, with its size."""
    return {path.name: path.stat().st_size for path in (folder / "raw").glob("*") if path.suffix != ".lock"}


def test_a_good_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    item = source(f"{server.root}/good")
    path = get(item, tmp_path)
    assert path == tmp_path / "raw" / "claims.jsonl"
    assert path.read_bytes() == CONTENT
    get(item, tmp_path)
    assert server.requested == {"/good": 1}
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".claims.jsonl.lock", "claims.jsonl"]


def test_a_damaged_destination_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    path = get(source(f"{server.root}/good"), tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert get(source(f"{server.root}/good"), tmp_path).read_bytes() == CONTENT


def test_a_damaged_destination_stays_when_nothing_better_is_found(server: Server, tmp_path: Path) -> None:
    path = get(source(f"{server.root}/good"), tmp_path)
    path.write_bytes(b"old")
    with pytest.raises(UserError):
        get(source(f"{server.root}/missing"), tmp_path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("first, requests", [("missing", 1), ("wrong", 1), ("broken", 3)])
def test_a_bad_place_leads_to_the_next(server: Server, tmp_path: Path, first: str, requests: int) -> None:
    path = get(source(f"{server.root}/{first}", f"{server.root}/good"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requested == {f"/{first}": requests, "/good": 1}


def test_a_broken_transfer_is_continued(server: Server, tmp_path: Path) -> None:
    path = get(source(f"{server.root}/parts"), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.requested == {"/parts": 2}
    assert left_beside(tmp_path) == {"claims.jsonl": 180_000}


def test_what_an_earlier_run_left_is_continued(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the transfer broke off"):
        download(source(f"{server.root}/parts"), tmp_path / "raw" / "claims.jsonl", None, Retries(tries=1))
    assert left_beside(tmp_path) == {".claims.jsonl.part": 5 * downloads.BLOCK}
    assert get(source(f"{server.root}/parts"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"something else", CONTENT + b"more"])
def test_a_part_of_something_else_is_given_up(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".claims.jsonl.part").write_bytes(left)
    assert get(source(f"{server.root}/parts"), tmp_path).read_bytes() == CONTENT
    assert left_beside(tmp_path) == {"claims.jsonl": 180_000}


FOLDER = f"{downloads.DRIVE_FOLDER}1abc?usp=sharing#claims.jsonl"


def share_on_drive(monkeypatch: pytest.MonkeyPatch, *files: str) -> dict[str, Mock]:
    """Let gdown find a folder with these files, all of the same content; its functions keep their signatures."""
    listed = [GoogleDriveFileToDownload(id=f"id of {path}", path=path, local_path=path) for path in files]
    fakes = {name: create_autospec(getattr(gdown, name)) for name in ("download_folder", "download")}
    fakes["download_folder"].return_value = listed
    fakes["download"].side_effect = lambda *_, output, **__: Path(output).write_bytes(CONTENT)
    for name, fake in fakes.items():
        monkeypatch.setattr(gdown, name, fake)
    return fakes


def test_a_drive_folder_is_searched_for_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fakes = share_on_drive(monkeypatch, "fever/claims.jsonl", "fever/other.jsonl")
    assert get(source(FOLDER), tmp_path).read_bytes() == CONTENT
    assert left_beside(tmp_path) == {"claims.jsonl": 180_000}
    assert fakes["download_folder"].call_args.kwargs["skip_download"] is True
    assert fakes["download"].call_args.kwargs["id"] == "id of fever/claims.jsonl"


def test_a_drive_folder_without_the_file_is_named(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    share_on_drive(monkeypatch, "other.jsonl")
    with pytest.raises(UserError) as caught:
        get(source(f"{server.root}/missing", FOLDER), tmp_path)
    answers = f"({server.root}/missing: HTTP status 404; {FOLDER}: the folder holds 0 files of this name)"
    assert answers in str(caught.value)


def test_a_drive_folder_that_is_refused_leads_to_the_next(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    fakes = share_on_drive(monkeypatch, "claims.jsonl")
    fakes["download"].side_effect = gdown.exceptions.FileURLRetrievalError("too many\naccesses")
    assert get(source(FOLDER, f"{server.root}/good"), tmp_path).read_bytes() == CONTENT


def test_what_only_a_drive_folder_needs_is_not_imported_before() -> None:
    slow = "gdown", "datasets", "torch"
    code = f"import sys, malmen.data.download; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_mirror_holds_a_drive_folders_file_by_its_name() -> None:
    assert mirror_path(FOLDER) == "drive.google.com/drive/folders/1abc/claims.jsonl"


def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path) -> None:
    assert get(source(f"{server.root}/flaky"), tmp_path).read_bytes() == CONTENT
    assert server.requested == {"/flaky": 2}


def test_failure_names_the_file_and_what_each_place_answered(server: Server, refused: str, tmp_path: Path) -> None:
    urls = [f"{server.root}/{name}" for name in ("missing", "wrong", "broken")] + [f"{refused}/x"]
    with pytest.raises(UserError) as caught:
        get(source(*urls), tmp_path, mirror=str(tmp_path / "nowhere"))
    message = str(caught.value)
    host = server.root.removeprefix("http://")
    assert message.startswith("claims ") and f"({tmp_path}/nowhere/{host}/missing: no such file; " in message
    assert f"{urls[0]}: HTTP status 404; " in message
    assert f"{urls[1]}: wrong checksum (14 of 180,000 bytes); " in message
    assert f"{urls[2]}: the transfer broke off; " in message
    assert f"{urls[3]}: no connection)" in message
    assert "data.mirror" in message and MIRROR_VARIABLE in message
    assert "\n" not in message
    assert left_beside(tmp_path) == {".claims.jsonl.part": 5 * downloads.BLOCK}


def test_the_pause_between_tries_doubles(refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("malmen.data.download.time.sleep", pauses.append)
    with pytest.raises(UserError, match="no connection"):
        download(source(f"{refused}/x"), tmp_path / "x", None, Retries(tries=4, pause=0.5))
    assert pauses == [0.5, 1.0, 2.0]


def test_a_mirror_directory_comes_first(refused: str, tmp_path: Path) -> None:
    item = source(f"{refused}/a/good", "https://b.example/good")
    copy = tmp_path / "mirror" / mirror_path(item.urls[1])
    copy.parent.mkdir(parents=True)
    copy.write_bytes(CONTENT)
    assert get(item, tmp_path, mirror=str(tmp_path / "mirror")).read_bytes() == CONTENT


def test_a_mirror_on_http_comes_first(server: Server, refused: str, tmp_path: Path) -> None:
    item = source(f"{refused}/a/good")
    assert get(item, tmp_path, mirror=f"{server.root}/pub/").read_bytes() == CONTENT
    assert server.requested == {f"/pub/{mirror_path(item.urls[0])}": 1}


def test_a_wrong_file_in_the_mirror_is_not_taken(server: Server, tmp_path: Path) -> None:
    item = source(f"{server.root}/good")
    copy = tmp_path / "mirror" / mirror_path(item.urls[0])
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"tampered")
    assert get(item, tmp_path, mirror=str(tmp_path / "mirror")).read_bytes() == CONTENT


@pytest.mark.parametrize("mirror", ["ftp://host/pub", "file:///srv/mirror", "s3://bucket"])
def test_other_schemes_are_refused(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(repr(mirror))):
        get(source("https://a.example/x"), tmp_path, mirror=mirror)
    with pytest.raises(ValueError, match="String should match pattern"):
        source(f"{mirror}/x")


def test_a_password_in_the_mirror_is_not_shown(refused: str, tmp_path: Path) -> None:
    mirror = refused.replace("http://", "http://someone:secret@")
    with pytest.raises(UserError) as caught:
        get(source(f"{refused}/x"), tmp_path, mirror=mirror)
    assert "secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=rf"claims .*{re.escape(str(tmp_path / 'raw'))}"):
        get(source("https://a.example/x"), tmp_path)


def test_the_configured_mirror_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    assert mirror_location(None) is None
    monkeypatch.setenv(MIRROR_VARIABLE, "/env")
    assert mirror_location(None) == "/env"
    assert mirror_location("/configured") == "/configured"
    monkeypatch.setenv(MIRROR_VARIABLE, "")
    assert mirror_location(None) is None


def test_the_registry_is_well_formed() -> None:
    sources = upstream_files()
    assert {"fever_paper_dev", "fever2_fixers_dev", "nq_open_train", "zsre_knowedit_test"} <= set(sources)
    assert all(item.licence and (item.bytes or item.git_blob) for item in sources.values())
    assert len({item.checksum for item in sources.values()}) == len(sources)
    places = mirror_places(sources["fever_paper_dev"], "/srv")
    assert places == ["/srv/fever.ai/download/fever/paper_dev.jsonl"]


BLOB = hashlib.sha1(b"blob 180000\0" + CONTENT).hexdigest()


def test_a_git_blob_is_checked_where_no_sha256_is_known(server: Server, tmp_path: Path) -> None:
    path = get(
        UpstreamFile("claims", (f"{server.root}/wrong", f"{server.root}/good"), None, "none", git_blob=BLOB), tmp_path
    )
    assert path.read_bytes() == CONTENT
    assert server.requested == {"/wrong": 1, "/good": 1}
    with pytest.raises(UserError, match=r"wrong checksum \(180,000 bytes\)"):
        get(UpstreamFile("claims", (f"{server.root}/good",), None, "none", git_blob="0" * 40), tmp_path)


def test_a_git_blob_is_the_id_that_git_gives(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    command = ["git", "hash-object", str(tmp_path / "file")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == BLOB
    assert git_blob(tmp_path / "file") == BLOB


@pytest.mark.parametrize(("sha256", "blob"), [(None, None), (None, "0" * 39), ("0" * 40, None)])
def test_a_source_without_a_checksum_is_refused(sha256: str | None, blob: str | None) -> None:
    with pytest.raises(ValueError, match=r"sha256|git_blob|neither a SHA-256|should match pattern"):
        UpstreamFile("claims", ("https://a.example/x",), sha256, "none", git_blob=blob)


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'fever'.* fever_paper_dev, "):
        fetch("fever", tmp_path / "x", None)
