"""Drawing groups, and what a meta-step changes."""

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch
from tiny_models import architecture_of, edit_tuples, encoded_group, tiny_editor

from malmen.config.hypernetwork import HyperNetworkSettings, TrainingSettings
from malmen.data.tuples import EditTuple, PromptAnswer
from malmen.editing.capture import capture
from malmen.editing.concatenated import meta_gradient_concatenated
from malmen.editing.malmen import HyperNetworkEditor
from malmen.editing.rows import whole
from malmen.editing.training import EncodedGroup, MetaTrainer, draw_groups
from malmen.models.language_model import LanguageModel

SETTINGS = HyperNetworkSettings(rank=6, learning_rate=1e-2)
SUMMED = replace(SETTINGS, aggregation="sum")


def editor_for(model: LanguageModel, settings: HyperNetworkSettings = SETTINGS, seed: int = 0) -> HyperNetworkEditor:
    return tiny_editor(model, settings, seed)


def tokens(model: LanguageModel, prompt: str, answer: str) -> tuple[int, ...]:
    return model.encode([PromptAnswer(prompt, answer)])[0].tokens


def ids_of(model: LanguageModel, groups: list[EncodedGroup], tuples: list[EditTuple]) -> list[list[str]]:
    """Return the tuples that each group was made of, by the tokens of their edits."""
    names = {tokens(model, item.edit.prompt, item.edit.answer): item.id for item in tuples}
    assert len(names) == len(tuples)
    return [[names[example.tokens] for example in group.edit] for group in groups]


def drawn(model: LanguageModel, n_edits: int, steps: int, seed: int = 0, n: int = 23) -> list[EncodedGroup]:
    return list(draw_groups(model, edit_tuples(architecture_of(model), n), n_edits, steps, random.Random(seed)))


def test_a_pass_draws_each_tuple_once_at_most_and_drops_the_incomplete_group(model: LanguageModel) -> None:
    tuples = edit_tuples(architecture_of(model), 23)
    passes = ids_of(model, drawn(model, 5, 12), tuples)
    assert [len(group) for group in passes] == [5] * 12
    for start in (0, 4, 8):
        seen = Counter(name for group in passes[start : start + 4] for name in group)
        assert len(seen) == 20 and set(seen.values()) == {1}
    assert passes[:4] != passes[4:8]


def test_a_group_holds_an_equivalent_of_each_edit_and_its_unrelated_tuple(model: LanguageModel) -> None:
    tuples = edit_tuples(architecture_of(model), 23)
    by_id = {item.id: item for item in tuples}
    groups = drawn(model, 23, 6)
    chosen = set()
    for group, ids in zip(groups, ids_of(model, groups, tuples), strict=True):
        for name, equivalent, unrelated in zip(ids, group.equivalent, group.unrelated, strict=True):
            item = by_id[name]
            own = [tokens(model, prompt, item.edit.answer) for prompt in item.equivalent]
            chosen.add((name, own.index(equivalent.tokens)))
            assert equivalent.targets == model.encode([item.edit])[0].targets
            assert unrelated.tokens == tokens(model, item.unrelated.prompt, item.unrelated.answer)
    assert len(chosen) > 1.5 * 23  # Of two equivalents each, drawn anew six times.


def test_draws_depend_on_the_seed_alone(gpt2: LanguageModel) -> None:
    assert drawn(gpt2, 5, 6, seed=1) == drawn(gpt2, 5, 6, seed=1)
    assert drawn(gpt2, 5, 6, seed=1) != drawn(gpt2, 5, 6, seed=2)


@pytest.mark.parametrize(
    "n_tuples, n_edits, steps",
    [(244_173, 512, 476), (244_173, 4096, 59), (244_173, 16_384, 14), (104_966, 512, 205), (104_966, 4096, 25)],
)
def test_one_pass_makes_the_papers_number_of_steps(n_tuples: int, n_edits: int, steps: int) -> None:
    assert TrainingSettings().steps(n_tuples, n_edits) == steps


def test_the_number_of_steps_can_be_bounded() -> None:
    assert TrainingSettings(min_steps=30).steps(100, 10) == 30
    assert TrainingSettings(min_steps=5).steps(100, 10) == 10
    assert TrainingSettings(max_steps=4).steps(100, 10) == 4


