"""Publishing with DVC and bringing back, in small checkouts: what goes where, remotes, secrets, locks, breaks."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import psutil
import pytest
import yaml
from checkouts import clone, commit, git
from recorded import Job

from malmen.config.upstream_files import UpstreamFile
from malmen.data.download import fetch
from malmen.errors import UserError
from malmen.provenance.recording import Start, record_job
from malmen.runtime.code_digest import code_digest, module_digest, tree
from malmen.runtime.dvc import dvc, reason
from malmen.sharing.publish import check_secrets, kept_by_dvc, pointers, publish, pull_all

ROOT = Path(__file__).parents[2]
OUTPUTS = [
    "data/p/world/zsre/train.jsonl",
    "data/p/world/zsre/text.txt",
    "data/p/rebuild/steps/zsre/translated/0.jsonl",
    "data/p/rebuild/translators/forward",
    "results/p/models/gpt2/finetuned",
    "results/p/editors/gpt2/malmen/m8_seed0",
    "results/p/editors/gpt2/memit/key_covariance.safetensors",
]
FILES = {
    **{name: name for name in OUTPUTS if "." in name},
    "data/p/rebuild/translators/forward/vocab.txt": "words",
    "results/p/models/gpt2/finetuned/model.safetensors": "weights",
    "results/p/editors/gpt2/malmen/m8_seed0/m8_seed0/editor.safetensors": "editor",
    "data/p/world/zsre/counts.json": "{}",
    "results/p/editors/gpt2/malmen/m8_seed0.cost.json": "[]",
    "results/p/metrics/validation/gpt2/malmen/m8_seed0.json": "{}",
    "results/p/figures/figure5.png": "a picture",
    "results/p/logs/models/gpt2.log": "a log",
    "results/p/models/gpt2/finetuned/.snakemake_timestamp": "",
    "results/p/models/gpt2/.taught.x.part/model.safetensors": "half",
}
READ = {
    "results/p/records/build_realtext/fever.json": json.dumps(
        {"inputs": [{"path": "data/raw/claims", "maker": {"name": "download_source/claims"}}]}
    )
}
"""The record of a job that read a download."""
TO_COMMIT = ("data", "results", ".dvc")
SMALL = {name for name in FILES if name.endswith((".json", ".png"))}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the project's rules for git and DVC, and a profile's results."""
    folder = tmp_path / "checkout"
    git(tmp_path, "init", "--quiet", str(folder))
    for name in (".gitignore", ".dvcignore", ".dvc/.gitignore", ".dvc/config"):
        write(folder, {name: (ROOT / name).read_text()})
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Project")
    write(folder, FILES)
    return folder


@pytest.fixture
def remote(checkout: Path) -> Path:
    """A directory as the remote of the checkout."""
    folder = checkout.with_name("remote")
    dvc(checkout, "remote", "add", "--default", "store", str(folder))
    return folder


def cloned(checkout: Path) -> Path:
    """Clone a checkout, and bring all from DVC."""
    fresh = clone(checkout)
    pull_all(fresh, pointers(fresh, "p"))
    return fresh


def kept(folder: Path) -> dict[str, str]:
    """Return what is there of the files that DVC keeps."""
    names = [name for name in FILES if name not in SMALL and not Path(name).parts[-1].startswith(".")]
    names = [name for name in names if "logs" not in name and ".part" not in name]
    return {name: (folder / name).read_text() for name in names if (folder / name).is_file()}


def test_no_path_is_tracked_by_both_and_none_by_neither(checkout: Path) -> None:
    assert [str(path) for path in kept_by_dvc(checkout, "p")] == sorted(OUTPUTS)
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    by_git = set(git(checkout, "ls-files", "data", "results").split())
    assert by_git == SMALL | {f"{name}.dvc" for name in OUTPUTS}
    assert not git(checkout, "status", "--porcelain")
    assert not list(checkout.glob("[dr]*/**/.gitignore"))  # DVC writes them where the project's does not say enough
    inside = git(checkout, "-C", ".", "ls-files").split()
    assert not [name for name in inside if any(name.startswith(f"{output}/") for output in OUTPUTS)]


