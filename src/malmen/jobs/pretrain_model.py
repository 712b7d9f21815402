"""Pretraining a tiny language model from scratch."""

from dataclasses import asdict
from pathlib import Path

from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import ScratchSettings
from malmen.data.tuples import read_documents
from malmen.jobs.common import Machine, save_model
from malmen.models.pretraining import pretrain
from malmen.runtime.checkpoint import NOTHING_SAVED, Saving
from malmen.runtime.files import sha256


def pretrain_model(
    name: str,
    text: Path,
    shape: ScratchSettings,
    settings: OptimisationSettings,
    seed: int,
    out: Path,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
) -> None:
    """Train a tiny model and its tokenizer on the documents of a text; write them as a Hugging Face directory.

    ``name`` names the model in messages.
    """
    machine.set_up()
    given = {"text": sha256(text), "shape": asdict(shape), "settings": asdict(settings), "seed": seed}
    checkpoint = saving.checkpoint(
        "pretraining", f"pretraining {name}", __name__, {**given, "machine": machine.identity()}
    )
    module, tokenizer = pretrain(read_documents(text), shape, settings, seed, checkpoint, name)
    save_model(out, module, tokenizer)
