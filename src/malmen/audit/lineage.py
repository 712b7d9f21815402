"""The lineage of one figure, one number or one file, as text; :mod:`malmen.audit.part` checks it."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from malmen.audit.by_run import ByRun
from malmen.audit.trail import Code, Trail, no_results, parents
from malmen.errors import UserError
from malmen.provenance.records import Input, Record
from malmen.results.sources import AS_PUBLISHED, SUFFIX, Shown, SourcesFile
from malmen.runtime.text import counted, either, first_few

FILLERS = {"on", "of", "at", "in", "with", "m", "the"}
"""Words of a query that select nothing."""
LISTED = 20
"""Number of choices that are listed when a query is ambiguous."""


def reached(files: Iterable[str], trail: Trail) -> list[Record]:
    """Return the records of all jobs that led to files, nearest first."""
    found: dict[str, Record] = {}
    waiting = list(dict.fromkeys(files))
    for path in waiting:  # grows during the loop
        record = maker(path, trail)
        if record and record.name not in found:
            found[record.name] = record
            waiting += [file.path for file in record.inputs]
    return list(found.values())


def on_disk(trail: Trail) -> dict[str, str]:
    """Return what is missing or differs of the files that a trail has checked, by path."""
    states = {"changed": "differs", "missing": "missing", "not here": "not here"}
    return {one.what: states[one.kind] for one in trail.broken if one.kind in states}


def understood(words: Sequence[str], trail: Trail) -> tuple[str, list[str]]:
    """Return the result that the first words name (by path, name or stem), and the other words.

    Raises:
        UserError: if they name no result.
    """
    parts = [part for word in words for part in re.split(r"[:,\s]+", word) if part]
    names: dict[str, str] = {}
    for output in (output for record in trail.records.values() for output in record.outputs):
        names |= dict.fromkeys([output.path, *output.digests], output.path)
        short = Path(output.path).name
        for name in (short, short.partition(".")[0]):
            names.setdefault(name, output.path)
    for count in (2, 1):  # "table 1" is table1
        head = "".join(parts[:count]).removeprefix("./")
        path = names.get(head) or names.get(head.lower())
        if path and len(parts) >= count:
            return path, [part for part in parts[count:] if part.lower() not in FILLERS]
    if trail.broken:
        raise UserError(f"{' '.join(words)!r} names no result with an intact record. {trail.broken[0].reason}")
    if not names:
        raise no_results(trail.run)
    known = sorted(Path(path).name.removesuffix(SUFFIX) for path in trail.makers if path.endswith(SUFFIX))
    one_of = f", or one of {', '.join(known)}, with words that choose a number, as in 'table1 MALMEN GS gpt2'"
    raise UserError(
        f"{' '.join(words)!r} names no result of {trail.run}; name a file below results or data"
        f"{one_of if known else ' (no figure or table is drawn yet)'}."
    )


def numbers_of(path: str, trail: Trail) -> Sequence[Shown]:
    """Return the map from numbers to runs of a figure or table; an empty list for other files."""
    outputs = [trail.root / output.path for output in trail.makers[path].outputs]
    file = next((output for output in outputs if output.name.endswith(SUFFIX)), None)
    return SourcesFile.read(file).numbers if file and file.is_file() else ()


def key(text: Any) -> str:
    """Return the form of a text for comparisons: lower-case letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", str(text).lower())


def matching(numbers: Sequence[Shown], words: Sequence[str]) -> list[Shown]:
    """Return the numbers of which a value equals every word or, if there are none, contains it."""
    for whole in (True, False):
        found = [number for number in (matched(entry, words, whole) for entry in numbers) if number]
        ours = [number for number in found if number.how != AS_PUBLISHED]
        if found:
            return ours or found
    return []


def matched(entry: Shown, words: Sequence[str], whole: bool) -> Shown | None:
    """Return an entry with the metrics that words name (default: all) if the other words match it, else None."""
    metrics = [metric for metric in entry.values if key(metric) in map(key, words)]
    others = [key(word) for word in words if key(word) not in map(key, metrics)]
    said = {key(value) for value in entry.of.values()} | {key(f"{n}{value}") for n, value in entry.of.items()}
    said |= {f"m{entry.of.get('n_edits')}"}
    fits = all(word in said or (not whole and any(word in one for one in said)) for word in others)
    chosen = {metric: entry.values[metric] for metric in metrics or entry.values}
    return entry.model_copy(update={"values": chosen}) if fits else None


def single(found: Sequence[Shown], path: str, words: Sequence[str], numbers: Sequence[Shown]) -> Shown:
    """Return the single match.

    Raises:
        UserError: if there are none, or several.
    """
    if len(found) == 1:
        return found[0]
    entries = found or numbers
    names = dict.fromkeys(name for entry in entries for name in entry.of)
    values = {name: list(dict.fromkeys(str(entry.of.get(name, "none")) for entry in entries)) for name in names}
    choices = [f"{name} ({', '.join(some[:LISTED])})" for name, some in values.items()]
    missing = [f"the {name}: {either(some[:LISTED])}" for name, some in values.items() if len(some) > 1]
    asked = " ".join(words)
    if not entries:
        raise UserError(f"{path} has no named numbers; ask for the file without further words.")
    if found:
        raise UserError(f"{asked!r} matches {len(found)} numbers of {path}; add {'; '.join(missing)}.")
    metrics = ", ".join(dict.fromkeys(name for entry in entries for name in entry.values))
    raise UserError(f"{path} has no number for {asked!r}; choose from {'; '.join(choices)}, and from {metrics}.")