def test_what_quotes_a_real_data_set_is_not_gits(checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    quoting = ["results/p/failures/gpt2/malmen/m8_seed0.json", "results/p/tables/table4.md"]
    write(checkout, {**dict.fromkeys(quoting, "Who wrote it?"), "results/p/tables/table4.sources.json": "{}"})
    publish(checkout, "p", [*quoting, "results/p/tables/table4.csv"])
    commit(checkout, *TO_COMMIT)
    assert not git(checkout, "status", "--porcelain")
    by_git = set(git(checkout, "ls-files", "results/p/failures", "results/p/tables").split())
    assert {name for name in by_git if not name.endswith(".gitignore")} == {
        *(f"{name}.dvc" for name in quoting),
        "results/p/tables/table4.sources.json",
    }
    files = git(checkout, "ls-files", "results/p", "data/p").split()
    assert f"git will hold {len(files)} files" in caplog.text


def test_a_publication_that_is_large_for_git_is_noted(
    checkout: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malmen.sharing.publish.LARGE", 1000)
    publish(checkout, "p")
    assert "much for a repository" not in caplog.text
    write(checkout, {"results/p/figures/figure6.png": "a picture" * 200})
    publish(checkout, "p")
    assert "much for a repository; the largest are results/p/figures/figure6.png" in caplog.text


def test_results_whose_code_no_commit_holds_are_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(checkout, {"src/malmen/made_up.py": "NUMBER = 1\n", "workflow/scripts/script.py": ""})
    monkeypatch.chdir(checkout)
    code = code_digest("malmen.made_up", root=Path("src/malmen"))
    task = Job("draw", {}, {"": "results/p/figures/figure5.png"}, {"code": code}, {})
    record_job(task, Path("workflow/scripts/script.py").resolve(), Start())
    publish(checkout, "p")  # It is not committed yet, but it can be.
    write(checkout, {"src/malmen/made_up.py": "NUMBER = 2\n"})
    for function in (module_digest, tree):
        function.cache_clear()
    with pytest.raises(UserError, match=r"code of 1 job, draw: its src/malmen/made_up\.py .* Commit the code"):
        publish(checkout, "p")


def test_without_a_remote_all_is_kept_in_the_cache(checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    publish(checkout, "p")
    assert "no DVC remote is set, so nothing is pushed" in caplog.text
    assert "commit next: git add data results .dvc && git commit" in caplog.text
    before = kept(checkout)
    for name in OUTPUTS:
        path = checkout / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not kept(checkout)
    pull_all(checkout, pointers(checkout, "p"))
    assert kept(checkout) == before


@pytest.mark.usefixtures("remote")
def test_a_directory_serves_a_fresh_clone(checkout: Path) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    fresh = cloned(checkout)
    assert kept(fresh) == kept(checkout) and len(kept(fresh)) == 7
    assert not git(fresh, "status", "--porcelain")


@pytest.mark.usefixtures("remote")
def test_publishing_again_changes_nothing(checkout: Path) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    publish(checkout, "p")
    assert not git(checkout, "status", "--porcelain")


@pytest.mark.usefixtures("remote")
def test_a_clone_without_checkpoints_publishes_none_away(checkout: Path) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    fresh = clone(checkout)
    publish(fresh, "p")
    assert not git(fresh, "status", "--porcelain")
    write(fresh, {"data/p/world/zsre/train.jsonl": "other"})
    publish(fresh, "p")
    assert git(fresh, "status", "--porcelain") == " M data/p/world/zsre/train.jsonl.dvc\n"


@pytest.mark.usefixtures("remote")
def test_what_was_changed_here_is_not_overwritten(checkout: Path) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    fresh = cloned(checkout)
    write(fresh, {"data/p/world/zsre/train.jsonl": "other"})
    with pytest.raises(UserError, match=r"`dvc pull` failed in .*train\.jsonl"):
        pull_all(fresh, pointers(fresh, "p"))
    assert (fresh / "data/p/world/zsre/train.jsonl").read_text() == "other"


def test_what_cannot_be_had_is_said_with_where_it_was_sought(checkout: Path) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    fresh = clone(checkout)
    sought = r"DVC's cache .*`dvc remote add --default NAME URL`"
    with pytest.raises(UserError, match=sought + r".*`dvc pull` failed in [^\n]*failed to pull data[^\n]*$"):
        pull_all(fresh, pointers(fresh, "p"))
    dvc(fresh, "remote", "add", "--default", "store", "/nowhere")
    for url in ("ssh://127.0.0.1:9/store", "http://me:secret@127.0.0.1:9/store", str(checkout.with_name("gone"))):
        dvc(fresh, "remote", "modify", "--local", "store", "url", url)
        with pytest.raises(UserError, match=r"remote store .*`dvc remote modify --local store url NEW`") as caught:
            pull_all(fresh, pointers(fresh, "p"))
        assert url.replace("me:secret@", "") in str(caught.value) and "Checkout failed" not in str(caught.value)


def test_an_object_that_a_remote_lacks_is_told_apart_from_a_remote_that_is_not_there(
    checkout: Path, remote: Path
) -> None:
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    fresh = clone(checkout)
    dvc(fresh, "cache", "dir", "--local", str(fresh.with_name("cache")))
    lost = hashlib.md5((checkout / "data/p/world/zsre/text.txt").read_bytes()).hexdigest()
    (remote / "files" / "md5" / lost[:2] / lost[2:]).unlink()
    with pytest.raises(UserError, match=r"remote store .* is there, but .*data/p/world/zsre/text\.txt"):
        pull_all(fresh, pointers(fresh, "p"))


def test_publishing_makes_no_folder_in_place_of_one_that_is_not_mounted(checkout: Path) -> None:
    gone = checkout.with_name("gone")
    dvc(checkout, "remote", "add", "--default", "store", str(gone / "store"))
    with pytest.raises(UserError, match=rf"remote store \({re.escape(str(gone))}/store\) is not there"):
        publish(checkout, "p")
    assert not gone.exists()


def test_only_the_downloads_that_a_run_read_are_published_and_restored(checkout: Path) -> None:
    read = {"inputs": [{"path": "data/raw/mine", "maker": {"name": "download_source/mine"}}]}
    write(checkout, {"results/p/records/build_realtext/zsre.json": json.dumps(read), "results/p/records/x.json": "["})
    write(checkout, {"data/raw/mine": "1", "data/raw/other": "2", "data/raw/other.dvc": "outs: []"})
    assert [path for path in kept_by_dvc(checkout, "p") if "raw" in path.parts] == [Path("data/raw/mine")]
    assert not any("raw" in path.parts for path in pointers(checkout, "p"))
    write(checkout, {"data/raw/mine.dvc": "outs: []"})
    assert [path for path in pointers(checkout, "p") if "raw" in path.parts] == [Path("data/raw/mine.dvc")]


def test_nothing_published_is_said(checkout: Path) -> None:
    with pytest.raises(UserError, match="Nothing was published"):
        pull_all(checkout, pointers(checkout, "p"))


def test_a_folder_without_git_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a git clone"):
        publish(tmp_path, "p")


@pytest.mark.parametrize(
    "secret",
    ["password = hunter2", "secret_access_key = hunter2", "sas_token = hunter2", "url = webdavs://me:hunter2@host/x"],
)
def test_a_secret_that_git_would_see_is_refused(checkout: Path, secret: str) -> None:
    with (checkout / ".dvc" / "config").open("a") as stream:
        stream.write(f"['remote \"store\"']\n    {secret}\n")
    with pytest.raises(UserError, match=r"config is tracked by git and holds a secret .*--local") as caught:
        publish(checkout, "p")
    assert "hunter2" not in str(caught.value)
    assert not pointers(checkout, "p")


def test_what_is_no_secret_is_not_refused(checkout: Path) -> None:
    check_secrets(ROOT / ".dvc" / "config")
    with (checkout / ".dvc" / "config").open("a") as stream:
        stream.write("['remote \"store\"']\n    url = ssh://me@host/x\n    keyfile = ~/.ssh/id\n    ask_password = 1\n")
    check_secrets(checkout / ".dvc" / "config")


HOLD = "from dvc.repo import Repo; repo = Repo(); repo.lock.lock(); print('held', flush=True); input()"


def test_a_second_dvc_process_gives_one_sentence(checkout: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError) as caught:
            publish(checkout, "p")
        holder.communicate("\n")
    message = str(caught.value)
    assert message.startswith(f"`dvc add` failed in {checkout}: another DVC process") and "\n" not in message
    publish(checkout, "p")
    assert len(pointers(checkout, "p")) == len(OUTPUTS)


def test_what_a_killed_dvc_left_is_cleared_away(checkout: Path) -> None:
    write(checkout, {".dvc/tmp/rwlock": '{"half'})
    publish(checkout, "p")
    assert len(pointers(checkout, "p")) == len(OUTPUTS)


@pytest.mark.parametrize("holder", ["not waited for", "its number is another's", "alive"])
def test_a_lock_of_a_dead_dvc_whose_number_is_in_use_is_cleared_away(checkout: Path, holder: str) -> None:
    program = "pass" if holder == "not waited for" else "import time; time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while program == "pass" and psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        held = {str(checkout / OUTPUTS[0]): {"pid": process.pid, "cmd": "dvc add"}}
        write(checkout, {".dvc/tmp/rwlock": json.dumps({"write": held})})
        if holder == "its number is another's":
            os.utime(checkout / ".dvc/tmp/rwlock", (1, 1))
        if holder == "alive":
            with pytest.raises(UserError, match="another DVC process is using this checkout"):
                publish(checkout, "p")
        else:
            publish(checkout, "p")
            assert len(pointers(checkout, "p")) == len(OUTPUTS)
        process.kill()


def test_a_lock_taken_by_a_dvc_that_came_meanwhile_is_respected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = tmp_path / ".dvc/tmp/rwlock", []

    def blocked(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
        calls.append(arguments)
        holder = {"x": {"pid": os.getpid(), "cmd": "dvc add"}}
        write(root, {".dvc/tmp/rwlock": json.dumps({"write": holder, "read": {}})})
        return subprocess.CompletedProcess(["dvc"], 255, "", "ERROR: 'x' is busy, it is being blocked by:\n  (PID 1)")

    monkeypatch.setattr("malmen.runtime.dvc.call", blocked)
    with pytest.raises(UserError, match="another DVC process is using this checkout"):
        dvc(tmp_path, "add", "x")
    assert lock.exists() and len(calls) == 1


PUBLISH = "from pathlib import Path; from malmen.sharing.publish import publish; publish(Path.cwd(), 'p')"


def publish_when_free(checkout: Path) -> None:
    """Publish again as often as the sentence asks for it: on a busy machine, what was killed takes a while to end."""
    for _ in range(100):
        try:
            return publish(checkout, "p")
        except UserError as error:
            if "another DVC process" not in str(error):
                raise
        time.sleep(0.2)
    return publish(checkout, "p")


@pytest.mark.usefixtures("remote")
@pytest.mark.parametrize("first", [OUTPUTS[0], OUTPUTS[3]])
def test_an_interrupted_publication_is_completed(checkout: Path, first: str) -> None:
    write(checkout, {f"results/p/models/m{i}/finetuned/model.safetensors": f"{i}" * 1000 for i in range(20)})
    running = subprocess.Popen([sys.executable, "-c", PUBLISH], cwd=checkout, start_new_session=True)
    while not (checkout / f"{first}.dvc").exists():
        assert running.poll() is None
        time.sleep(0.001)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    publish_when_free(checkout)
    commit(checkout, *TO_COMMIT)
    assert len(pointers(checkout, "p")) == len(OUTPUTS) + 20
    fresh = cloned(checkout)
    assert kept(fresh) == kept(checkout)
    assert (fresh / "results/p/models/m19/finetuned/model.safetensors").read_text() == "19" * 1000


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> UpstreamFile:
    """The only upstream file, which nobody serves any more."""
    source = UpstreamFile("claims", ("http://127.0.0.1:9/claims",), hashlib.sha256(b"claims").hexdigest(), "CC0")
    for module in ("data.download", "sharing.publish"):
        monkeypatch.setattr(f"malmen.{module}.upstream_files", lambda: {"claims": source})
    return source


@pytest.mark.usefixtures("remote")
def test_a_dead_link_is_served_from_dvc(checkout: Path, dead: UpstreamFile, caplog: pytest.LogCaptureFixture) -> None:
    write(checkout, {"data/raw/claims": "claims", **READ})
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    note = yaml.safe_load((checkout / "data/raw/claims.dvc").read_text())["meta"]
    assert note == {"urls": ["http://127.0.0.1:9/claims"], "sha256": dead.sha256, "licence": "CC0"}
    fresh = clone(checkout)
    assert fetch("claims", fresh / "data" / "raw" / "claims", None).read_text() == "claims"
    assert "DVC" in caplog.text and "(http://127.0.0.1:9/claims: no connection)" in caplog.text


@pytest.mark.usefixtures("dead")
def test_a_wrong_file_in_dvc_is_not_taken(checkout: Path) -> None:
    write(checkout, {"data/raw/claims": "other claims", **READ})
    publish(checkout, "p")
    (checkout / "data" / "raw" / "claims").unlink()
    with pytest.raises(UserError, match=re.escape("http://127.0.0.1:9/claims")):
        fetch("claims", checkout / "data" / "raw" / "claims", None)
    assert not (checkout / "data" / "raw" / "claims").exists()


def test_of_many_files_in_an_error_of_dvc_the_first_are_named() -> None:
    files = "".join(f"data/{number}.txt\n" for number in range(44))
    errors = f"ERROR: no targets:\n{files}Is your cache up to date?\n<https"
    named = "data/0.txt, data/1.txt, data/2.txt and 41 more"
    assert reason(f"{errors}://error.dvc.org/x>\n") == f"no targets: {named}"
    assert reason("".join(f"ERROR: no {number}\n" for number in range(9))) == "no 0; no 1; no 2 and 6 more"


def test_a_password_in_an_error_of_dvc_is_not_shown() -> None:
    errors = "WARNING: x\nERROR: failed to connect to ssh://me:hunter2@host/x\n  - refused\n"
    assert reason(errors) == "failed to connect to ssh://host/x - refused"


@dataclass(frozen=True)
class Server:
    """An SSH server that is up, and the folder that it serves."""

    port: int
    folder: Path


class OnePassword(asyncssh.SSHServer):
    """Lets in whoever knows the password."""

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 (called by name)
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == ("tester", "hunter2")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A real SSH server on the loopback interface, which serves a folder by SFTP."""
    folder = tmp_path / "served"
    folder.mkdir()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=OnePassword,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(folder)),
            allow_scp=False,
        )

    acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    yield Server(acceptor.get_port(), folder)
    loop.call_soon_threadsafe(acceptor.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_server_in_the_network_serves_a_fresh_clone_and_git_sees_no_password(checkout: Path, server: Server) -> None:
    dvc(checkout, "remote", "add", "--default", "store", f"ssh://tester@127.0.0.1:{server.port}/store")
    dvc(checkout, "remote", "modify", "--local", "store", "password", "hunter2")
    publish(checkout, "p")
    commit(checkout, *TO_COMMIT)
    assert len(list(server.folder.glob("store/files/md5/*/*"))) == len(OUTPUTS) + 3  # and a list for each directory
    assert subprocess.run(["git", "grep", "--quiet", "hunter2"], cwd=checkout, check=False).returncode == 1
    fresh = clone(checkout)
    with pytest.raises(UserError, match="`dvc pull` failed"):  # nobody has told the clone the password
        pull_all(fresh, pointers(fresh, "p"))
    dvc(fresh, "remote", "modify", "--local", "store", "password", "hunter2")
    pull_all(fresh, pointers(fresh, "p"))
    assert kept(fresh) == kept(checkout) and len(kept(fresh)) == 7
