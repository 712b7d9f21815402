"""Translate a part of the originals and back."""

from pathlib import Path

from malmen.jobs.job import job, logger
from malmen.config.translation import TranslationSettings
from malmen.data.rebuild import OriginalsPart
from malmen.jobs.back_translate import translate_part
from malmen.jobs.common import Machine

with job(snakemake):
    report = translate_part(
        Path(snakemake.input.originals),
        OriginalsPart(*map(int, snakemake.wildcards.part.split("-of-"))),
        Path(snakemake.input.forward),
        Path(snakemake.input.backward),
        TranslationSettings(**snakemake.params.settings),
        Path(snakemake.output.rephrasings),
        Machine(**snakemake.params.machine),
    )
    report.write(Path(snakemake.output.report))
    logger.info("%s", report)
