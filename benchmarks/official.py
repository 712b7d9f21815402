"""Runs the official implementation (github.com/ChenmienTan/malmen, commit 1df295dc) from a checkout, for comparison.

None of its code is part of this repository. This module adapts it from outside to run on generated inputs:

* ``wandb`` is replaced by a module whose ``log`` does nothing, and ``omegaconf``, where it is not installed,
  by one with an empty ``DictConfig``: they serve logging and annotations only.
* Its hydra configuration becomes plain objects with the values of its YAML files.
* Its progress bar is removed.
* Its GPT-2 is the one of transformers, without the replaced activations of our model.
* Its BERT reads a weight file; here its two parts are those of our model, with copies of the same weights.
* Its binary KL divergence gives one value per claim, on which ``backward`` fails; the mean over the batch is taken.
"""

import copy
import importlib
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from malmen.editing.malmen import HyperNetworkEditor, LayerSlot
from malmen.editing.training import EncodedGroup
from malmen.models.language_model import VIRTUAL_BATCH, Example, LanguageModel

COMMIT = "1df295dc"


class OfficialFactChecker(nn.Module):
    """Our BERT with the names and the signature of the official one."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.backbone, self.head = module.bert, module.fact_head

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the log-odds at CLS, (B, 1)."""
        labelless = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        return {"logits": self.head(self.backbone(**labelless).last_hidden_state[:, 0])}


class Official:
    """The official MALMEN on a copy of a model, with its default settings.

    Args:
        checkout: folder of the official repository.
        model: the model, whose weights are copied.
        editor: our editor, for the names of its layers and its rank.
        n_edits: the number of edits m.
        cache: an empty folder for its files of keys and gradients.
    """

    def __init__(
        self, checkout: Path, model: LanguageModel, editor: HyperNetworkEditor, n_edits: int, cache: Path
    ) -> None:
        module = with_usual_activations(copy.deepcopy(model.module))
        is_bert = model.module.config.model_type == "bert"
        self.module: Any = OfficialFactChecker(module) if is_bert else module
        prefix = ("bert.", "backbone.") if is_bert else ("", "")
        self.names = {layer.name: layer.name.replace(*prefix, 1) if is_bert else layer.name for layer in editor.layers}
        for name in self.names.values():
            self.module.get_submodule(name).weight.requires_grad = True
        self.editor = editor_class(checkout)(
            configuration(list(self.names.values()), editor, n_edits, cache), self.module
        )

    def step(self, batches: dict[str, list[dict[str, Tensor]]]) -> None:
        """Take a training step."""
        self.editor.train([batches])

    def step_with_the_same_statistics(self, batches: dict[str, list[dict[str, Tensor]]]) -> None:
        """Take a training step on the cached rows, without an update of the normalisers."""
        cache, self.editor.cache = self.editor.cache, lambda _batches: None
        try:
            self.step(batches)
        finally:
            self.editor.cache = cache

    def cache(self, batches: dict[str, list[dict[str, Tensor]]]) -> None:
        """Write keys and value gradients of the edits to files."""
        self.editor.cache(batches["edit_tuples"])

    def shifts(self) -> dict[str, Tensor]:
        """Return the shifts for the cached rows, (d_in, d_out), by our names of the layers."""
        found = self.editor.predict_param_shifts()
        return {ours: found[theirs] for ours, theirs in self.names.items()}

    def copy_into(self, editor: HyperNetworkEditor) -> None:
        """Copy the hyper-networks' parameters and the normalisers' statistics into our editor."""
        for slot in editor.slots:
            network, theirs = editor.network(slot), self.editor.net[str(slot.layer.shape)]
            network.load_state_dict(converted(theirs, network.state_dict()))

    def gradients(self, editor: HyperNetworkEditor) -> dict[str, Tensor]:
        """Return the gradients of the last step by our names of the parameters."""
        named: dict[str, Tensor] = {}
        for slot in first_of_each_shape(editor):
            for name, parameter in self.editor.net[str(slot.layer.shape)].named_parameters():
                if parameter.grad is not None:
                    named[f"{slot.network}.{ours_named(name)}"] = parameter.grad
        return named


