"""The report of an audit, as text: what is wrong, what has changed since, and the verdict."""

from collections import Counter
from pathlib import Path

from malmen.audit.audit import Outcome
from malmen.audit.trail import Broken, Trail, parents
from malmen.runtime.text import counted, first_few, printed_name

SHOWN = 5
"""Number of jobs that the report names for one reason."""
ADVICE = "Rebuild a missing file with `snakemake PATH` (same --configfile); delete a file that differs first."


def report(outcome: Outcome) -> str:
    """Return the report of an audit."""
    numbers = outcome.counts
    counts = ", ".join(f"{number:,} {kind}" for kind, number in sorted(numbers.items()) if number)
    total = counted(numbers.total(), "link holds", "links hold") + (f" ({counts})." if counts else ".")
    return "\n".join([*paragraphs(outcome), *outcome.remarks, *origin(outcome), total, *verdict(outcome)])


def origin(outcome: Outcome) -> list[str]:
    """Return sentences about the commits of the code, and about what has changed since."""
    lines, codes = [], outcome.trail.code.values()
    changed, uncommitted = (
        list(dict.fromkeys(file for code in codes for file in getattr(code, name)))
        for name in ("changed", "uncommitted")
    )
    if made_at := outcome.made_at.most_common():
        jobs = first_few([f"{commit[:12]} ({counted(number, 'job')})" for commit, number in made_at])
        since = f"{counted(len(changed), 'module')} changed since: {first_few(changed, SHOWN)}"
        lines.append(f"Made at {jobs}, {since if changed else 'no module changed since'}.")
    if touched := outcome.touched:
        results = [printed_name(Path(path).stem) for path in outcome.results_touched]
        again = f"{len(touched)} of {counted(len(outcome.trail.flow), 'job')}"
        lines.append(f"A re-run would repeat {again}, and make again: {first_few(results, SHOWN) or 'no result'}.")
    if uncommitted:
        ran = sum(bool(code.uncommitted) for code in codes)
        lines.append(f"{counted(ran, 'job')} ran with uncommitted changes of code: {first_few(uncommitted, SHOWN)}.")
    return lines


def verdict(outcome: Outcome) -> list[str]:
    """Return the sentences at the end of a report."""
    kinds = Counter(one.kind for one in outcome.broken)
    absent = kinds.pop("not here", 0)
    if kinds:
        said = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
        return [f"{counted(kinds.total(), 'link is', 'links are')} broken: {said}.", ADVICE]
    unknown, lines = outcome.without_commit, []
    if absent:
        files = counted(absent, "file is not here, and need not be", "files are not here, and need not be")
        lines.append(f"{files}; `malmen restore --full` gets what DVC keeps.")
    if unknown:
        jobs = counted(len(unknown), "job")
        lines.append(f"The commit of the code is unknown for {jobs}: {first_few(unknown)}.")
    held = "Every link holds" if unknown else "Everything that is here holds" if absent else "Everything holds"
    return [*lines, f"{held}: {outcome.what} leads back to its raw data."]


def paragraphs(outcome: Outcome) -> list[str]:
    """Return the broken links, grouped by reason, each group with the results that depend on it."""
    groups: dict[tuple[str, str], list[Broken]] = {}
    for one in (one for one in outcome.broken if one.kind != "not here"):
        groups.setdefault((one.kind, one.reason), []).append(one)
    lines = []
    for (kind, reason), members in groups.items():
        lines += [f"{kind + ':':<12}{one.what}" for one in members[:SHOWN]]
        if len(members) > SHOWN:
            lines.append(f"{'':<12}and {len(members) - SHOWN} more")
        lines += [f"{'':<14}{reason}", f"{'':<14}{dependents(outcome.trail, members[0])}", ""]
    return lines


def affected(trail: Trail, broken: Broken) -> list[list[str]]:
    """Return the lineages from figures and tables to a broken link (:meth:`Trail.lineages`)."""
    read = {file for flow in trail.flow.values() for file in flow.inputs}
    path = next((place for place in parents(broken.what) if place in trail.makers or place in read), "")
    return trail.lineages(broken.job, path)


def dependents(trail: Trail, broken: Broken) -> str:
    """Return the figures and tables that depend on a broken link, with the lineage of the first."""
    lineages = affected(trail, broken)
    if not any(lineages):
        return "no recorded figure or table depends on it"
    first, *others = lineages
    if len(first) == 1:
        return f"it is itself a result: {first[0]}"
    more = counted(len(others), "other result", "other results")
    also = f"; {more}: {first_few([lineage[0] for lineage in others], SHOWN)}" if others else ""
    return f"affects {' ← '.join(first)}{also}"
