"""Back-translation of a part of the originals into candidate rephrasings."""

from collections import Counter
from pathlib import Path

from malmen.config.translation import TranslationSettings
from malmen.data.rebuild import OriginalsPart, all_originals, distinct, write_rephrasings
from malmen.data.reports import Report
from malmen.jobs.common import Machine
from malmen.models.translation import back_translate, load_translator


def translate_part(
    originals: Path,
    part: OriginalsPart,
    forward: Path,
    backward: Path,
    settings: TranslationSettings,
    out: Path,
    machine: Machine,
) -> Report:
    """Translate a part of the originals and back, and write the rephrasings that differ.

    Args:
        originals: File of the originals (:func:`malmen.data.rebuild.select_originals`).
        part: Which of them to translate.
        forward: Directory of the model that translates to the other language.
        backward: Directory of the model that translates back.
        settings: Settings of the translation.
        out: File for the rephrasings, by id of the original.
        machine: Where to run.

    Returns:
        The number of candidates dropped, by reason.

    Raises:
        UserError: if a model cannot be loaded.
    """
    machine.set_up()
    there, back = (load_translator(directory, settings, machine.device) for directory in (forward, backward))
    chosen = part(all_originals(originals))
    candidates = back_translate([original.prompt for original in chosen], there, back)
    rephrasings: dict[str, list[str]] = {}
    dropped: Counter[str] = Counter({"empty": 0, "same_as_the_original": 0, "repeated": 0})
    for original, texts in zip(chosen, candidates, strict=True):
        rephrasings[original.id], reasons = distinct(original.prompt, texts)
        dropped.update(reasons)
    write_rephrasings(out, rephrasings)
    kept = sum(map(len, rephrasings.values()))
    return Report("back-translate", "rephrasings", sum(map(len, candidates)), dict(dropped), kept)