def described(entry: Shown) -> str:
    """Describe an entry by its model, editor, ..."""
    return ", ".join(f"{name} {value}" for name, value in entry.of.items())


def format_value(value: Any) -> str:
    """Format a value: a number, a text, or a mean with its deviation."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {format_value(part)}" for name, part in value.items() if part is not None) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def overview(entry: Shown, path: str) -> str:
    """Summarise an entry of a figure or table and its runs in one line."""
    runs = sum(len(some) for some in entry.runs.values())
    origin = f"{counted(runs, 'run')} in {counted(len(entry.runs), 'file')}" if runs else ", ".join(entry.runs)
    return f"{Path(path).name.partition('.')[0]}: {described(entry)}: {', '.join(entry.values)} from {origin}"


def lines_of(number: Shown, path: str, measured: ByRun) -> Iterator[str]:
    """Yield lines about a number: its value, its computation, and its runs with the value of each."""
    yield f"{path}: {described(number)}"
    for metric, value in number.values.items():
        yield f"  {metric}: {format_value(value)}"
    yield f"  ({number.how})"
    total = sum(len(some) for some in number.runs.values())
    yield f"From {counted(total, 'run')}:" if total else "From:"
    for file, some in number.runs.items():
        yield f"  {file}"
        for m, seed in some:
            values = measured.get((file, m, seed), {})
            said = ", ".join(f"{name} {format_value(value)}" for name, value in values.items())
            yield f"    m = {m}, seed {seed}{said and f': {said}'}"


def tree(paths: Iterable[str], trail: Trail, disk: Mapping[str, str], deep: bool = True) -> Iterator[str]:
    """Yield lines about the jobs that made files and, if ``deep``, indented lines about their inputs.

    ``disk`` holds the files that are missing or differ (:func:`on_disk`).
    """
    shown: set[str] = set()
    reads = {file.path: file for record in trail.records.values() for file in record.inputs}
    pending: list[tuple[int, str, Input | None]] = [(0, path, reads.get(path)) for path in reversed(list(paths))]
    while pending:
        depth, path, read = pending.pop()
        record = maker(path, trail)
        indent = "  " * depth
        if record is None:
            digest = f" (sha256 {read.sha256[:12]}…)" if read else ""
            lost = f"made by {read.maker.name}, whose record is missing or changed" if read and read.maker else None
            yield f"{indent}{path}{digest}: {lost or 'part of the repository, or a local model'}"
            yield from (f"{indent}  | on disk: {disk[file]}" for file in (read.digests if read else ()) if file in disk)
        elif record.name in shown:
            yield f"{indent}{path}: as above, by {record.name}"
        else:
            shown.add(record.name)
            known = {
                p: d for output in record.outputs for p, d in (*output.digests.items(), (output.path, output.sha256))
            }
            yield f"{indent}{path} (sha256 {known[path][:12]}…)"
            yield from (f"{indent}  | {line}" for line in made(record, trail.code.get(record.name)))
            files = [file for output in record.outputs for file in output.digests if file in disk]
            yield from (f"{indent}  | on disk: {disk[file]}{'' if file == path else f' ({file})'}" for file in files)
            pending += [(depth + 1, file.path, file) for file in reversed(record.inputs if deep else [])]


def maker(path: str, trail: Trail) -> Record | None:
    """Return the record of the job that made a file or a directory around it."""
    return next((trail.makers[place] for place in parents(path) if place in trail.makers), None)


def made(record: Record, code: Code | None = None) -> Iterator[str]:
    """Yield lines about a job; ``code`` says what has changed since."""
    ran = record.circumstances
    yield f"by {record.name}, {ran.started}, in {ran.seconds:.1f} s; record {record.digest[:12]}…"
    yield from lasting(record)
    changes = f", with uncommitted changes of {first_few(ran.uncommitted)}" if ran.uncommitted else ""
    since = f"; changed since: {first_few(code.changed)}" if code and code.changed else ""
    yield f"code of {counted(len(record.code), 'module')}, commit {(ran.commit or 'unknown')[:12]}{changes}{since}"


def lasting(record: Record) -> Iterator[str]:
    """Yield lines about what is the same in every run of a job."""
    if record.upstream:
        yield f"from {record.upstream.urls[0]} (checksum {record.upstream.checksum[:12]}…, {record.upstream.licence})"
    if record.model:
        model = record.model
        origin = f"{model.id} at {model.revision}" if model.revision else model.id or "trained from scratch"
        made = [weights for output in record.outputs if (weights := output.weights)]
        states = [f"read the weights {model.weights[:12]}…"] * (model.weights not in made)
        states += [f"made the weights {weights[:12]}…" for weights in made]
        yield f"model {model.name} ({origin}), {', '.join(states)}"
    # Deeper seeds belong to settings of a method.
    setting = [f"{name} {value}" for name, value in record.seeds.items() if name.count(".") < 2]
    if record.determinism:
        flags = record.determinism
        exact = "deterministic" if flags.deterministic_algorithms else "not deterministic"
        threads, turns = counted(flags.threads, "thread"), record.circumstances.ranks_in_turn
        if turns:
            threads = f"{', then '.join(map(str, turns))} processes of {threads}"
        elif record.n_ranks > 1:
            threads = f"{record.n_ranks} processes of {threads}"
        setting.append(f"{flags.device}, {threads}, {exact}")
    if setting:
        yield "; ".join(setting)
