"""The audit of a part of a run: of one figure or table, one of its numbers, or one file."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from malmen.audit.audit import Outcome
from malmen.audit.by_run import by_run, disagreements
from malmen.audit.code_check import check_code
from malmen.audit.commits import Commits
from malmen.audit.drawings import check_drawings
from malmen.audit.lineage import lines_of, matching, numbers_of, on_disk, overview, reached, single, tree, understood
from malmen.audit.trail import Broken, Trail
from malmen.provenance.records import Record
from malmen.results.sources import SUFFIX


def explain(words: Sequence[str], trail: Trail) -> tuple[str, Outcome]:
    """Return the lineage of a figure or table, of one of its numbers, or of a file, and whether all of it holds.

    Every record and file of the lineage is checked, but for files that DVC keeps elsewhere; the result is drawn again,
    and a number is computed again from its runs.

    Args:
        words: ``results/demo/tables/table1.csv:MALMEN:GS:gpt2``, or as several words, ``table1 MALMEN GS gpt2``.
        trail: the records, unchecked.

    Raises:
        UserError: if the words name no result with an intact record, or are ambiguous.
    """
    path, choice = understood(words, trail)
    numbers = numbers_of(path, trail)
    number = single(matching(numbers, choice), path, choice, numbers) if choice else None
    files = list(number.runs) if number else [path]
    records = list({record.name: record for record in [*reached(files, trail), trail.makers[path]]}.values())
    trail.published_allowed = True
    trail.check_records(records)
    with tempfile.TemporaryDirectory() as scratch:
        check_code(trail, records, Commits(trail.root, Path(scratch).resolve()))
        remarks = check_drawings(trail, [trail.makers[path]])
    measured = by_run(number, trail.root) if number else {}
    if number:
        place = next(output.path for output in trail.makers[path].outputs if output.path.endswith(SUFFIX))
        for said in disagreements(number, measured):
            trail.report("changed", place, said, trail.makers[path])
    disk = on_disk(trail)
    if number:
        page = tree([path], trail, disk, deep=False)
        lines = [*lines_of(number, path, measured), "", *tree(files, trail, disk), "", *page]
    else:
        lines = [*(overview(entry, path) for entry in numbers), *tree([path], trail, disk)]
    outcome = Outcome(trail, trail.links, relevant(records, trail), remarks, "what is shown here")
    return "\n".join([*lines, ""]), outcome


def relevant(records: Sequence[Record], trail: Trail) -> list[Broken]:
    """Return the broken links of some records and of the jobs that made their inputs."""
    made = {file.maker.name for record in records for file in record.inputs if file.maker}
    names = {record.name for record in records} | made
    return [one for one in trail.broken if one.job in names]
