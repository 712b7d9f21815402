"""Hand-made memory measurements."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MIB = 2**20


def points(computation: str, peaks: Mapping[int, int | None]) -> list[dict[str, Any]]:
    """Return a point per m with its peak in MiB; None is over the limit."""
    return [
        {
            "computation": computation,
            "n_edits": m,
            "status": "ok" if peak else "over the limit",
            "peak_bytes": peak and peak * MIB,
            "seconds": 1.0 if peak else None,
        }
        for m, peak in peaks.items()
    ]


def write_memory_file(
    path: Path, separated: Mapping[int, int | None], concatenated: Mapping[int, int | None], limit: int | None = None
) -> Path:
    """Write measurements of gpt2; ``limit`` is in MiB."""
    measured = [
        *points("loaded", {0: 256}),
        *points("separated", separated),
        *points("concatenated", concatenated),
    ]
    about = {"model": "gpt2", "model_label": "GPT-2 (tiny)", "device": "cpu", "limit_bytes": limit and limit * MIB}
    path.write_text(json.dumps({**about, "points": measured}), encoding="utf-8")
    return path
