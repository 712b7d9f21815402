"""Making a language model: pretrain it, and teach it what it is to know before it is edited."""

from pathlib import Path

from malmen.data.tuples import read_documents, read_pairs
from malmen.files import replacing_directory
from malmen.models.pretraining import pretrain, teach
from malmen.monitoring import logger
from malmen.settings import OptimisationSettings, ScratchSettings
from malmen.steps.common import Machine, Subject


def pretrain_model(
    text: Path, shape: ScratchSettings, settings: OptimisationSettings, seed: int, out: Path, machine: Machine
) -> None:
    """Train a tiny model and its tokenizer on a text's documents; write an ordinary Hugging Face directory."""
    machine.set_up()
    module, tokenizer = pretrain(read_documents(text), shape, settings, seed)
    with replacing_directory(out) as folder:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def teach_model(
    subject: Subject, taught: Path, settings: OptimisationSettings, seed: int, out: Path, machine: Machine
) -> None:
    """Fine-tune a model on what it is to know before it is edited; write an ordinary Hugging Face directory."""
    model = subject.load(machine)
    share = teach(model, read_pairs(taught), settings, seed)
    logger.info("%s answers %.1f %% of what it was taught", subject.label, 100 * share)
    with replacing_directory(out) as folder:
        model.module.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
