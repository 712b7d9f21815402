"""MEMIT against least squares, and against an optimisation of one edit at a time, on a GPT-2 and a GPT-J."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from tiny_models import NAMES, edit_tuple, spread_attention, tiny_model
from torch import Tensor

from malmen.config.memit import KeyWeights, MemitEditorSettings, MemitSettings, NullSpaceSettings, Update
from malmen.editing.blocks import Block
from malmen.editing.editor import Remembering
from malmen.editing.editors import make_editor
from malmen.editing.layers import EditedLayer, PostEditWeights, Shifts, select_layers
from malmen.editing.memit.covariance import collect_key_covariance, encode_texts, write_key_covariance
from malmen.editing.memit.editor import MemitEditor, observe, report_guesses
from malmen.editing.memit.prefixes import sample_prefixes
from malmen.editing.memit.requests import Request
from malmen.editing.memit.targets import TargetSearch, optimise_targets
from malmen.editing.memit.updates import equality, least_squares, null_space, null_space_basis
from malmen.editing.training import encode_edits
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.noted import NOTES

SETTINGS = MemitSettings(
    steps=7,
    learning_rate=0.3,
    max_relative_norm=0.02,
    covariance_weight=3.0,
    prefix_starts=("The", "A"),
    prefix_tokens=4,
    batch_size=3,
)


def tiny_gpt2(dtype: torch.dtype = torch.float64) -> LanguageModel:
    """Return a GPT-2 whose attention is spread out, so that a change at the subject reaches the answer."""
    return spread_attention(tiny_model("gpt2", dtype))


def tiny_gptj() -> LanguageModel:
    """Return a GPT-J in float64, whose blocks return tuples."""
    return spread_attention(tiny_model("gptj"))


@dataclass(frozen=True)
class Case:
    """A model, two of its layers, and edits."""

    model: LanguageModel
    layers: list[EditedLayer]
    edits: list[Example]

    @property
    def block(self) -> Block:
        return Block.around(self.model, self.layers[-1].name)

    def editor(self, settings: MemitSettings = SETTINGS, seed: int = 0) -> MemitEditor:
        return MemitEditor(self.layers, settings, self.key_covariance(), seed)

    def key_covariance(self) -> dict[str, Tensor]:
        """C from a few texts, with what they lack in directions added."""
        texts = [f"{name} wrote a song." for name in NAMES]
        covariance, _ = collect_key_covariance(self.model, self.layers, encode_texts(self.model, texts, 1000), 4)
        return {name: moment + 1e-3 * torch.eye(len(moment)).double() for name, moment in covariance.items()}

    def requests(self, settings: MemitSettings = SETTINGS) -> list[Request]:
        return self.editor(settings).requests(self.model, self.edits)


def case(model: LanguageModel, n_edits: int = 7) -> Case:
    """Edit the first two of three blocks; of the seven edits, one has its subject nowhere."""
    tuples = [replace(edit_tuple("gpt2", i), subject=NAMES[i % 7]) for i in range(n_edits)]
    nameless = replace(tuples[-1].edit, prompt=tuples[-1].edit.prompt.lower())
    tuples[-1] = replace(tuples[-1], edit=nameless, subject="Nobody", equivalent=("Ho!",))
    pattern = r"transformer\.h\.[01]\.mlp\.(c_proj|fc_out)"
    return Case(model, select_layers(model.module, pattern), encode_edits(model, tuples))


@pytest.fixture(params=[tiny_gpt2, tiny_gptj], ids=["gpt2", "gptj"])
def tiny(request: pytest.FixtureRequest) -> Case:
    make: Callable[[], LanguageModel] = request.param
    return case(make())


@pytest.fixture
def small() -> Case:
    return case(tiny_gpt2())


def test_a_singular_system_is_divergence_that_names_the_layer(small: Case) -> None:
    nothing = {layer.name: torch.zeros(64, 64) for layer in small.layers}
    editor = MemitEditor(small.layers, SETTINGS, nothing, seed=0)
    with pytest.raises(DivergedError, match=r"layer transformer\.h\.0.* more tokens"):
        editor.shifts(small.model, small.edits)


# ----------------------------------------------------------------------------------------------- the optimisation


def plain_logits(case: Case, tokens: tuple[int, ...], position: int, delta: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run one sequence from the beginning, with ``delta`` behind the last edited block; return logits and state h."""
    states: list[Tensor] = []

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        state = (output[0] if isinstance(output, tuple) else output).clone()
        states.append(state[0, position].clone())
        if delta is not None:
            state[0, position] = state[0, position] + delta
        return (state, *output[1:]) if isinstance(output, tuple) else state

    with case.model.module.get_submodule("transformer.h.1").register_forward_hook(hook):
        logits = case.model.module(input_ids=torch.tensor([tokens])).logits[0]
    return logits, states[0]


