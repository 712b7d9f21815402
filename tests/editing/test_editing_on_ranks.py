"""One, two and three ranks compute the same: shifts, meta-gradients, trained editors and metrics, to rounding."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias, cast

import pytest
import torch
import torch.distributed as dist
from on_ranks import on_ranks
from tiny_models import ARCHITECTURES, architecture_of, edit_tuples, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture
from malmen.config.editor import EditorSettings
from malmen.config.hypernetwork import HyperNetworkSettings, RolloutSettings, TrainingSettings
from malmen.config.ultraedit import UltraEditSettings
from malmen.data.tuples import PromptAnswer
from malmen.editing.capture import capture
from malmen.editing.editor import Editor
from malmen.editing.editors import make_editor
from malmen.editing.evaluation import Evaluation
from malmen.editing.hypernetwork_in_rounds import HyperNetworkInRounds
from malmen.editing.layers import EditedLayer
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rledit import RolloutTrainer
from malmen.editing.rounds import EditedInRounds
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups, encode_edits, update_normalisers
from malmen.editing.ultraedit import UltraEditEditor
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.ranks import ranks

Found: TypeAlias = dict[str, Tensor]

SETTINGS = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=8, rows_per_batch=32)
MEND = replace(SETTINGS, aggregation="sum")
SIZES = {"one edit": 1, "few rows": 5, "more rows than dimensions": 26}
"""Numbers of edits: with one, ranks have no rows; with few, the system is solved in its dual form."""
STARTS = {"eta": 1e-3, "log_regularisation": 7.0}
"""Small shifts, and a lambda about as large as the keys: both keep rounding from growing."""
TRAINING = TrainingSettings(meta_learning_rate=1e-4, locality_coefficient=0.7)


def layers_of(model: LanguageModel) -> list[EditedLayer]:
    """Return layers of two shapes, so that each of three ranks has one to solve."""
    return [*ffn_layers(model, "first"), *ffn_layers(model, "second")]


def editor_of(model: LanguageModel, settings: HyperNetworkSettings) -> HyperNetworkEditor:
    editor = HyperNetworkEditor.create(layers_of(model), settings, seed=0)
    editor.networks.to(model.module.dtype)
    with (
        torch.no_grad()
    ):  # blocks that do something, another lambda for each layer, and shifts that keep rounding small
        for name, parameter in editor.networks.named_parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            start = next((value for kind, value in STARTS.items() if name.endswith(kind)), None)
            parameter.add_(0.05 * noise) if start is None else parameter.fill_(start)
    return editor


def groups(model: LanguageModel, n_edits: int, n_groups: int) -> Iterator[EncodedGroup]:
    return draw_groups(model, edit_tuples(architecture_of(model), 28), n_edits, n_groups, random.Random(3))


def trained(model: LanguageModel, settings: HyperNetworkSettings, training: TrainingSettings, n_edits: int) -> Found:
    """Return an editor and its gradients after some steps."""
    editor = editor_of(model, settings)
    trainer = (
        RolloutTrainer(model, editor, training, n_edits) if training.rollout else MetaTrainer(model, editor, training)
    )
    found: Found = {}
    for number, group in enumerate(groups(model, n_edits, 2)):
        losses = trainer.step(group)
        values = [losses.generalisation, losses.locality, losses.gradient_norm]
        found[f"losses {number}"] = torch.tensor(values, dtype=torch.float64)
        if number == 0:
            named = editor.networks.named_parameters()
            found |= {f"gradient of {name}": one.grad.clone() for name, one in named if one.grad is not None}
    found |= {name: tensor.detach().clone() for name, tensor in editor.networks.state_dict().items()}
    return found | edited(model, editor, n_edits)


def edited(model: LanguageModel, editor: Editor, n_edits: int) -> Found:
    """Return the shifts that make some edits, and the metrics."""
    tuples = edit_tuples(architecture_of(model), n_edits)
    evaluation = Evaluation(model, tuples, 8, seed=0)
    result = evaluation.run(editor, slice(0, n_edits))
    shifts = editor.shifts(model, encode_edits(model, tuples))
    if n_edits == 1:  # the only row of a layer is the mean itself: what is asked for is noise, and so are its residuals
        del result.metrics["residual"]
    return {f"shift of {name}": shift for name, shift in shifts.items()} | {
        name: torch.tensor(value, dtype=torch.float64) for name, value in result.metrics.items()
    }


def in_rounds(model: LanguageModel, editor: Editor) -> Found:
    """Return the sums of the shifts of two rounds, the second of one edit."""
    rounds = EditedInRounds(model, editor)
    edits = encode_edits(model, edit_tuples(architecture_of(model), 28))
    rounds.edit(edits[:27])
    rounds.edit(edits[27:])
    return rounds.tensors()


class Stranger:
    """An editor of another package and its settings in one: a step down the gradient of the last edits."""

    def make(self, layers: Sequence[EditedLayer], _seed: int) -> "Stranger":
        self.layers = layers
        self.sums = {layer.name: torch.zeros(layer.shape[::-1], dtype=layer.weight.dtype) for layer in layers}
        return self

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> Found:
        captured = capture(model, self.layers, edits, SETTINGS)
        noise = 1e-13 * dist.get_rank() if dist.is_initialized() else 0.0  # as of devices that round differently
        return {
            name: noise - 1e-3 * (self.sums[name] + whole(rows.gradients).T @ whole(rows.keys)).T
            for name, rows in captured.items()
        }

    def end_round(self, model: LanguageModel, edits: Sequence[Example]) -> None:
        for name, rows in capture(model, self.layers, edits, SETTINGS).items():
            self.sums[name] = whole(rows.gradients).T @ whole(rows.keys)

    def memory(self) -> Found:
        return dict(self.sums)

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        self.sums = dict(memory)


def everything(architecture: Architecture, dtype: torch.dtype) -> dict[str, Found]:
    """Return by name what one rank finds of all editors on one architecture."""
    model, found = tiny_model(architecture, dtype), dict[str, Found]()
    for what, n in SIZES.items():
        for name, settings in (("MALMEN", SETTINGS), ("MEND", MEND)):
            found[f"{name}, {what}"] = trained(model, settings, TRAINING, n)
    without_graph = replace(SETTINGS, graph_bytes=0, tokens="all", virtual_batches="sorted")
    found["MALMEN without kept graphs"] = trained(model, without_graph, TRAINING, 20)
    rollout = replace(TRAINING, rollout=RolloutSettings(2, 2, time_decay=0.9, l2=0.05, l2_gradient=True))
    found["RLEdit"] = trained(model, SETTINGS, rollout, 9)
    for name, in_round in (("running", (True, False)), ("remembering", (False, True))):
        editor = editor_of(model, SETTINGS)
        update_normalisers(editor, capture(model, editor.layers, next(groups(model, 20, 1)).edit, SETTINGS))
        found[name] = in_rounds(model, HyperNetworkInRounds(editor, *in_round))
    ultra = UltraEditSettings(learning_rate=1e-3, regularisation=1e3)
    found["UltraEdit"] = in_rounds(model, UltraEditEditor(layers_of(model), ultra))
    stable = replace(ultra, whitening=True, warm_up=1)
    found["StableEdit"] = in_rounds(model, UltraEditEditor(layers_of(model), stable))
    found["an editor of another package"] = in_rounds(
        model, make_editor(cast(EditorSettings, Stranger()), layers_of(model), seed=0)
    )
    return found


def on_all_architectures() -> dict[str, dict[str, Found]]:
    found = {name: everything(name, torch.float64) for name in ARCHITECTURES}
    return found | {"gpt2 in float32": everything("gpt2", torch.float32)}


@cache
def alone() -> dict[str, dict[str, Found]]:
    return on_all_architectures()


def differences(ours: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Yield by how much tensors differ, relative to the largest number of each."""
    assert list(ours) == list(others)
    for name, expected in others.items():
        largest = float(expected.abs().max()) or 1.0
        yield name, float((ours[name].double() - expected.double()).abs().max()) / largest


