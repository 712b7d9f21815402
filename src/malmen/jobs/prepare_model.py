"""Making a language model: pretrain it, and teach it what it is to know before it is edited."""

from dataclasses import asdict
from pathlib import Path

from malmen.config.optimisation import OptimisationSettings
from malmen.config.scratch import ScratchSettings
from malmen.data.tuples import read_documents, read_pairs
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.pretraining import pretrain, teach
from malmen.runtime.checkpoint import NOTHING_SAVED, Saving
from malmen.runtime.files import replacing_directory, sha256
from malmen.runtime.progress import logger


def pretrain_model(
    label: str,
    text: Path,
    shape: ScratchSettings,
    settings: OptimisationSettings,
    seed: int,
    out: Path,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
) -> None:
    """Train a tiny model and its tokenizer on a text's documents; write an ordinary Hugging Face directory.

    ``label`` names the model in messages.
    """
    machine.set_up()
    given = {"text": sha256(text), "shape": asdict(shape), "settings": asdict(settings), "seed": seed}
    checkpoint = saving.checkpoint(
        "pretraining", f"pretraining {label}", __name__, {**given, "machine": asdict(machine)}
    )
    module, tokenizer = pretrain(read_documents(text), shape, settings, seed, checkpoint, label)
    with replacing_directory(out) as folder:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def teach_model(
    spec: ModelSpec,
    taught: Path,
    settings: OptimisationSettings,
    seed: int,
    out: Path,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
) -> None:
    """Fine-tune a model on what it is to know before it is edited; write an ordinary Hugging Face directory."""
    model = spec.load(machine)
    given = {"model": spec.identity(), "taught": sha256(taught), "settings": asdict(settings), "seed": seed}
    checkpoint = saving.checkpoint(
        "teaching", f"teaching {spec.label}", __name__, {**given, "machine": asdict(machine)}
    )
    share = teach(model, read_pairs(taught), settings, seed, checkpoint, spec.label)
    logger.info("%s answers %.1f %% of what it was taught", spec.label, 100 * share)
    with replacing_directory(out) as folder:
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
