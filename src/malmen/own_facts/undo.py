"""Turning an edited model into the unedited one by the edit's delta, and the unedited one into the edited."""

from pathlib import Path

from malmen.errors import UserError
from malmen.models.identity import weights_digest
from malmen.own_facts.delta import FILE, Delta, Header, Side, write_changed
from malmen.own_facts.edited import check_out
from malmen.own_facts.model import find_directory
from malmen.own_facts.rebuilding import write_rebuilt
from malmen.own_facts.saving import copy
from malmen.runtime.files import joint_digest, replacing_directory, sha256
from malmen.runtime.progress import logger


def undo_edit(edited: Path, out: Path, force: bool) -> None:
    """Write the unedited model; arguments and errors as in :func:`malmen.undo_edit`."""
    check_out(out, force, [edited])
    if not edited.is_dir():
        raise UserError(f"There is no directory {edited}; give the directory of an edited model.")
    if not (edited / FILE).is_file():
        raise UserError(
            f"{edited} has no {FILE}, without which its edit cannot be undone; take the unedited model itself, which "
            "report.json names if malmen edited this one."
        )
    delta = Delta.open(edited / FILE)
    turn(delta, "before", edited, out, f"{edited} was changed after its edit")


def apply_edit(path: Path, model: str | Path, revision: str | None, out: Path, force: bool) -> None:
    """Write the edited model; arguments and errors as in :func:`malmen.apply_edit`."""
    check_out(out, force, [path, Path(model)])
    delta = Delta.open(path / FILE if path.is_dir() else path)
    if delta.header.rebuilt:
        raise UserError(
            f"{delta.path} can undo its edit, but not make it again, because all weights were written anew; copy the "
            "edited model, or edit again."
        )
    source, _ = find_directory(model, revision)
    revision_edited = f" at {delta.header.revision}" if delta.header.revision else ""
    turn(delta, "after", source, out, f"{delta.path} belongs to the model {delta.header.model!r}{revision_edited}")


def turn(delta: Delta, to: Side, source: Path, out: Path, otherwise: str) -> None:
    """Write one side of an edit from the other.

    Args:
        delta: the delta of the edit.
        to: the side to write.
        source: directory of the other side.
        out: directory to write, which is replaced as a whole.
        otherwise: what is to be said if the source has other weights than the other side.

    Raises:
        UserError: if the weights have another digest before or after, or a file is missing.
    """
    header: Header = delta.header
    other: Side = "after" if to == "before" else "before"
    if (found := weights_digest(source)) != (expected := header.digest(other)):
        raise UserError(
            f"{otherwise}: the weights in {source} have SHA-256 {found[:12]}..., but those {other} the edit had "
            f"{expected[:12]}...; give the directory that has these."
        )
    warn_of_changes(delta, source)
    with replacing_directory(out.resolve()) as folder:
        written = {}
        for name in header.weights(to):
            if header.rebuilt:
                written[name] = write_rebuilt(name, header.rebuilt[name], delta.read, source, folder / name)
            else:
                written[name] = write_changed(source / name, delta.changes_in(name, source / name), folder / name)
        if joint_digest(written) != header.digest(to):
            raise UserError(f"{delta.path} is damaged: what it makes of {source} has another digest; get it again.")
        copy(header.copied, source, folder)
        for name, content in delta.own_files(to):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        if to == "after":
            copy([delta.path.name], delta.path.parent, folder)
            (folder / delta.path.name).rename(folder / FILE)


def warn_of_changes(delta: Delta, source: Path) -> None:
    """Say which files beside the weights are not as they were at the edit; they are copied as they are.

    Raises:
        UserError: if one is missing.
    """
    for name, digest in delta.header.copied.items():
        if not (source / name).is_file():
            raise UserError(f"{source} lacks the file {name}, which it had at the edit; put it back.")
        if sha256(source / name) != digest:
            logger.warning("%s is not as it was at the edit; it is copied as it is.", source / name)