def test_a_step_moves_every_parameter_and_takes_the_rows_into_the_normaliser(model: LanguageModel) -> None:
    editor = editor_for(model)
    before = {name: parameter.clone() for name, parameter in editor.networks.named_parameters()}
    group = encoded_group(model, 40)
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-3))
    trainer.step(group)
    trainer.step(group)
    assert not [name for name, value in editor.networks.named_parameters() if torch.equal(value, before[name])]
    normaliser = editor.network(editor.slots[0]).normaliser
    captured = capture(model, editor.layers, group.edit, editor.settings)
    rows = torch.cat([torch.cat((whole(c.keys), whole(c.gradients)), dim=1) for c in captured.values()])
    assert normaliser.count == 2 * len(rows)
    torch.testing.assert_close(normaliser.mean, rows.mean(0))
    torch.testing.assert_close(normaliser.variance, rows.var(0, correction=0))


def test_the_losses_are_means_over_virtual_batches(model: LanguageModel) -> None:
    group = encoded_group(model, 40)  # Two virtual batches, of 32 and 8.
    losses = MetaTrainer(model, editor_for(model, replace(SETTINGS, learning_rate=1e-30)), TrainingSettings()).step(
        group
    )
    total = 0.0
    for part in (group.equivalent[:32], group.equivalent[32:]):
        (batch,) = model.batches(part, 32)
        total += model.task.negative_log_likelihood(model.answer_logits(batch), batch.targets).mean().item()
    assert losses.generalisation == pytest.approx(total / 2)
    assert losses.locality == pytest.approx(0, abs=1e-9)


def test_the_meta_gradient_is_scaled_down_to_the_given_norm(model: LanguageModel) -> None:
    editor = editor_for(model)
    losses = MetaTrainer(model, editor, TrainingSettings(max_meta_gradient_norm=1e-3)).step(encoded_group(model, 40))
    gradients = [p.grad.flatten() for p in editor.networks.parameters() if p.grad is not None]
    assert losses.gradient_norm > 1e-2
    assert torch.cat(gradients).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_training_lowers_the_loss_of_what_is_edited(model: LanguageModel) -> None:
    editor = editor_for(model)
    trainer = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2, locality_coefficient=0.0))
    group = encoded_group(model, 20)
    losses = [trainer.step(group).generalisation for _ in range(20)]
    assert losses[-1] < 0.85 * losses[0]


@pytest.mark.parametrize("settings", [SETTINGS, SUMMED], ids=["malmen", "mend"])
def test_training_is_the_same_for_the_same_seed(gpt2: LanguageModel, settings: HyperNetworkSettings) -> None:
    def run(seed: int) -> dict[str, torch.Tensor]:
        editor = editor_for(gpt2, settings, seed)
        MetaTrainer(gpt2, editor, TrainingSettings()).step(encoded_group(gpt2, 20))
        return editor.networks.state_dict()

    first, again, other = run(0), run(0), run(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["64x16.blocks.0.A"], other["64x16.blocks.0.A"])


def test_editing_does_not_touch_the_normaliser(model: LanguageModel) -> None:
    editor = editor_for(model)
    group = encoded_group(model, 20)
    MetaTrainer(model, editor, TrainingSettings()).step(group)
    before = {name: tensor.clone() for name, tensor in editor.networks.state_dict().items()}
    editor.shifts(model, encoded_group(model, 28).edit)
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.networks.state_dict().items())


def test_a_step_with_the_concatenated_gradient_is_the_same_step(model: LanguageModel) -> None:
    steps = []
    for gradient in (None, meta_gradient_concatenated):
        editor = editor_for(model)
        losses = MetaTrainer(model, editor, TrainingSettings(meta_learning_rate=1e-2), gradient).step(
            encoded_group(model, 20)
        )
        steps.append((losses.gradient_norm, editor.networks.state_dict()))
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-9)
    for name, tensor in steps[0][1].items():
        torch.testing.assert_close(tensor, steps[1][1][name], rtol=1e-6, atol=1e-6)
