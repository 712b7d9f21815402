"""Hand-made cost files."""

import json
from pathlib import Path

from malmen.figures.compute import PricedEditor
from malmen.figures.costs import CostFiles


def cost(n_edits: int, seed: int, seconds: float, mib: int = 100) -> dict[str, object]:
    return {"run": {"n_edits": n_edits, "seed": seed}, "seconds": seconds, "peak_bytes": mib * 2**20}


def priced(
    folder: Path,
    editor: str,
    training: list[dict[str, object]] | None,
    editing: list[dict[str, object]],
    model: str = "gpt2",
) -> PricedEditor:
    """Write the costs of one editor: a file for each training, one for all edits."""
    trained = [folder / f"{model}_{editor}_{place}.cost.json" for place, _ in enumerate(training or [])]
    for path, item in zip(trained, training or [], strict=True):
        path.write_text(json.dumps([item]))
    edited = folder / f"{model}_{editor}.cost.json"
    edited.write_text(json.dumps(editing))
    files = CostFiles(tuple(trained), (edited,))
    return PricedEditor(model, {"gpt2": "GPT-2 (tiny)"}.get(model, model), editor, editor.upper(), files)
