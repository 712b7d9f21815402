"""The measurements by which claims are checked, by the names that the files of claims give them."""

from collections.abc import Mapping
from typing import Any

from malmen.figures import claims, rounds_claims
from malmen.figures.evidence import Evidence, Finding, Measurement

MEASUREMENTS: dict[str, Measurement] = {**claims.MEASUREMENTS, **rounds_claims.MEASUREMENTS}


def measure(evidence: Evidence, measurement: str, arguments: Mapping[str, Any]) -> Finding | None:
    """Return the finding of a measurement on one model; None without data or without one of its editors."""
    editors = [evidence.key(arguments[name]) for name in ("editor", "baseline") if name in arguments]
    if any(editor not in evidence.labels for editor in editors):
        return None
    return MEASUREMENTS[measurement](evidence, **arguments)


def described(measurement: str) -> str:
    """Return a measurement with the file that holds it."""
    module = MEASUREMENTS[measurement].__module__
    return f"{measurement} in src/{module.replace('.', '/')}.py"