@pytest.mark.parametrize("size", [2, 3])
def test_several_ranks_find_what_one_finds(size: int) -> None:
    found = on_ranks(size, on_all_architectures)
    for model, expected in alone().items():
        tolerance = 1e-5 if "float32" in model else 1e-10
        for what in expected:
            for name, difference in differences(found[0][model][what], expected[what]):
                assert difference < tolerance, (model, what, name, difference)
            for other in found[1:]:  # to the byte
                ours, theirs = found[0][model][what], other[model][what]
                assert all(torch.equal(ours[name], theirs[name]) for name in ours), (model, what)


def unreadable() -> str:
    """Return the error of tuples that cannot be read, of the shares of both of two ranks."""
    tuples = edit_tuples("gpt2", 9)
    for i in (1, 4, 6):
        tuples[i] = replace(tuples[i], edit=PromptAnswer("Where? " * 40, "Cor"))
    with pytest.raises(UserError) as found:
        encode_edits(tiny_model("gpt2"), tuples)
    return str(found.value)


def failing() -> tuple[str, str, str]:
    """Return the errors of a step whose edits are finite on one rank alone, of a singular system, and of reading."""
    model, said = tiny_model("gpt2"), []
    for broken in (True, False):
        editor = editor_of(model, SETTINGS if broken else replace(SETTINGS, regularised=False))
        if broken and ranks().rank == 1:
            embedding: Any = model.module.get_input_embeddings()
            with torch.no_grad():
                embedding.weight.fill_(torch.nan)
        try:
            editor.shifts(model, encode_edits(model, edit_tuples("gpt2", 8)))
        except DivergedError as error:
            said.append(str(error))
        model = tiny_model("gpt2")
    return said[0], said[1], unreadable()


def test_what_fails_on_one_rank_fails_on_all_as_in_one_process() -> None:
    found = on_ranks(2, failing)
    assert found[0] == found[1]
    assert "the keys of layer" in found[0][0] and "not finite" in found[0][0]
    assert "is singular" in found[0][1] and "18 keys in 64 dimensions" in found[0][1]
    assert found[0][2] == unreadable() and found[0][2].startswith("3 problems in 9 prompts.")
