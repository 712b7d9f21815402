"""An optional signature under all records: OpenSSH's ``ssh-keygen -Y`` signs and checks one small file.

The file holds one hash, of all records and environments of a profile, and so of everything that they describe.
"""

import shutil
import subprocess
from pathlib import Path

from malmen.errors import UserError
from malmen.provenance.records import ENVIRONMENTS, digest_of, record_files, records_folder
from malmen.runtime.files import sha256, write_text

NAMESPACE = "malmen-records"
"""What a signature is for, so that it cannot stand under anything else."""
ROOT = "root.sha256"
"""The file with the hash of all records, beside the folder of records' rules."""


def root_path(profile: str) -> Path:
    """Return where the hash of all records lies, from the project's root."""
    return records_folder(profile) / ROOT


def root_hash(profile: str, root: Path = Path()) -> str:
    """Return the hash of all records and environments of a profile, and of downloads."""
    folders = [root / records_folder(name) / ENVIRONMENTS for name in (profile, "raw")]
    files = [*record_files(profile, root), *(path for folder in folders for path in sorted(folder.glob("*.json")))]
    digests = {path.relative_to(root).as_posix(): sha256(path) for path in files}
    if not digests:
        raise UserError(f"There are no records of {profile} to sign; run the workflow first.")
    return digest_of(digests)


def sign(profile: str, key: Path, root: Path = Path()) -> Path:
    """Write the hash of all records, and a signature of it with an SSH key; return the signature's path.

    Raises:
        UserError: if there is no ssh-keygen, or it cannot sign with the key.
    """
    path = root / root_path(profile)
    write_text(path, f"{root_hash(profile, root)}\n")
    signature = path.with_name(f"{path.name}.sig")
    signature.unlink(missing_ok=True)
    run_ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)], b"")
    return signature


def check_signature(profile: str, signers: Path | None, root: Path = Path()) -> str | None:
    """Check the signature, if there is one; return what is to be said of it, None if there is none.

    Args:
        profile: whose records.
        signers: OpenSSH's file of allowed signers; if None, it is only checked that the signature fits the records.
        root: the project's root.

    Raises:
        UserError: if the records are not those that were signed, or signed by none of the signers.
    """
    path = root / root_path(profile)
    signature = path.with_name(f"{path.name}.sig")
    if not signature.exists():
        if signers is not None:
            raise UserError(f"{signature}, which --signers asks for, is not there; restore it, or sign anew.")
        return None
    if not path.is_file() or path.read_bytes() != f"{root_hash(profile, root)}\n".encode():
        raise UserError(f"The records are not those that {signature} signs; sign them anew if that is meant to be.")
    content = path.read_bytes()
    if signers is None:
        said = run_ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)], content)
        return f"The records are signed: {said.strip()}. Whose key that is, --signers FILE can tell."
    found = ["-Y", "find-principals", "-f", str(signers), "-s", str(signature)]
    who = run_ssh_keygen(found, b"").splitlines()[0]
    allowed = ["-Y", "verify", "-f", str(signers), "-I", who, "-n", NAMESPACE, "-s", str(signature)]
    return f"The records are signed: {run_ssh_keygen(allowed, content).strip()}."


def run_ssh_keygen(arguments: list[str], content: bytes) -> str:
    """Run ssh-keygen on some content, and return what it says."""
    if shutil.which("ssh-keygen") is None:
        raise UserError("Signatures need the program ssh-keygen, which is not here; install OpenSSH.")
    done = subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise UserError(f"ssh-keygen {arguments[1]} failed ({said}); check the key, or the file of allowed signers.")
    return done.stdout.decode(errors="replace")
