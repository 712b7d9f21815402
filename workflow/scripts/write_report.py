"""Write the HTML report, by Snakemake's own command for it."""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from malmen.jobs.job import logged
from malmen.errors import UserError
from malmen.runtime.files import write_text

with logged(Path(snakemake.log[0])), tempfile.TemporaryDirectory() as folder:
    configuration = Path(folder, "config.yaml")
    write_text(configuration, yaml.safe_dump(snakemake.config, sort_keys=False))
    command = ["--nolock", "--configfile", str(configuration), "--report", snakemake.params.out, "--", "all"]
    command = [sys.executable, "-m", "snakemake", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`snakemake --report` failed: {' '.join(done.stderr.split())[-300:]}")
