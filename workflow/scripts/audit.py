"""Trace every figure and table back to its raw data."""

import sys
import tempfile
from pathlib import Path

import yaml

from malmen.jobs.job import logged
from malmen.audit.audit import audit
from malmen.audit.report import report
from malmen.runtime.files import write_text

with logged(Path(snakemake.log[0])), tempfile.TemporaryDirectory() as folder:
    configuration = Path(folder, "config.yaml")
    write_text(configuration, yaml.safe_dump(snakemake.config, sort_keys=False))
    outcome = audit(snakemake.config["run"], configuration)
    print(report(outcome), flush=True)
    if not outcome.holds:
        sys.exit(1)