def plain_loss(case: Case, request: Request, delta: Tensor, settings: MemitSettings) -> Tensor:
    """Return the loss of one edit, one sequence at a time."""
    nll = []
    for passage in request.contexts:
        logits, _ = plain_logits(case, passage.example.tokens, passage.position, delta)
        answers = logits[list(passage.example.answer_positions)]
        nll.append(F.cross_entropy(answers, torch.tensor(passage.example.targets)))
    bare = request.contexts[0]
    _, state = plain_logits(case, bare.example.tokens, bare.position, None)
    loss: Tensor = torch.stack(nll).mean() + settings.weight_decay * (delta.norm() / state.norm()) ** 2
    if request.essence:
        tokens, position = request.essence.example.tokens, request.essence.position
        before = plain_logits(case, tokens, position, None)[0][-1].log_softmax(-1)
        after = plain_logits(case, tokens, position, delta)[0][-1].log_softmax(-1)
        loss = loss + settings.kl_coefficient * (after.exp() * (after - before)).sum()
    return loss


def plain_target(case: Case, request: Request, settings: MemitSettings) -> Tensor:
    """Optimise one edit by itself."""
    bare = request.contexts[0]
    _, state = plain_logits(case, bare.example.tokens, bare.position, None)
    delta = torch.zeros_like(state, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
    for _ in range(settings.steps):
        loss = plain_loss(case, request, delta, settings)
        if loss < settings.stop_loss:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        longest = settings.max_relative_norm * state.norm()
        if delta.norm() > longest:
            with torch.no_grad():
                delta.mul_(longest / delta.norm())
    return (state + delta).detach()


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,  # the projection is at work
        replace(SETTINGS, max_relative_norm=100.0),
        replace(SETTINGS, kl_coefficient=3.0, weight_decay=0.0, prefix_starts=()),
    ],
    ids=["projected", "free", "divergence"],
)
def test_batched_optimisation_is_that_of_one_edit_at_a_time(tiny: Case, settings: MemitSettings) -> None:
    requests = tiny.requests(settings)
    assert any(request.essence is None for request in requests)
    targets = optimise_targets(tiny.model, tiny.block, requests, settings)
    expected = torch.stack([plain_target(tiny, request, settings) for request in requests])
    states = TargetSearch(tiny.model, tiny.block, requests, settings).state
    limit = settings.max_relative_norm * states.norm(dim=1)
    assert ((targets - states).norm(dim=1) > 0.99 * limit).any() == (settings.max_relative_norm < 1)
    # A GPT-J computes its attention in float32.
    torch.testing.assert_close(targets, expected, atol=1e-5, rtol=1e-5)


def test_each_edit_stops_when_its_own_loss_is_small_enough(tiny: Case) -> None:
    free = replace(SETTINGS, max_relative_norm=100.0, stop_loss=0.0)
    requests = tiny.requests(free)
    search = TargetSearch(tiny.model, tiny.block, requests, replace(free, steps=3))
    halfway = search.losses(search.run("the search") - search.state)
    stopping = replace(free, stop_loss=halfway.sort().values[2:4].mean().item())
    moved, stopped = (optimise_targets(tiny.model, tiny.block, requests, settings) for settings in (free, stopping))
    assert 0 < (moved == stopped).all(1).sum() < len(requests)
    expected = torch.stack([plain_target(tiny, request, stopping) for request in requests])
    torch.testing.assert_close(stopped, expected, atol=1e-5, rtol=1e-5)


