"""ES, GS and LS on answers that are known, and against the model's own full forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tiny_models import ARCHITECTURES, edit_tuples, encoded_group, ffn_layers, tiny_model
from torch import Tensor

from malmen.config.base import Architecture
from malmen.data.tuples import EditTuple, PromptAnswer, Triple
from malmen.editing.evaluation import Evaluation, Scores, agreement, score, sequence_wise
from malmen.editing.layers import EditedLayer
from malmen.models.language_model import Batch, Example, LanguageModel

RIGHT, WRONG, OTHER = 0, 1, 2
"""What a scripted model says of one answer token: the target, or one of two tokens that are not it."""


class ScriptedModel(LanguageModel):
    """A GPT-2 that says what is written for a prompt, before and after its last FFN layer is shifted."""

    def __init__(self, script: dict[str, tuple[list[int], list[int]]]) -> None:
        gpt2 = tiny_model("gpt2")
        super().__init__(gpt2.module, gpt2.tokenizer, gpt2.task)
        self.layer = ffn_layers(self, last=1)[0]
        self.unedited = self.layer.weight.clone()
        self.script = script

    def answer_logits(self, batch: Batch) -> Tensor:
        edited = not torch.equal(self.layer.weight, self.unedited)
        length = batch.inputs["input_ids"].shape[1]
        said: list[int] = []
        for b, ids in enumerate(batch.inputs["input_ids"]):
            targets = batch.targets[batch.answer_rows // length == b]
            text = str(self.tokenizer.decode(ids))
            (prompt,) = (prompt for prompt in self.script if text.startswith(prompt))
            manners = self.script[prompt][edited]
            assert len(manners) == len(targets), f"{prompt!r} is answered with {len(targets)} tokens"
            said += [(int(t) + manner) % 450 for t, manner in zip(targets, manners, strict=True)]
        return F.one_hot(torch.tensor(said), 450).double()


@dataclass(frozen=True)
class Shifting:
    """An editor that shifts by one everywhere, and notes what it was asked to edit."""

    layers: Sequence[EditedLayer]
    asked: list[Sequence[Example]]

    def shifts(self, _model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        self.asked.append(edits)
        return {layer.name: torch.ones(layer.shape) for layer in self.layers}


def scripted() -> tuple[ScriptedModel, list[EditTuple]]:
    """Return a model and two tuples; their answers have three tokens (a space and two letters) and two."""
    long, short = "Qx", "Q"
    tuples = [
        EditTuple("1", PromptAnswer("One?", long), ("Uno?",), PromptAnswer("Far?", long)),
        EditTuple("2", PromptAnswer("Two?", short), ("Due?",), PromptAnswer("Near?", short)),
    ]
    script = {
        "One?": ([WRONG, WRONG, RIGHT], [RIGHT, RIGHT, RIGHT]),
        "Two?": ([WRONG, OTHER], [RIGHT, WRONG]),
        "Uno?": ([WRONG, WRONG, WRONG], [RIGHT, RIGHT, WRONG]),
        "Due?": ([WRONG, WRONG], [RIGHT, RIGHT]),
        "Far?": ([RIGHT, WRONG, WRONG], [WRONG, WRONG, OTHER]),
        "Near?": ([RIGHT, RIGHT], [RIGHT, RIGHT]),
    }
    return ScriptedModel(script), tuples


@pytest.mark.parametrize("batch_size", [1, 2])
def test_metrics_are_shares_of_answer_tokens_averaged_over_tuples(batch_size: int) -> None:
    model, tuples = scripted()
    editor = Shifting([model.layer], [])
    result = Evaluation(model, tuples, batch_size, seed=0).run(editor, slice(0, 2))
    assert result.metrics == pytest.approx(
        {
            "ES": (1 + 1 / 2) / 2,
            "pre_ES": (1 / 3 + 0) / 2,
            "GS": (2 / 3 + 1) / 2,
            "pre_GS": 0,
            "LS": (0 + 1) / 2,
            "pre_LS": (1 / 3 + 1) / 2,
            "agreement": (1 / 3 + 1) / 2,
            "edit_success": 2 / 4,  # One? and Due?
            "drawdown": 1 / 2 - 1 / 2,  # Near?, before as after
        }
    )
    assert result.seconds > 0 and result.peak_bytes > 0
    assert torch.equal(model.layer.weight, model.unedited)


def test_drawdown_counts_unrelated_answers_that_are_no_longer_right_as_a_whole() -> None:
    after, before = (
        shares.map(lambda share: Scores(torch.tensor(share), []))
        for shares in (
            Triple([1.0, 0.9], [1.0, 1.0], [1.0, 0.5, 0.5, 0.0]),
            Triple([0.0, 0.0], [0.0, 0.0], [1.0, 1.0, 1.0, 0.9]),
        )
    )
    assert sequence_wise(after, before) == {"edit_success": 3 / 4, "drawdown": 3 / 4 - 1 / 4}
    assert sequence_wise(before, after) == {"edit_success": 0, "drawdown": 1 / 4 - 3 / 4}


def test_a_group_is_measured_on_its_own_tuples_and_weighed_by_itself() -> None:
    model, tuples = scripted()
    editor = Shifting([model.layer], [])
    metrics = Evaluation(model, tuples, 8, seed=0).run(editor, slice(1, 2)).metrics
    shares = {"ES": 0.5, "pre_ES": 0, "GS": 1, "pre_GS": 0, "LS": 1, "pre_LS": 1, "agreement": 1}
    assert metrics == shares | {"edit_success": 0.5, "drawdown": 0}
    ((edit,),) = editor.asked
    assert edit == model.encode([tuples[1].edit])[0]


def test_agreement_is_averaged_over_examples_not_over_tokens() -> None:
    after = [torch.tensor([1, 2, 3, 4]), torch.tensor([5])]
    before = [torch.tensor([1, 9, 9, 9]), torch.tensor([5])]
    assert agreement(after, before) == (1 / 4 + 1) / 2


@pytest.mark.parametrize(
    "n_edits, limit, expected",
    [(3, None, [(0, 3), (3, 6)]), (4, None, [(0, 4)]), (7, None, [(0, 7)]), (8, None, []), (2, 2, [(0, 2), (2, 4)])],
)
def test_groups_are_whole_and_limited(
    gpt2: LanguageModel, n_edits: int, limit: int | None, expected: list[tuple[int, int]]
) -> None:
    evaluation = Evaluation(gpt2, edit_tuples("gpt2", 7), 8, seed=0)
    assert [(group.start, group.stop) for group in evaluation.groups(n_edits, limit)] == expected


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "bert"])
def test_a_scores_predictions_are_those_of_the_full_forward_pass(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    examples = encoded_group(model, 20).edit
    scores = score(model, examples, 7)
    shares = []
    for example, prediction in zip(examples, scores.predictions, strict=True):
        decoder = {"decoder_input_ids": torch.tensor([example.decoder_tokens])} if model.two_stacks else {}
        logits = model.module(input_ids=torch.tensor([example.tokens]), **decoder).logits[0]
        expected = logits[list(example.answer_positions)].argmax(-1)
        assert torch.equal(prediction, expected)
        shares.append((expected == torch.tensor(example.targets)).double().mean().item())
    assert scores.correct.tolist() == shares


def test_a_claims_prediction_is_the_sign_of_its_log_odds(bert: LanguageModel) -> None:
    examples = encoded_group(bert, 28).unrelated
    (batch,) = bert.batches(examples, 28)
    list(bert.module.parameters())[-1].sub_(bert.answer_logits(batch).mean())  # The head's bias.
    scores = score(bert, examples, 8)
    log_odds = torch.cat([bert.module(input_ids=torch.tensor([example.tokens])) for example in examples])
    assert torch.equal(torch.cat(scores.predictions), (log_odds > 0).long().squeeze(1))
    assert 0 < (log_odds > 0).double().mean() < 1
    assert scores.correct.tolist() == [
        float(odds.item() > 0) == example.targets[0] for odds, example in zip(log_odds, examples, strict=True)
    ]


def test_the_draw_of_equivalents_depends_on_the_seed_alone(gpt2: LanguageModel) -> None:
    tuples = edit_tuples("gpt2", 20)
    first, again, other = (Evaluation(gpt2, tuples, 8, seed).all.equivalent for seed in (0, 0, 1))
    assert first == again != other
