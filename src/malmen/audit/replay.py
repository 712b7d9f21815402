"""Repeating recorded jobs in a scratch directory, to compare their outputs with the recorded ones.

The scratch directory has the project's layout, with links to the jobs' inputs. So the same scripts give the same bytes
and leave the project unchanged.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from malmen.errors import UserError
from malmen.provenance.records import RAW, Names, Record, records_folder
from malmen.runtime.code_digest import ROOT as PACKAGE


class ReplayFiles(list[str]):
    """Files as a script sees them: in order; some have names."""

    def __init__(self, files: Sequence[str], names: Names | None = None) -> None:
        super().__init__(files)
        self._names = names or {}
        for name, value in self.items():
            setattr(self, name, value)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield pairs of a name and a file or list of files."""
        for name, place in self._names.items():
            yield name, self[place] if isinstance(place, int) else ReplayFiles([self[one] for one in place])


class Values(dict[str, Any]):
    """A dictionary whose values are also attributes."""

    def __getattr__(self, name: str) -> Any:
        """Return a value."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def prepare(records: Sequence[Record], root: Path, scratch: Path) -> None:
    """Prepare a scratch directory in which the jobs of records can run in order."""
    made = {output.path for record in records for output in record.outputs}
    for folder in {records_folder(name) for record in records for name in (record.run, RAW)}:
        if (root / folder).is_dir():  # Copied, because the jobs write their own records.
            shutil.copytree(root / folder, scratch / folder)
    for path in {file.path for record in records for file in record.inputs} - made:
        link(root / path, scratch / path)


def link(target: Path, place: Path) -> None:
    """Link ``place`` to ``target`` unless it exists."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target.resolve())


def replay(records: Sequence[Record], scratch: Path, code: Path, threads: int = 1) -> dict[str, str]:
    """Run the jobs of records in order in one fresh process; return the errors of failed jobs by name.

    Args:
        records: the records.
        scratch: a directory that is prepared for them (:func:`prepare`).
        code: the checkout whose scripts and modules run.
        threads: the number of threads.

    Raises:
        UserError: if the process itself fails.
    """
    numbers = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    (scratch / "workflow").unlink(missing_ok=True)
    link(code / "workflow", scratch / "workflow")
    modules = [str(code.resolve() / "src"), str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "malmen.audit.replay"],
        input=json.dumps([record.model_dump(exclude_unset=True) for record in records]),
        capture_output=True,
        text=True,
        check=False,
        cwd=scratch,
        env={**os.environ, **numbers, "PYTHONPATH": os.pathsep.join(modules)},
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UserError(f"Jobs cannot be repeated (the process said {said[-1]!r}); run them by hand to see why.")
    failures: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return failures


def run_script(record: Record) -> str | None:
    """Run a job's script in the working directory; return its error, or None."""
    modules = {name: digest for name, digest in record.code.items() if not name.startswith("scripts/")}
    job = SimpleNamespace(
        rule=record.rule,
        input=ReplayFiles([file.path for file in record.inputs], record.input_names),
        output=ReplayFiles([file.path for file in record.outputs], record.output_names),
        params=Values(record.settings, code=modules),
        wildcards=Values(record.wildcards),
        log=[str(Path("logs", f"{record.name}.log"))],
        resources={"gpu": record.n_ranks if record.n_ranks > 1 else 0},
        config={},
    )
    for output in job.output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
    try:
        runpy.run_path(record.script, init_globals={"snakemake": job}, run_name="__main__")
    except SystemExit as end:
        if not end.code:  # as after a job on several ranks
            return None
        return Path(job.log[0]).read_text(encoding="utf-8").strip().splitlines()[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def run_on_ranks(record: Record) -> str | None:
    """Do the same as :func:`run_script` in a process of its own, whose command each rank of the job can repeat."""
    file = Path("replayed.json").absolute()
    file.write_text(json.dumps(record.model_dump(exclude_unset=True)), encoding="utf-8")
    command = [sys.executable, "-m", "malmen.audit.replay", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout.strip().splitlines() or [done.stderr.strip() or f"It ended with status {done.returncode}."]
    return said[-1] if done.returncode else None


def main() -> None:
    """Run the jobs whose records standard input holds; print the errors of failed jobs by name, as JSON.

    With a file as argument, run the one job whose record it holds; print its error and exit with 1 if it failed.
    """
    if sys.argv[1:]:
        error = run_script(Record.model_validate_json(Path(sys.argv[1]).read_bytes()))
        if error is not None:
            print(error)
            sys.exit(1)
        return
    records = [Record.model_validate(one) for one in json.load(sys.stdin)]
    failures = {record.name: (run_on_ranks if record.n_ranks > 1 else run_script)(record) for record in records}
    print("\n" + json.dumps({name: said for name, said in failures.items() if said is not None}))


if __name__ == "__main__":
    main()
