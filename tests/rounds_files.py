"""Hand-made rounds files and the files of their costs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REASON = "round 3: the weights of layer h.2 are not finite"


def values(value: float, **other: float) -> dict[str, float]:
    """Return measures: ``value`` after the edits, 0.2 of the unedited model, unless named in ``other``."""
    after = dict.fromkeys(("ES", "GS", "LS", "agreement"), value)
    return {**after, **{f"pre_{name}": 0.2 for name in ("ES", "GS", "LS")}, "pre_agreement": 1.0, **other}


def in_rounds(rounds: str, value: float, after: Sequence[int] = (), seed: int = 0, **other: float) -> dict[str, Any]:
    """Return a run that did not diverge, with the same values at each of its measurements."""
    n_rounds, n_edits = map(int, rounds.split("x"))
    measured = [
        {"after": place, "n_edits": place * n_edits, "values": values(value, **other)}
        for place in sorted({*after, n_rounds})
    ]
    of = {"n_rounds": n_rounds, "n_edits": n_edits, "seed": seed}
    return {**of, "status": "ok", "reason": None, "measured": measured}


def diverged_in_rounds(
    rounds: str, value: float = 0.5, after: Sequence[int] = (), seed: int = 0, reason: str = REASON
) -> dict[str, Any]:
    """Return a run that diverged after the measurements named."""
    run = in_rounds(rounds, value, after, seed)
    return {**run, "status": "diverged", "reason": reason, "measured": run["measured"][:-1]}


def write_rounds(
    folder: Path, editor: str, *runs: dict[str, Any], model: str = "gpt2", name: str = "runs", label: str = ""
) -> Path:
    content = {
        "model": model,
        "model_label": f"{model.upper()} (tiny)",
        "dataset": "zsre",
        "editor": editor,
        "editor_label": label or editor.upper(),
        "runs": list(runs),
    }
    path = folder / "rounds" / model / editor / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_rounds_costs(folder: Path, editor: str, *costs: tuple[str, int, Sequence[float], int]) -> Path:
    """Write costs: rounds, seed, seconds of each round, and peak memory in MiB."""
    content = []
    for rounds, seed, seconds, mib in costs:
        n_rounds, n_edits = map(int, rounds.split("x"))
        of = {"n_rounds": n_rounds, "n_edits": n_edits, "seed": seed}
        content.append({**of, "seconds": list(seconds), "peak_bytes": mib * 2**20})
    path = folder / "rounds" / f"{editor}.cost.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
