"""Trace every figure and table back to its raw data."""

import sys
import tempfile
from pathlib import Path

import yaml

from malmen.files import write_text
from malmen.jobs import logged
from malmen.provenance.audit import audit, report

with logged(Path(snakemake.log[0])), tempfile.TemporaryDirectory() as folder:
    configuration = Path(folder, "config.yaml")
    write_text(configuration, yaml.safe_dump(snakemake.config, sort_keys=False))
    outcome = audit(configuration)
    print(report(outcome), flush=True)
    if not outcome.holds:
        sys.exit(1)
