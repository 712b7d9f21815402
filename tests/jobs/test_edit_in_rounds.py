"""The job that edits in rounds: against evaluation at once, after some rounds, interrupted, and diverged."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_models import FFN, edit_tuples, save_model, tiny_model

from malmen.config.editors import CODE
from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.config.hypernetwork import (
    HyperNetworkEditorSettings,
    HyperNetworkSettings,
    InRoundsSettings,
    TrainingSettings,
)
from malmen.config.rounds import Rounds
from malmen.data.tuples import write_jsonl
from malmen.editing.rounds import EditedInRounds
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.edit_in_rounds import Measuring, edit_in_rounds
from malmen.jobs.editor_spec import EditorSpec
from malmen.jobs.evaluate_editor import evaluate_editor
from malmen.jobs.train_editor import train_editors
from malmen.models.language_model import Example
from malmen.results.rounds import RoundsFile, RoundsRun
from malmen.results.run import Run, runs
from malmen.runtime.checkpoint import Saving

TRAINED = HyperNetworkEditorSettings(
    label="MALMEN",
    last_blocks=2,
    hypernetwork=HyperNetworkSettings(rank=6, learning_rate=0.1),
    training=TrainingSettings(meta_learning_rate=1e-3, min_steps=2, max_steps=3),
)
ROUNDS = [Rounds(n_rounds=1, n_edits=12), Rounds(n_rounds=3, n_edits=4, after=[1])]


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    write_jsonl(tmp_path / "tuples.jsonl", map(asdict, edit_tuples("gpt2", 16)))
    (tmp_path / "text.txt").write_text("Ada Lund wrote a song.\n\nCleo wrote one film.\n" * 8)
    directory = save_model(tmp_path / "model", tiny_model("gpt2", torch.float32))
    return ModelSpec("tiny", "Tiny", "zsre", "question_answering", "float32", directory, FFN["gpt2"])


@pytest.fixture
def trained(spec: ModelSpec, tmp_path: Path) -> Path:
    train_editors(spec, TRAINED, tmp_path / "tuples.jsonl", runs([4, 12], [0]), tmp_path / "editors", Machine())
    return tmp_path / "editors"


def rounds_of(
    spec: ModelSpec, settings: HyperNetworkEditorSettings, folder: Path, saving: Saving | None = None
) -> RoundsFile:
    """Edit in all rounds, with the trained editors beside the tuples."""
    tuples = spec.directory.parent / "tuples.jsonl"
    measuring = Measuring(spec.directory.parent / "text.txt", 4, 4)
    editor = EditorSpec("malmen", settings, trained=(folder,))
    again = tuples if settings.in_rounds.retrain_every else None
    found, _ = edit_in_rounds(spec, editor, tuples, ROUNDS, [0], measuring, Machine(), saving or Saving(), again)
    return found


def test_one_round_measures_what_evaluation_does(spec: ModelSpec, trained: Path) -> None:
    tuples = spec.directory.parent / "tuples.jsonl"
    editor = EditorSpec("malmen", TRAINED, trained=(trained,))
    metrics, _, _ = evaluate_editor(spec, editor, tuples, [Run(12, 0)], {12: 1}, Machine())
    at_once, in_rounds = rounds_of(spec, TRAINED, trained).runs
    (group,) = metrics.runs[0].groups
    for name in ("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement"):
        assert at_once.value(name) == getattr(group, name)
    assert [one.after for one in in_rounds.measured] == [1, 3] and in_rounds.measured[0].n_edits == 4
    assert in_rounds.rounds == "3x4" and in_rounds.status == "ok"


@pytest.mark.parametrize(
    "in_rounds",
    [InRoundsSettings(), InRoundsSettings(normaliser="running", remember_keys=True), InRoundsSettings(retrain_every=1)],
)
def test_an_interrupted_job_goes_on_with_the_same_result(
    in_rounds: InRoundsSettings, spec: ModelSpec, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(TRAINED, in_rounds=in_rounds)
    whole = rounds_of(spec, settings, trained)
    saving = Saving(tmp_path / "state", 0)
    n_made = 0

    class Killed(BaseException):
        pass

    original = EditedInRounds.edit

    def edit(self: EditedInRounds, edits: Sequence[Example]) -> None:
        nonlocal n_made
        n_made += 1
        if n_made == 4:  # the last round of the second run
            raise Killed
        original(self, edits)

    monkeypatch.setattr(EditedInRounds, "edit", edit)
    with pytest.raises(Killed):
        rounds_of(spec, settings, trained, saving)
    assert rounds_of(spec, settings, trained, saving) == whole
    assert n_made == 5


@pytest.mark.parametrize("in_rounds", [InRoundsSettings(normaliser="running"), InRoundsSettings(remember_keys=True)])
def test_an_editor_for_rounds_has_a_residual_at_once(
    in_rounds: InRoundsSettings, spec: ModelSpec, trained: Path
) -> None:
    tuples = spec.directory.parent / "tuples.jsonl"
    frozen, other = (
        evaluate_editor(
            spec, EditorSpec("malmen", settings, trained=(trained,)), tuples, [Run(4, 0)], {4: 2}, Machine()
        )[0].runs[0]
        for settings in (TRAINED, replace(TRAINED, in_rounds=in_rounds))
    )
    if in_rounds.remember_keys:  # at once there is nothing to remember
        assert other == frozen
    assert len(other.groups) == 2 and all(group.residual is not None for group in other.groups)


def test_a_state_of_other_code_of_an_outside_editor_is_not_used() -> None:
    settings = FineTuningEditorSettings(label="FT", last_blocks=1)
    one, other = ({**asdict(settings), CODE: {"one_step.py": digest}} for digest in ("a", "b"))

    def identity(raw: dict[str, object]) -> dict[str, object]:
        task = SimpleNamespace(
            wildcards=SimpleNamespace(editor="ft"),
            input=SimpleNamespace(trained=[], covariance=[]),
            params=SimpleNamespace(settings=raw),
        )
        return EditorSpec.of(task).identity([Run(4, 0)])

    assert identity(one) != identity(other)
    assert identity(asdict(settings)) == EditorSpec("ft", settings).identity([Run(4, 0)])


def test_a_round_that_diverges_is_a_result(spec: ModelSpec, tmp_path: Path) -> None:
    settings = FineTuningEditorSettings(
        label="FT", last_blocks=1, finetuning=FineTuningSettings(learning_rate=math.inf)
    )
    editor, measuring = EditorSpec("ft", settings), Measuring(tmp_path / "text.txt", 0, 0)
    found, costs = edit_in_rounds(spec, editor, tmp_path / "tuples.jsonl", ROUNDS, [0, 1], measuring, Machine())
    assert [(run.seed, run.rounds, run.status) for run in found.runs] == [
        (seed, rounds, "diverged") for seed in (0, 1) for rounds in ("1x12", "3x4")
    ]
    assert (found.runs[0].reason or "").startswith("round 1: the loss of fine-tuning is not finite")
    assert found.runs[0].measured == () and math.isnan(found.runs[0].value("ES"))
    assert [cost.seconds for cost in costs.root] == [()] * 4
    assert RoundsRun.model_validate_json(found.runs[1].model_dump_json()) == found.runs[1]


def test_more_edits_than_tuples_are_refused(spec: ModelSpec, trained: Path, tmp_path: Path) -> None:
    editor, measuring = EditorSpec("malmen", TRAINED, trained=(trained,)), Measuring(tmp_path / "text.txt", 0, 0)
    many = [Rounds(n_rounds=5, n_edits=4)]
    with pytest.raises(UserError, match="20 edits at once are more than the 16 tuples"):
        edit_in_rounds(spec, editor, tmp_path / "tuples.jsonl", many, [0], measuring, Machine())
    other = [Rounds(n_rounds=1, n_edits=6)]
    with pytest.raises(UserError, match="No editor was trained for m = 6 and seed 0"):
        edit_in_rounds(spec, editor, tmp_path / "tuples.jsonl", other, [0], measuring, Machine())
