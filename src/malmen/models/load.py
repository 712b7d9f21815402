"""Loading a language model from any Hugging Face directory."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from malmen.config.base import DeviceMap, Dtype, TaskName
from malmen.errors import UserError, first_line
from malmen.models.causality import check_causal
from malmen.models.fact_checker import FactChecker
from malmen.models.identity import check_complete, warn_of_half
from malmen.models.language_model import LanguageModel
from malmen.models.tasks import TASKS
from malmen.models.tokenizer import load_tokenizer
from malmen.runtime.model_files import FACT_HEAD

# Every tensor that torch allocates on a CPU begins at a multiple of this many bytes.
TORCH_ALIGNMENT = 64


def load_model(
    directory: Path,
    task: TaskName,
    dtype: Dtype = "float32",
    device: str = "cpu",
    device_map: DeviceMap | None = None,
    new_head: bool = False,
) -> LanguageModel:
    """Load a model and its tokenizer from a directory in the format of ``save_pretrained``.

    Only safetensors are read, and no code from the directory runs.

    Args:
        directory: the model directory.
        task: how it answers.
        dtype: precision of its weights, whatever they are stored in; a warning says so of float16.
        device: the device of the whole model.
        device_map: the device of each part instead; accelerate moves tensors between them.
        new_head: whether a missing fact-checking head is initialised at random with a fixed seed, to be fine-tuned.

    Raises:
        UserError: if the directory holds no model for the task, or a file is missing or broken, or the model is to
            continue prompts but sees later tokens.
    """
    check_complete(directory, str(directory))
    warn_of_half(directory, dtype)
    if device_map is not None and find_spec("accelerate") is None:
        raise UserError("A device_map needs accelerate, which is not installed; run pip install -e '.[large]'.")
    weights: dict[str, Any] = {"dtype": getattr(torch, dtype), "use_safetensors": True, "device_map": device_map}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module: Any
            module, info = model_class(directory, task).from_pretrained(
                directory, output_loading_info=True, local_files_only=True, trust_remote_code=False, **weights
            )
    except UserError:
        raise
    except Exception as error:  # transformers and tokenizers raise errors of any kind for broken files.
        raise UserError(
            f"The model directory {directory} cannot be loaded ({first_line(error)}); fetch or train it again."
        ) from None
    missing = sorted(info["missing_keys"])
    if any(name.startswith(FACT_HEAD) for name in missing) and not new_head:
        raise UserError(
            f"The BERT in {directory} has no fact-checking head, so its verdicts would be random; teach it "
            "first from labelled claims (malmen train --teach CLAIMS, or base_finetuning of the model in a "
            "configuration), and give the taught model."
        )
    if missing := [name for name in missing if not name.startswith(FACT_HEAD)]:
        others = f" and {len(missing) - 1} more" if missing[1:] else ""
        saved_as = ", ".join(module.config.architectures or ["no class that config.json names"])
        raise UserError(
            f"The weights in {directory}, saved as {saved_as}, lack {missing[0]}{others}, which "
            f"{type(module).__name__} needs; take a model that was saved with them, or download it again."
        )
    align(module)
    tokenizer = load_tokenizer(directory, f"The model directory {directory}")
    model = LanguageModel(module if device_map else module.to(device), tokenizer, TASKS[task])
    if task == "question_answering":
        check_causal(model, str(directory))
    return model


def align(module: nn.Module) -> None:
    """Copy weights that a safetensors file is mapped to, so that they lie where torch puts tensors of its own.

    In the file they begin at any multiple of 8 bytes. Processors without AVX-512 round products of such matrices
    otherwise, so that a model would answer differently, in the last digit, once it has been saved and loaded.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.data_ptr() % TORCH_ALIGNMENT:
            tensor.data = tensor.data.clone()


def model_class(directory: Path, task: TaskName) -> Any:
    """Return the transformers class that loads the directory for the task.

    Raises:
        UserError: if the architecture cannot do the task.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    if task == "fact_checking":
        if config.model_type != "bert":
            raise UserError(f"{directory} holds a {config.model_type!r} model; fact checking needs 'bert'.")
        return FactChecker
    if config.is_encoder_decoder != (task == "sequence_to_sequence"):
        needed = "sequence_to_sequence" if config.is_encoder_decoder else "question_answering"
        raise UserError(
            f"{directory} holds a {config.model_type!r} model; it answers by the task {needed!r}, not {task!r}."
        )
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
