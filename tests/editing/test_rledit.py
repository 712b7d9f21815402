"""RLEdit's rounds: against MALMEN's steps, and against autograd through plain functions of the parameters."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_models import architecture_of, edit_tuples, ffn_layers, tiny_editor, tiny_model
from torch import Tensor
from torch.func import functional_call

from malmen.config.hypernetwork import (
    HyperNetworkEditorSettings,
    HyperNetworkSettings,
    RolloutSettings,
    TrainingSettings,
)
from malmen.editing.base_outputs import LiveBaseOutputs
from malmen.editing.capture import capture
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.moved import moved
from malmen.editing.rledit import RolloutTrainer, decayed
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups
from malmen.errors import DivergedError
from malmen.jobs.train_editor import train_editor
from malmen.models.language_model import Batch, Example, LanguageModel
from malmen.results.run import Run
from malmen.results.training import Moved, TrainingFile
from malmen.runtime.checkpoint import Checkpoint, State

SETTINGS = HyperNetworkSettings(rank=6, learning_rate=1e-2, batch_size=16)
MEND = replace(SETTINGS, aggregation="sum")
COEFFICIENT, DECAY, L2 = 0.6, 0.9, 0.05
FAR = 1e9
"""A norm that no gradient has, so that none is clipped."""


def rollout(
    n_rounds: int, sequences: int = 1, *, largest_norm: float = FAR, meta_learning_rate: float = 1e-2, **settings: Any
) -> TrainingSettings:
    given = RolloutSettings(sequences, n_rounds, **({"time_decay": DECAY, "l2": L2} | settings))
    return TrainingSettings(
        meta_learning_rate=meta_learning_rate,
        locality_coefficient=COEFFICIENT,
        max_meta_gradient_norm=largest_norm,
        rollout=given,
    )


def groups_of(model: LanguageModel, n_groups: int, n_edits: int = 9) -> list[EncodedGroup]:
    tuples = edit_tuples(architecture_of(model), 28)
    return list(draw_groups(model, tuples, n_edits, n_groups, random.Random(3)))


def left_start(model: LanguageModel, settings: HyperNetworkSettings = SETTINGS) -> HyperNetworkEditor:
    """Return an editor in float64 that has left its initial values, B = 0 among them."""
    editor = tiny_editor(model, settings)
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2))
    for group in draw_groups(model, edit_tuples(architecture_of(model), 40), 20, 3, random.Random(1)):
        trainer.step(group)
    editor.networks.zero_grad(set_to_none=True)
    # Larger shifts than the weights themselves would make the next round amplify rounding.
    with torch.no_grad():
        for network in {slot.network: editor.network(slot) for slot in editor.slots}.values():
            network.eta.mul_(0.1)
    return editor


def gradients(editor: HyperNetworkEditor) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in editor.networks.named_parameters() if one.grad is not None}


def parameters(editor: HyperNetworkEditor) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in editor.networks.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# Against MALMEN.


@pytest.mark.parametrize("settings", [SETTINGS, MEND], ids=["malmen", "mend"])
def test_sequences_of_one_round_are_malmens_steps_bit_for_bit(
    model: LanguageModel, settings: HyperNetworkSettings
) -> None:
    found = []
    plain = TrainingSettings(meta_learning_rate=1e-2, locality_coefficient=COEFFICIENT)
    for training in (plain, replace(plain, rollout=RolloutSettings(4, 1, back_depth=1))):
        editor = tiny_editor(model, settings)
        live = LiveBaseOutputs(model, editor.layers)
        trainer = (
            RolloutTrainer(model, editor, training, 4)
            if training.rollout
            else MetaTrainer(model, editor, training, base_outputs=live)
        )
        losses = [trainer.step(group) for group in groups_of(model, 4)]
        found.append((losses, {name: tensor.clone() for name, tensor in editor.networks.state_dict().items()}))
    assert found[0][0] == found[1][0]
    assert same(found[0][1], found[1][1])


# Against autograd.


def logits(model: LanguageModel, weights: dict[str, Tensor], batch: Batch) -> Tensor:
    """Return the answer logits, (R, C), with some weights replaced, by name, as the model stores them."""

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model.module

        def forward(self) -> Tensor:
            return model.task.logits(self.module, batch.inputs, batch.answer_rows)

    found: Tensor = functional_call(Logits(), {f"module.{name}.weight": one for name, one in weights.items()}, ())
    return found


def shifts_of(model: LanguageModel, editor: HyperNetworkEditor, edits: Sequence[Example]) -> dict[str, Tensor]:
    """Return the shifts, (d_in, d_out), as functions of the parameters, on the weights that the model has now."""
    captured = capture(model, editor.layers, edits, editor.settings)
    rows = {name: (whole(one.keys), whole(one.gradients)) for name, one in captured.items()}
    for slot in editor.slots:
        editor.network(slot).normaliser.update(torch.cat(rows[slot.layer.name], dim=1))
    shifts = {}
    for slot in editor.slots:
        network, (keys, value_gradients) = editor.network(slot), rows[slot.layer.name]  # (n, d_in), (n, d_out)
        pseudo_keys, pseudo_gradients = network(keys, value_gradients, slot.index)
        eta = network.eta[slot.index]
        if editor.settings.aggregation == "sum":
            shifts[slot.layer.name] = -eta * pseudo_keys.T @ pseudo_gradients
            continue
        differences = -eta * (keys * pseudo_keys).sum(1, keepdim=True) * pseudo_gradients  # (n, d_out)
        system = keys.T @ keys + network.log_regularisation[slot.index].exp() * torch.eye(keys.shape[1]).double()
        shifts[slot.layer.name] = torch.linalg.solve(system, keys.T @ differences)  # (d_in, d_out)
    return shifts


def reference(
    model: LanguageModel, editor: HyperNetworkEditor, groups: Sequence[EncodedGroup], l2: float, back_depth: int = 2
) -> None:
    """Add the gradients of rounds to the ``grad`` of the parameters; every loss is one term after the other."""
    start = {layer.name: layer.weight.data.clone() for layer in editor.layers}
    now = dict(start)
    for t, group in enumerate(groups):
        for layer in editor.layers:
            layer.weight.data = now[layer.name]
        shifts = shifts_of(model, editor, group.edit)
        for layer in editor.layers:
            layer.weight.data = start[layer.name]
        later = {layer.name: now[layer.name] + layer.orient(shifts[layer.name]) for layer in editor.layers}
        loss = l2 * torch.stack([(shift**2).sum() for shift in shifts.values()]).sum()
        for age in range(min(t + 1, back_depth)):
            seen = groups[t - age]
            (equivalent,), (unrelated,) = (
                list(model.batches(part, 1000)) for part in (seen.equivalent, seen.unrelated)
            )
            nll = model.task.negative_log_likelihood(logits(model, later, equivalent), equivalent.targets)  # (R,)
            before = logits(model, now, unrelated).detach()  # (R, C)
            kl = model.task.divergence(before, logits(model, later, unrelated))  # (R,)
            # At most 32 tuples are one virtual batch, over whose answers losses are means.
            loss = loss + DECAY**age * (nll.mean() + COEFFICIENT * kl.mean())
        loss.backward()
        now = {name: weight.detach() for name, weight in later.items()}


@pytest.mark.parametrize("l2_gradient", [False, True])
@pytest.mark.parametrize("settings", [SETTINGS, MEND], ids=["malmen", "mend"])
@pytest.mark.parametrize("n_edits", [3, 14])  # few rows, whose gradient is taken another way, and many
def test_the_gradient_of_rounds_is_autograds(
    model: LanguageModel, settings: HyperNetworkSettings, l2_gradient: bool, n_edits: int
) -> None:
    editor, twin = left_start(model, settings), left_start(model, settings)
    groups = groups_of(model, 3, n_edits)
    trainer = RolloutTrainer(model, editor, rollout(4, back_depth=2, l2_gradient=l2_gradient), 4)
    for group in groups:
        trainer.step(group)
    reference(model, twin, groups, L2 if l2_gradient else 0.0)
    found, expected = gradients(editor), gradients(twin)
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert one.norm() > 0, name
        assert (found[name] - one).norm() <= 1e-7 * one.norm(), name  # every round amplifies rounding


def test_the_norm_of_the_shifts_matters_only_with_its_gradient(gpt2: LanguageModel) -> None:
    found = []
    for l2, l2_gradient in ((0.0, False), (L2, False), (L2, True)):
        editor = left_start(gpt2)
        trainer = RolloutTrainer(gpt2, editor, rollout(3, back_depth=2, l2=l2, l2_gradient=l2_gradient), 4)
        trainer.step(groups_of(gpt2, 1)[0])
        found.append(gradients(editor))
    assert same(found[0], found[1]) and not same(found[1], found[2])


def test_earlier_rounds_count_less(gpt2: LanguageModel) -> None:
    groups = groups_of(gpt2, 3, 5)
    seen = decayed(groups, DECAY)
    for found, kinds in zip(seen, zip(*groups, strict=True), strict=True):
        weights = [DECAY**age * example.weight for age in range(3) for example in kinds[age]]
        assert [example.weight for example in found] == pytest.approx(weights, rel=1e-15)
        assert [example.tokens for example in found] == [example.tokens for kind in kinds for example in kind]


def test_a_round_looks_back_over_as_many_rounds_as_it_is_told(gpt2: LanguageModel) -> None:
    trainer = RolloutTrainer(gpt2, left_start(gpt2), rollout(5, sequences=2, back_depth=3), 4)
    depths = []
    for group in groups_of(gpt2, 10, 2):
        before = trainer.remembered
        trainer.step(group)
        depths.append(before + 1)
    assert depths == [1, 2, 3, 3, 3, 1, 2, 3, 3, 3]
    settings = trainer.rollout
    assert settings.groups_per_round(4) == sum(depths[:5]) / 5


# What a round changes.


def test_the_sum_of_the_gradients_is_clipped_after_every_round(gpt2: LanguageModel) -> None:
    norm, groups = 1e-3, groups_of(gpt2, 2)
    editor, twin = left_start(gpt2), left_start(gpt2)
    clipped = RolloutTrainer(gpt2, editor, rollout(3, largest_norm=norm, back_depth=2), 4)
    plain = RolloutTrainer(gpt2, twin, rollout(3, back_depth=2), 4)
    single = []
    for group in groups:
        clipped.step(group)
        before = gradients(twin) or None
        plain.step(group)
        single.append({name: g - (before[name] if before else 0) for name, g in gradients(twin).items()})
    expected: dict[str, Tensor] = {}
    for own in single:
        total = {name: g + expected.get(name, torch.zeros(())) for name, g in own.items()}
        length = torch.stack([g.norm() for g in total.values()]).norm()
        assert length > norm
        expected = {name: g * norm / length for name, g in total.items()}
    for name, g in gradients(editor).items():
        torch.testing.assert_close(g, expected[name], rtol=1e-2, atol=1e-9)  # torch adds 1e-6 to the norm


@pytest.mark.parametrize(
    ("rounds_per_step", "expected"), [("all", [5, 10]), (1, list(range(1, 11))), (2, [2, 4, 5, 7, 9, 10])]
)
def test_adam_takes_a_step_when_it_is_told(gpt2: LanguageModel, rounds_per_step: Any, expected: Sequence[int]) -> None:
    editor = left_start(gpt2)
    trainer = RolloutTrainer(gpt2, editor, rollout(5, sequences=2, rounds_per_step=rounds_per_step), 4)
    steps, count = [], editor.network(editor.slots[0]).normaliser.count.clone()
    for number, group in enumerate(groups_of(gpt2, 10, 3), start=1):
        before = parameters(editor)
        trainer.step(group)
        now = editor.network(editor.slots[0]).normaliser.count.clone()
        assert now > count  # every round goes into the normaliser
        count = now
        if not same(before, parameters(editor)):
            steps.append(number)
    assert steps == expected


def test_edits_stay_until_the_sequence_ends_and_the_model_is_unedited_between_rounds(model: LanguageModel) -> None:
    editor = left_start(model)
    trainer = RolloutTrainer(model, editor, rollout(2, sequences=2, meta_learning_rate=1e-30), 4)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    first, second, *_ = groups_of(model, 2)
    losses = []
    for group in (first, second, first, second):
        losses.append(trainer.step(group))
        assert any(total.any() for total in trainer.totals.values()) == bool(trainer.in_sequence)
        after = model.module.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        assert not any(parameter.requires_grad for parameter in model.module.parameters())
    # The normaliser has seen the same rows once more in the same proportions, but for those of the second group.
    assert losses[2].generalisation == pytest.approx(losses[0].generalisation, rel=0.2)
    assert losses[1].generalisation != losses[0].generalisation


def test_small_shifts_add_up_where_the_weights_precision_would_lose_them() -> None:
    model = tiny_model("gpt2", torch.bfloat16)
    editor = HyperNetworkEditor.create(ffn_layers(model), replace(SETTINGS, learning_rate=1e-7), seed=0)
    trainer = RolloutTrainer(model, editor, rollout(6, rounds_per_step="all"), 4)
    for group in groups_of(model, 5):
        trainer.step(group)
    for layer in editor.layers:
        total = trainer.totals[layer.name]
        assert total.dtype == torch.float32 and total.any()
        assert total.abs().max() < 2**-9 * layer.weight.abs().float().median()


def test_a_divergence_names_its_round(gpt2: LanguageModel) -> None:
    editor = left_start(gpt2)
    trainer = RolloutTrainer(gpt2, editor, rollout(2, sequences=3), 4)
    groups = groups_of(gpt2, 4)
    for group in groups[:3]:
        trainer.step(group)
    with torch.no_grad():
        editor.network(editor.slots[0]).eta.fill_(torch.nan)
    with pytest.raises(DivergedError, match=r"in round 2 of sequence 2, the shift of layer .* is not finite"):
        trainer.step(groups[3])


# Interruption.


def trained(
    model: LanguageModel, training: TrainingSettings, checkpoint: Checkpoint
) -> tuple[HyperNetworkEditor, TrainingFile]:
    settings = HyperNetworkEditorSettings(label="RLEdit", hypernetwork=SETTINGS, training=training)
    layers = ffn_layers(model)
    tuples = edit_tuples(architecture_of(model), 28)
    live = LiveBaseOutputs(model, layers)
    return train_editor(model, layers, settings, tuples, Run(4, 5), checkpoint, live)[:2]


@pytest.mark.parametrize("rounds_per_step", ["all", 2])
def test_an_interrupted_training_ends_the_same(
    tmp_path: Path, rounds_per_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = rollout(5, sequences=2, back_depth=3, rounds_per_step=rounds_per_step, largest_norm=0.01)
    states: list[State] = []
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", lambda _, state: states.append(state))
        whole_editor, whole_record = trained(
            tiny_model("gpt2", torch.float32), training, Checkpoint(tmp_path / "state", every_seconds=0)
        )
    assert len(states) == 11
    for number, state in enumerate(states):
        checkpoint = Checkpoint(tmp_path / f"{number}.safetensors", every_seconds=1e9)
        checkpoint.write(state)
        editor, record = trained(tiny_model("gpt2", torch.float32), training, checkpoint)
        assert record == whole_record
        assert same(dict(editor.networks.state_dict()), dict(whole_editor.networks.state_dict())), number


# How far parameters moved.


def test_how_far_parameters_moved(gpt2: LanguageModel) -> None:
    editor, start = tiny_editor(gpt2, SETTINGS), tiny_editor(gpt2, SETTINGS)
    values = dict(editor.networks.named_parameters())
    with torch.no_grad():
        values["64x16.eta"].add_(torch.tensor([3e-2, -4e-2]))
        values["64x16.blocks.1.bias"][3] = -2.0
        values["64x16.blocks.0.scale"][0, 5] += 0.5
    found = moved(start.networks, editor.networks)
    assert set(found) == {"eta", "log_regularisation", "A", "B", "bias", "scale", "shift"}
    assert found["eta"].largest == pytest.approx(4e-2)
    assert found["eta"].relative == pytest.approx(5e-2 / (2**0.5 * 1e-2))
    assert found["bias"] == Moved(2.0, None) and found["shift"] == Moved(0.0, None)
    n_scales = sum(value.numel() for name, value in values.items() if name.endswith("scale"))
    assert found["scale"].largest == 0.5 and found["scale"].relative == pytest.approx(0.5 / n_scales**0.5)
    assert found["A"] == Moved(0.0, 0.0)


def test_every_training_tells_how_far_parameters_moved(tmp_path: Path) -> None:
    gpt2 = tiny_model("gpt2", torch.float32)
    for training in (TrainingSettings(max_steps=2), rollout(3, meta_learning_rate=1e-5)):
        editor, record = trained(gpt2, training, Checkpoint())
        start = HyperNetworkEditor.create(editor.layers, editor.settings, seed=5)
        assert record.moved and record.moved == moved(start.networks, editor.networks)
        assert record.moved["eta"].largest > 0
        # B is 0 at first, so that the first step moves no A.
        assert (record.moved["A"].largest > 0) == (training.rollout is None)
        record.write(tmp_path / "training.json")
        assert TrainingFile.read(tmp_path / "training.json") == record
    assert record.moved and record.moved["eta"].largest == pytest.approx(
        1e-5, rel=0.01
    )  # Adam's first step is its learning rate


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text('{"status": "ok", "reason": null, "losses": []}')
    assert TrainingFile.read(path).moved is None


# Settings.


def test_the_public_codes_training_is_one_step() -> None:
    released = RolloutSettings(sequences=1, n_rounds=400)
    assert [t for t in range(1, 401) if released.ends_step(t, 400)] == [400]
    assert (released.back_depth, released.time_decay, released.l2, released.l2_gradient) == (10, 0.95, 1e-4, False)
    training = TrainingSettings(locality_coefficient=0.6, rollout=released)
    assert training.steps(8_000, 20) == 400 and training.groups_per_step(20) == pytest.approx(10 - 45 / 400)
    assert TrainingSettings().groups_per_step(20) == 1


def test_a_total_makes_fewer_rounds_of_more_edits() -> None:
    settings = RolloutSettings(sequences=3, total=512, rounds_per_step=1)
    assert [settings.rounds(m) for m in (512, 64, 8, 600)] == [1, 8, 64, 1]
    training = TrainingSettings(rollout=settings)
    assert [training.steps(900, m) for m in (512, 64, 8)] == [3, 24, 192]
    assert training.groups_per_step(512) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rollout": {"sequences": 2}}, "set either n_rounds or total"),
        ({"rollout": {"sequences": 2, "n_rounds": 3, "total": 4}}, "set either n_rounds or total"),
        (
            {"rollout": {"sequences": 2, "n_rounds": 3, "rounds_per_step": 4}},
            "rounds_per_step is 4 but a sequence has 3",
        ),
        ({"rollout": {"sequences": 2, "n_rounds": 3}, "min_steps": 5}, "set min_steps to 0 and max_steps to null"),
        ({"rollout": {"sequences": 2, "n_rounds": 3}, "max_steps": 5}, "max_steps is 5, but a rollout makes"),
        ({"rollout": {"sequences": 0, "n_rounds": 3}}, "sequences"),
        ({"rollout": {"n_rounds": 3}}, "sequences"),
        ({"rollout": {"sequences": 2, "n_rounds": 3, "time_decay": 1.5}}, "time_decay"),
        ({"rollout": {"sequences": 2, "n_rounds": 3, "back_depth": 0}}, "back_depth"),
        ({"rollout": {"sequences": 2, "n_rounds": 3, "rounds_per_step": "none"}}, "rounds_per_step"),
    ],
)
def test_mistakes_in_the_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings(**settings)
