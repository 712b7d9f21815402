"""An optional signature of all records, by OpenSSH's ``ssh-keygen -Y``.

It signs a file with one hash of all records of a run, and thus of everything that they describe.
"""

import shutil
import subprocess
from pathlib import Path

from malmen.errors import UserError
from malmen.provenance.records import digest_of, record_files, records_folder
from malmen.runtime.files import sha256, write_text

NAMESPACE = "malmen-records"
"""Purpose of the signature; it is invalid for other purposes."""
ROOT = "root.sha256"
"""The file with the hash of all records, in the folder of records."""


def root_path(run: str) -> Path:
    """Return the path of the hash of all records, from the project's root."""
    return records_folder(run) / ROOT


def root_hash(run: str, root: Path = Path()) -> str:
    """Return one hash of all records of a run and of its downloads, which name their environments by their hashes."""
    digests = {path.relative_to(root).as_posix(): sha256(path) for path in record_files(run, root)}
    if not digests:
        raise UserError(f"There are no records of {run} to sign; run the workflow first.")
    return digest_of(digests)


def sign(run: str, key: Path, root: Path = Path()) -> Path:
    """Write the hash of all records and its signature with an SSH key; return the signature's path.

    Raises:
        UserError: if there are no records, ssh-keygen is missing, or it cannot sign with the key.
    """
    path = root / root_path(run)
    write_text(path, f"{root_hash(run, root)}\n")
    signature = path.with_name(f"{path.name}.sig")
    signature.unlink(missing_ok=True)
    run_ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(path)], b"")
    return signature


def check_signature(run: str, signers: Path | None, root: Path = Path()) -> str | None:
    """Check the signature; return a sentence about it, or None if there is none.

    Args:
        run: the name of the run.
        signers: OpenSSH's file of allowed signers; if None, only the match of signature and records is checked.
        root: the project's root.

    Raises:
        UserError: if the records are not the signed ones, or none of the signers signed them.
    """
    path = root / root_path(run)
    signature = path.with_name(f"{path.name}.sig")
    if not signature.exists():
        if signers is not None:
            raise UserError(f"--signers needs {signature}, which does not exist; restore it, or sign again.")
        return None
    if not path.is_file() or path.read_bytes() != f"{root_hash(run, root)}\n".encode():
        raise UserError(f"{signature} does not sign the present records; if their change is intended, sign again.")
    content = path.read_bytes()
    if signers is None:
        said = run_ssh_keygen(["-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)], content)
        return f"The records are signed: {said.strip()}. Use --signers FILE to check the signer."
    found = ["-Y", "find-principals", "-f", str(signers), "-s", str(signature)]
    who = run_ssh_keygen(found, b"").splitlines()[0]
    allowed = ["-Y", "verify", "-f", str(signers), "-I", who, "-n", NAMESPACE, "-s", str(signature)]
    return f"The records are signed: {run_ssh_keygen(allowed, content).strip()}."


def run_ssh_keygen(arguments: list[str], content: bytes) -> str:
    """Run ssh-keygen with ``content`` as standard input; return its output."""
    if shutil.which("ssh-keygen") is None:
        raise UserError("Signatures need the program ssh-keygen, which is not installed; install OpenSSH.")
    done = subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise UserError(f"ssh-keygen {arguments[1]} failed ({said}); check the key, or the file of allowed signers.")
    return done.stdout.decode(errors="replace")
