"""Hand-made metrics files."""

import json
from pathlib import Path
from typing import Any

REASON = "the normal equation of layer h.3 is singular at step 2"


def group(value: float = 0.9, **other: float) -> dict[str, float]:
    """Return the metrics of one group: ``value`` after the edit, 0.1 before, unless named in ``other``."""
    before = {"pre_ES": 0.1, "pre_GS": 0.1, "pre_LS": 0.1}
    return {"ES": value, "GS": value, "LS": value, **before, "agreement": value} | other


def ok(n_edits: int, *groups: dict[str, float]) -> dict[str, Any]:
    return {"n_edits": n_edits, "seed": 0, "status": "ok", "reason": None, "groups": list(groups)}


def diverged(n_edits: int, reason: str = REASON) -> dict[str, Any]:
    return {"n_edits": n_edits, "seed": 0, "status": "diverged", "reason": reason, "groups": []}


def write_metrics(
    folder: Path, *runs: dict[str, Any], editor: str = "malmen", seed: int = 0, model: str = "gpt2", **other: Any
) -> Path:
    content = {
        "model": model,
        "model_label": {"gpt2": "GPT-2 (tiny)", "bert": "BERT (tiny)"}.get(model, model),
        "dataset": {"gpt2": "zsre", "bert": "fever"}.get(model, "other"),
        "editor": editor,
        "editor_label": editor.upper(),
        "runs": [run | {"seed": seed} for run in runs],
    }
    path = folder / f"{model}-{editor}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content | other), encoding="utf-8")
    return path