def test_each_loss_is_that_of_its_edit(tiny: Case) -> None:
    requests = tiny.requests()
    search = TargetSearch(tiny.model, tiny.block, requests, SETTINGS)
    delta = torch.randn(7, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.stack([plain_loss(tiny, r, d, SETTINGS) for r, d in zip(requests, delta, strict=True)])
    torch.testing.assert_close(search.losses(delta), expected, atol=1e-10, rtol=1e-10)


def test_the_projection_shortens_what_is_too_long_and_leaves_the_rest(small: Case) -> None:
    search = TargetSearch(small.model, small.block, small.requests(), replace(SETTINGS, max_relative_norm=0.5))
    direction = F.normalize(torch.randn(7, 16, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    lengths = search.state.norm(dim=1, keepdim=True)
    torch.testing.assert_close(search.project(direction * 2 * lengths), direction * 0.5 * lengths)
    assert torch.equal(search.project(direction * 0.4 * lengths), direction * 0.4 * lengths)
    assert torch.equal(search.project(0 * direction), 0 * direction)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_micro_batches_change_nothing_but_rounding(tiny: Case, batch_size: int) -> None:
    shifts = tiny.editor().shifts(tiny.model, tiny.edits)
    others = tiny.editor(replace(SETTINGS, batch_size=batch_size)).shifts(tiny.model, tiny.edits)
    for name, shift in shifts.items():
        torch.testing.assert_close(others[name], shift, atol=1e-8, rtol=1e-6)


# ----------------------------------------------------------------------------------------------- the editor


def test_resuming_behind_a_block_is_the_whole_model(tiny: Case) -> None:
    batch = tiny.model.collate(tiny.edits, range(7))
    with tiny.block.recording() as outputs:
        expected = tiny.model.answer_logits(batch)
    (output,) = outputs
    state = output[0] if isinstance(output, tuple) else output
    computed: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: computed.append(name))
        for name, module in tiny.model.module.named_modules()
        if name.endswith(".attn")
    ]
    with tiny.block.resuming(output, lambda: 2 * state):
        other = tiny.model.answer_logits(batch)
    assert computed == ["transformer.h.2.attn"]
    for hook in hooks:
        hook.remove()
    with tiny.block.resuming(output, lambda: state):
        assert torch.equal(tiny.model.answer_logits(batch), expected)
    assert not torch.equal(other, expected)
    assert torch.equal(tiny.model.answer_logits(batch), expected)


def test_a_layer_outside_of_blocks_is_refused(small: Case) -> None:
    with pytest.raises(UserError, match="lm_head"):
        Block.around(small.model, "lm_head")


def test_an_edit_of_the_last_block_warns_that_the_change_cannot_reach_the_answer(
    small: Case, caplog: pytest.LogCaptureFixture
) -> None:
    small.editor().shifts(small.model, small.edits)
    assert "last block" not in caplog.text
    last = select_layers(small.model.module, r"transformer\.h\.2\.mlp\.c_proj")
    replace(small, layers=last).editor().shifts(small.model, small.edits)
    assert "MEMIT edits transformer.h.2, the last block" in caplog.text


@pytest.mark.parametrize(
    "key_weights, prefix_starts, shares",
    [
        ("equal", ("The", "A"), [1 / 3, 1 / 3, 1 / 3]),
        ("bare_half", ("The", "A"), [1 / 2, 1 / 4, 1 / 4]),
        ("bare_half", (), [1.0]),
    ],
)
def test_keys_are_averages_over_contexts_and_states_those_of_the_bare_prompt(
    tiny: Case, key_weights: KeyWeights, prefix_starts: tuple[str, ...], shares: list[float]
) -> None:
    settings = replace(SETTINGS, key_weights=key_weights, prefix_starts=prefix_starts, batch_size=2)
    requests = tiny.requests(settings)
    keys, states = observe(tiny.model, tiny.layers[0], tiny.block, requests, settings)
    for number, request in enumerate(requests):
        seen: list[Tensor] = []
        for passage in request.contexts:
            # Only what comes before the subject's end: the keys must not depend on anything else.
            tokens = torch.tensor([passage.example.tokens[: passage.position + 1]])
            with tiny.layers[0].module.register_forward_pre_hook(lambda _, inputs, s=seen: s.append(inputs[0][0, -1])):
                tiny.model.module(input_ids=tokens)
        weighted = [share * key for share, key in zip(shares, seen, strict=True)]
        torch.testing.assert_close(keys[number], torch.stack(weighted).sum(0))
        bare = request.contexts[0]
        torch.testing.assert_close(states[number], plain_logits(tiny, bare.example.tokens, bare.position, None)[1])


def test_each_layer_takes_its_share_of_what_is_left_after_the_ones_before(tiny: Case) -> None:
    editor = tiny.editor()
    shifts = editor.shifts(tiny.model, tiny.edits)
    requests = editor.requests(tiny.model, tiny.edits)
    targets = optimise_targets(tiny.model, tiny.block, requests, SETTINGS)
    first, second = tiny.layers
    keys, states = observe(tiny.model, first, tiny.block, requests, SETTINGS)
    covariance = tiny.key_covariance()
    expected = least_squares(keys, (targets - states) / 2, covariance[first.name], 3.0)
    torch.testing.assert_close(shifts[first.name], expected, atol=1e-9, rtol=1e-7)
    with PostEditWeights([first], shifts).applied():
        keys, states = observe(tiny.model, second, tiny.block, requests, SETTINGS)
    expected = least_squares(keys, targets - states, covariance[second.name], 3.0)
    torch.testing.assert_close(shifts[second.name], expected, atol=1e-9, rtol=1e-7)


def test_an_edit_that_ordinary_text_does_not_hold_back_reaches_its_targets(tiny: Case) -> None:
    editor = tiny.editor(replace(SETTINGS, covariance_weight=1e-6, prefix_starts=()))
    requests = editor.requests(tiny.model, tiny.edits)
    targets = optimise_targets(tiny.model, tiny.block, requests, editor.settings)
    search = TargetSearch(tiny.model, tiny.block, requests, editor.settings)
    assert (search.losses(targets - search.state) < search.losses(0 * targets)).all()
    with PostEditWeights(tiny.layers, editor.shifts(tiny.model, tiny.edits)).applied():
        _, states = observe(tiny.model, tiny.layers[0], tiny.block, requests, SETTINGS)
    torch.testing.assert_close(states, targets, atol=1e-2, rtol=0)
    assert (targets - search.state).norm(dim=1).min() > 0.1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_model_comes_back_bit_for_bit_and_two_runs_are_the_same(dtype: torch.dtype) -> None:
    tiny = case(tiny_gpt2(dtype))
    before = {name: tensor.clone() for name, tensor in tiny.model.module.state_dict().items()}
    first, again = (tiny.editor().shifts(tiny.model, tiny.edits) for _ in range(2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.model.module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tiny.model.module.parameters())
    for layer in tiny.layers:
        assert first[layer.name].shape == layer.shape
        assert first[layer.name].dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(first[layer.name], again[layer.name])


def test_the_model_comes_back_when_an_edit_fails(small: Case) -> None:
    before = small.layers[0].weight.clone()
    covariance = small.key_covariance()
    covariance[small.layers[1].name] = torch.zeros(64, 64)
    with pytest.raises(DivergedError, match=r"h\.1"):
        MemitEditor(small.layers, SETTINGS, covariance, seed=0).shifts(small.model, small.edits)
    assert torch.equal(small.layers[0].weight, before)


def test_subjects_that_are_not_stated_are_reported(small: Case, caplog: pytest.LogCaptureFixture) -> None:
    NOTES.clear()
    with caplog.at_level(logging.INFO, logger="malmen"):
        report_guesses(small.edits, small.requests())
    assert "1 of 7" in caplog.messages[0]
    assert "'' in 'where did goran petit" in caplog.messages[1]
    assert NOTES.uncertain_subjects == {"q6": ""}
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="malmen"):
        report_guesses(small.edits[:-1], small.requests()[:-1])
    assert not caplog.messages


# ----------------------------------------------------------------------------------------------- updates and rounds


ALPHAEDIT = replace(
    SETTINGS, update="null_space", null_space=NullSpaceSettings(share=0.5, regularisation=1e-3), remember=True
)


@contextmanager
def after_a_round(tiny: Case, editor: MemitEditor, edits: list[Example]) -> Iterator[Shifts]:
    """Edit, and tell the editor; inside the block the model is edited."""
    shifts = editor.shifts(tiny.model, edits)
    with PostEditWeights(tiny.layers, shifts).applied():
        editor.end_round(tiny.model, edits)
        yield shifts


@pytest.mark.parametrize("update", get_args(Update))
def test_each_update_is_its_formula_of_what_the_editor_observes(tiny: Case, update: Update) -> None:
    settings = replace(ALPHAEDIT, update=update, ridge=0.3)
    editor = tiny.editor(settings)
    (first, _), covariance = tiny.layers, tiny.key_covariance()
    requests = editor.requests(tiny.model, tiny.edits)
    targets = optimise_targets(tiny.model, tiny.block, requests, settings)
    keys, states = observe(tiny.model, first, tiny.block, requests, settings)
    residual, c = (targets - states) / 2, covariance[first.name]
    expected = {
        "least_squares": lambda: least_squares(keys, residual, c, 3.0),
        "equality": lambda: equality(keys, residual, c, 3.0, 0.3),
        "null_space": lambda: null_space(keys, residual, null_space_basis(c, 0.0, share=0.5), 1e-3),
    }[update]()
    torch.testing.assert_close(editor.shifts(tiny.model, tiny.edits)[first.name], expected, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("update", get_args(Update))
def test_after_a_round_the_editor_protects_the_keys_that_the_edited_model_has(tiny: Case, update: Update) -> None:
    settings = replace(ALPHAEDIT, update=update, covariance_weight=1e-3)
    editor, forgetful = tiny.editor(settings), tiny.editor(replace(settings, remember=False))
    assert isinstance(editor, Remembering) and editor.memory() == {}
    first, second = tiny.edits[:3], tiny.edits[3:6]
    with after_a_round(tiny, forgetful, first) as forgotten:
        assert forgetful.memory() == {}
    with after_a_round(tiny, editor, first) as shifts:
        requests = editor.requests(tiny.model, first)
        memory = editor.memory()
        for layer in tiny.layers:
            assert torch.equal(shifts[layer.name], forgotten[layer.name])
            keys, _ = observe(tiny.model, layer, tiny.block, requests, settings)
            torch.testing.assert_close(memory[layer.name], keys.T @ keys, atol=1e-12, rtol=1e-10)
            moved = [keys @ one.shifts(tiny.model, second)[layer.name] for one in (editor, forgetful)]
            assert moved[0].norm() < 0.8 * moved[1].norm()


def test_the_memory_grows_with_each_round_and_comes_back(small: Case) -> None:
    editor, other = small.editor(ALPHAEDIT), small.editor(ALPHAEDIT)
    empty = editor.memory()
    with after_a_round(small, editor, small.edits[:3]):
        one = editor.memory()
        with after_a_round(small, editor, small.edits[3:6]):
            two = editor.memory()
            assert all(torch.linalg.eigvalsh(two[name] - one[name]).min() > -1e-9 for name in one)
            assert all(not torch.equal(two[name], one[name]) for name in one)
        other.restore(one)
        one[small.layers[0].name].zero_()  # both were copies
        with after_a_round(small, other, small.edits[3:6]):
            assert all(torch.equal(other.memory()[name], matrix) for name, matrix in two.items())
    other.restore(empty)
    assert other.memory() == {}
    with pytest.raises(ValueError, match="other layers"):
        other.restore({"elsewhere": torch.zeros(64, 64)})


def test_alphaedit_finds_its_directions_once(small: Case, caplog: pytest.LogCaptureFixture) -> None:
    editor = small.editor(ALPHAEDIT)
    with caplog.at_level(logging.INFO, logger="malmen"):
        first, again = (editor.shifts(small.model, small.edits) for _ in range(2))
    assert sum("in 32 of the 64 directions" in message for message in caplog.messages) == 2  # layers
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_threshold_that_leaves_no_direction_is_refused(small: Case) -> None:
    settings = replace(ALPHAEDIT, null_space=NullSpaceSettings(threshold=1e-9))
    with pytest.raises(UserError, match=r"h\.0.* larger memit\.null_space\.threshold"):
        small.editor(settings).shifts(small.model, small.edits)


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_a_share_is_one_of_directions(share: float) -> None:
    with pytest.raises(ValidationError, match="share"):
        NullSpaceSettings(share=share)


# ----------------------------------------------------------------------------------------------- prefixes, settings


def test_prefixes_depend_on_the_seed_alone_and_begin_as_asked(gpt2: LanguageModel) -> None:
    starts = ("Ada", "The", "Where did")
    first, again, other = (sample_prefixes(gpt2, starts, 8, 5, seed) for seed in (0, 0, 1))
    assert first == again != other
    for start, prefix in zip(starts, first, strict=True):
        assert prefix.startswith(start) and len(prefix) > len(start)
    torch.manual_seed(17)
    assert sample_prefixes(gpt2, starts, 8, 5, 0) == first


def test_a_prefix_is_drawn_from_the_likeliest_tokens_but_special_ones(gpt2: LanguageModel) -> None:
    (greedy,) = sample_prefixes(gpt2, ["Ada"], 8, 1, seed=0)
    tokens = list(gpt2.tokenizer("Ada")["input_ids"])
    while len(tokens) < 8:
        logits = gpt2.module(input_ids=torch.tensor([tokens])).logits[0, -1]
        logits[gpt2.tokenizer.all_special_ids] = -torch.inf
        tokens.append(int(logits.argmax()))
    assert greedy == gpt2.tokenizer.decode(tokens)


def test_an_editor_is_made_from_its_settings_and_the_file_of_key_covariance(small: Case, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write_key_covariance(path, small.key_covariance(), {})
    settings = MemitEditorSettings(label="MEMIT", blocks=(0, 1), memit=SETTINGS)
    editor = make_editor(settings, small.layers, seed=0, file=path)
    rounded = {name: moment.float() for name, moment in small.key_covariance().items()}
    expected = MemitEditor(small.layers, SETTINGS, rounded, seed=0).shifts(small.model, small.edits)
    shifts = editor.shifts(small.model, small.edits)
    assert all(torch.equal(shifts[name], shift) for name, shift in expected.items())
