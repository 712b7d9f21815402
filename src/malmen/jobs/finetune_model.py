"""Fine-tuning a language model before editing, on the facts that it should know."""

from dataclasses import asdict
from pathlib import Path

from malmen.config.optimisation import OptimisationSettings
from malmen.data.tuples import read_pairs
from malmen.jobs.common import Machine, ModelSpec, save_model
from malmen.models.pretraining import finetune
from malmen.runtime.checkpoint import NOTHING_SAVED, Saving
from malmen.runtime.files import sha256
from malmen.runtime.progress import logger


def finetune_model(
    spec: ModelSpec,
    pairs: Path,
    settings: OptimisationSettings,
    seed: int,
    out: Path,
    machine: Machine,
    saving: Saving = NOTHING_SAVED,
) -> None:
    """Fine-tune a model on prompts with their answers; write it as a Hugging Face directory."""
    model = spec.load(machine, new_head=True)
    given = {"model": spec.identity(), "pairs": sha256(pairs), "settings": asdict(settings), "seed": seed}
    checkpoint = saving.checkpoint(
        "finetuning", f"fine-tuning {spec.label}", __name__, {**given, "machine": machine.identity()}
    )
    share = finetune(model, read_pairs(pairs), settings, seed, checkpoint, spec.label)
    logger.info("%s answers %.1f %% of the prompts that it was fine-tuned on", spec.label, 100 * share)
    save_model(out, model.module, model.tokenizer)