def with_usual_activations(module: Any) -> Any:
    """Undo :func:`malmen.models.language_model.fuse_activations`: restore GPT-2's GELU of eight operations."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GELU) and child.approximate == "tanh":
                setattr(parent, name, NewGELUActivation())
    return module


def first_of_each_shape(editor: HyperNetworkEditor) -> list[LayerSlot]:
    """Return one slot for each hyper-network."""
    return [slot for slot in editor.slots if slot.index == 0]


def converted(theirs: nn.Module, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of one official hyper-network under our names, in the shapes of ``ours``."""
    state = {ours_named(name): tensor for name, tensor in theirs.state_dict().items()}
    renamed = {"normaliser.count": state["normalizer.n"], "normaliser.mean": state["normalizer.mean"]}
    renamed["normaliser.variance"] = state["normalizer.std"].square()
    state = {name: tensor for name, tensor in state.items() if not name.startswith("normalizer")} | renamed
    return {name: state[name].view_as(tensor) for name, tensor in ours.items()}


def ours_named(name: str) -> str:
    """Return our name of an official parameter."""
    known = {"lr.weight": "eta", "lamda.weight": "log_regularisation"}
    return known.get(name, name.removesuffix(".weight"))


def editor_class(checkout: Path) -> Any:
    """Import the official MALMEN.

    Raises:
        SystemExit: if the folder is not a checkout of it.
    """
    if not (checkout / "editor" / "malmen.py").is_file():
        sys.exit(f"{checkout} is no checkout of the official code; clone github.com/ChenmienTan/malmen and name it.")
    sys.modules["wandb"] = stub("wandb", log=lambda _values: None)
    if find_spec("omegaconf") is None:
        sys.modules["omegaconf"] = stub("omegaconf", DictConfig=object)
    sys.path.insert(0, str(checkout))
    base: Any = importlib.import_module("editor.base")
    base.tqdm = lambda items, **_: items
    plain = base.kl_div
    base.kl_div = lambda *logits_and_labels: plain(*logits_and_labels).mean()
    return importlib.import_module("editor.malmen").MALMEN


def stub(name: str, **content: Any) -> ModuleType:
    """Return a module with the given content."""
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def configuration(names: list[str], editor: HyperNetworkEditor, n_edits: int, cache: Path) -> Any:
    """Return the official configuration: its defaults, with the rank of our editor."""
    settings = editor.settings
    return SimpleNamespace(
        model=SimpleNamespace(edit_modules=names, name_or_path="model"),
        data=SimpleNamespace(n_edits=n_edits, batch_size=VIRTUAL_BATCH),
        editor=SimpleNamespace(
            name="malmen", rank=settings.rank, n_blocks=settings.blocks, lr=settings.learning_rate, meta_lr=1e-5,
            loc_coef=1, max_grad_norm=1, batch_size=1024, token="ans", cache_dir=str(cache), load_checkpoint=False,
        ),
        editor_device=str(editor.device),
        model_device=str(editor.layers[0].weight.device),
    )  # fmt: skip


def official_batches(model: LanguageModel, group: EncodedGroup) -> dict[str, list[dict[str, Tensor]]]:
    """Return a group in batches of 32, like the official loader."""
    kinds = {"edit_tuples": group.edit, "equiv_tuples": group.equivalent, "unrel_tuples": group.unrelated}
    return {
        kind: [
            official_batch(model, examples[start : start + VIRTUAL_BATCH])
            for start in range(0, VIRTUAL_BATCH * math.ceil(len(examples) / VIRTUAL_BATCH), VIRTUAL_BATCH)
        ]
        for kind, examples in kinds.items()
    }


def official_batch(model: LanguageModel, examples: list[Example]) -> dict[str, Tensor]:
    """Return examples in the format of the official model, padded to the longest."""
    batch = model.collate(examples, range(len(examples)))
    if model.module.config.model_type == "bert":
        return {**batch.inputs, "labels": batch.targets[:, None].float()}
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels.view(-1)[batch.answer_rows] = batch.targets
    return {**batch.inputs, "labels": labels}
