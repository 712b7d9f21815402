"""Compares the demo with and without the cache, by the CPU times in the records of two runs.

    snakemake JOBS                                # metrics of trained editors, below results/demo/metrics/validation
    mv results/demo/records without
    rm -r results/demo/editors results/demo/metrics
    snakemake JOBS                                # with `cache: {}` in the configuration
    python benchmarks/demo.py --without without --with results/demo/records

Times are of whole jobs, including the start of Python and the records. Results go to ``benchmarks/results``.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting

RULES = ("cache_base_outputs", "train_editor", "evaluate_editor")


def of_rule(records: Path, rule: str) -> dict[str, Any]:
    """Return the number of recorded jobs of a rule, and their CPU time in seconds."""
    jobs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((records / rule).rglob("*.json"))]
    return {"jobs": len(jobs), "seconds": round(sum(job["circumstances"]["cpu_seconds"] for job in jobs), 1)}


def main() -> None:
    """Sum the times and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", type=Path, required=True, help="records of the run without a cache")
    parser.add_argument("--with", dest="cached", type=Path, required=True, help="records of the run with one")
    arguments = parser.parse_args()
    folders = {"without": arguments.without, "with": arguments.cached}
    found = {name: {rule: of_rule(folder, rule) for rule in RULES} for name, folder in folders.items()}
    jobs = {name: (of["train_editor"]["jobs"], of["evaluate_editor"]["jobs"]) for name, of in found.items()}
    if jobs["without"] != jobs["with"] or not any(jobs["with"]):
        sys.exit(f"The two runs are not of the same jobs (training, editing: {jobs}); run the same targets.")
    reporting.write("demo", {"runs": found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
