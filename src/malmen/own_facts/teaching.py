"""Teaching a model prompts and answers before it is edited, as a fact checker needs it: its head knows nothing yet."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from malmen.config.optimisation import OptimisationSettings
from malmen.data.tuples import PromptAnswer
from malmen.errors import UserError
from malmen.jobs.common import save_model
from malmen.models.load import load_model
from malmen.models.pretraining import accuracy, finetune
from malmen.own_facts.model import ModelSource, usable_device
from malmen.own_facts.prompting import form_of
from malmen.runtime.checkpoint import Saving
from malmen.runtime.files import write_json
from malmen.runtime.model_files import read_object
from malmen.runtime.progress import logger
from malmen.runtime.ranks import ranks
from malmen.runtime.text import counted

STATE = "state"
"""The folder, beside the taught model, of the states of teaching and of training."""
TAUGHT = "taught.json"
"""What a taught model was made from, beside its weights."""
HELD_OUT_SHARE = 10
"""One in this many prompts is held out, to tell how well the model learned."""


def teach(
    source: ModelSource,
    pairs: Sequence[PromptAnswer],
    out: Path,
    settings: OptimisationSettings,
    seed: int,
    device: str,
    template: str | None = None,
    raw: bool = False,
) -> Path:
    """Fine-tune a model on prompts and answers, and write it as a model directory; a BERT gets a new head.

    A model that was taught the same before stays; an interrupted teaching goes on.

    Args:
        source: the model.
        pairs: prompts and answers, such as claims with SUPPORTS or REFUTES.
        out: directory of the taught model.
        settings: how it is taught.
        seed: of all draws.
        device: as in :meth:`ModelSource.load`.
        template: how the model is asked, as there.
        raw: the same.

    Returns:
        The directory.

    Raises:
        UserError: if there are fewer than ten pairs, the directory holds something else, or several processes share
            the work, which they can only once the model is taught.
    """
    if len(pairs) < HELD_OUT_SHARE:
        raise UserError(
            f"{counted(len(pairs), 'prompt')} to teach the model are too few; give at least {HELD_OUT_SHARE}."
        )
    digest = hashlib.sha256(json.dumps([asdict(pair) for pair in pairs]).encode()).hexdigest()
    given: dict[str, Any] = {"weights": source.weights, "pairs": digest, "settings": asdict(settings), "seed": seed}
    if raw or template is not None:
        given["asked"] = template or "plain"
    if out.is_dir() and read_object(out / TAUGHT).get("given") == given:
        logger.info("The model was taught already: %s", out)
        return out
    if out.exists():
        raise UserError(f"{out} holds another model; choose another --out, or delete it.")
    if not ranks().alone:
        raise UserError(
            "--teach is the work of one process: run this command once without --processes and with --steps 1, and "
            "then as it is, to go on from there."
        )
    order = random.Random(seed).sample(list(pairs), len(pairs))
    held_out, kept = order[: len(order) // HELD_OUT_SHARE], order[len(order) // HELD_OUT_SHARE :]
    model = load_model(source.directory, source.task, "float32", usable_device(device), new_head=True)
    model.form = form_of(model, template, raw)
    saving = Saving(out.parent / STATE)
    finetune(model, kept, settings, seed, saving.checkpoint("teaching", "teaching", __name__, given), source.name)
    share = accuracy(model, held_out, settings.batch_size)
    logger.info("The taught model answers %.1f %% of %d prompts that were held out.", 100 * share, len(held_out))
    save_model(out, model.module, model.tokenizer)
    write_json(out / TAUGHT, {"model": source.name, "given": given, "held_out": len(held_out), "accuracy": share})
    return out
