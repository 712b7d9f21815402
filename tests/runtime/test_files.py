"""Files and directories appear whole or not at all."""

import hashlib
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from malmen.runtime import files
from malmen.runtime.files import replacing, replacing_directory, sha256, write_text


def contents(folder: Path) -> dict[str, str]:
    """Return every file below a folder, hidden ones too, with its text; folders end with a slash."""
    return {
        str(path.relative_to(folder)) + ("/" if path.is_dir() else ""): "" if path.is_dir() else path.read_text()
        for path in folder.rglob("*")
    }


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert temporary.parent == path.parent and not path.exists()
    assert contents(tmp_path) == {"new/": "", "new/file.txt": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_of_a_file_that_fails_nothing_is_left_and_the_old_one_stays(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file.txt").write_text("old", encoding="utf-8")
    with pytest.raises(error), replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error
    assert contents(tmp_path) == {"file.txt": "old"}


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path: Path, umask: int) -> None:
    weights, before = {"weight": torch.zeros(2)}, os.umask(umask)
    try:
        with replacing(tmp_path / "editor.safetensors") as temporary:
            save_file(weights, temporary)
        with replacing_directory(tmp_path / "model") as folder:
            save_file(weights, folder / "model.safetensors")
    finally:
        assert os.umask(before) == umask
    modes = [path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.safetensors")]
    assert modes == [0o666 & ~umask] * 2


def test_a_file_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file.txt"):
        pass
    assert contents(tmp_path) == {}


def test_a_directory_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old", encoding="utf-8")
    with replacing_directory(path) as temporary:
        (temporary / "new.txt").write_text("new", encoding="utf-8")
        assert (path / "old.txt").exists()
    assert contents(tmp_path) == {"model/": "", "model/new.txt": "new"}
    assert path.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_of_a_directory_that_fails_nothing_is_left_and_the_old_one_stays(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "old.txt").write_text("old", encoding="utf-8")
    with pytest.raises(error), replacing_directory(path) as temporary:
        (temporary / "half.txt").write_text("half", encoding="utf-8")
        raise error
    assert contents(tmp_path) == {"model/": "", "model/old.txt": "old"}


def test_text_is_utf8_with_line_feeds(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "é\n")
    assert (tmp_path / "a.txt").read_bytes() == b"\xc3\xa9\n"
    assert sha256(tmp_path / "a.txt") == hashlib.sha256(b"\xc3\xa9\n").hexdigest()


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    with replacing(tmp_path / "file.txt") as temporary:
        temporary.write_text("new", encoding="utf-8")
        own = temporary.name
    host = own.removeprefix(".file.txt.").removesuffix(f".{os.getpid()}.part")
    dead, alive = tmp_path / f".file.txt.{host}.{2**22 + 1}.part", tmp_path / f".file.txt.{host}.{os.getppid()}.part"
    folder = tmp_path / f".model.{host}.{2**22 + 1}.part"
    other = tmp_path / f".file.txt.elsewhere.{2**22 + 1}.part"
    folder.mkdir()
    for path in (dead, alive, other, folder / "a"):
        path.write_text("half", encoding="utf-8")
    write_text(tmp_path / "file.txt", "newer")
    with replacing_directory(tmp_path / "model"):
        pass
    assert (dead.exists(), alive.exists(), other.exists(), folder.exists()) == (False, True, True, False)


def test_a_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    monkeypatch.setattr(files, "SETTLED_SECONDS", 0.0)
    expected = hashlib.sha256(b"weights").hexdigest()
    assert sha256(path) == sha256(path.parent / "." / path.name) == expected and reads == [str(path)]


def test_a_file_that_changed_is_read_again(tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"weights", b"Weights"):  # as long, at once, and dated alike
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        assert sha256(path) == hashlib.sha256(content).hexdigest()
    assert len(reads) == 2


def test_a_settled_file_that_is_dated_back_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    monkeypatch.setattr(files, "SETTLED_SECONDS", 0.0)
    before = path.stat()
    sha256(path)
    time.sleep(0.05)  # longer than a tick of the file system's clock
    path.write_bytes(b"Weights")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256(path) == hashlib.sha256(b"Weights").hexdigest() and len(reads) == 2
