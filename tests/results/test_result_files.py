"""Files of results: the schema of the writer is the schema of the reader, and the bytes are stable."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from malmen.errors import UserError
from malmen.results.answers import AnsweredRun, AnswerPart, Answers, AnswersFile, Asked, AskedPrompt, AskedTuple
from malmen.results.costs import Cost, CostsFile
from malmen.results.failures import AnsweredPrompt, AnsweredTuple, FailuresFile
from malmen.results.file import ResultFile
from malmen.results.memory import MemoryFile, MemoryPoint
from malmen.results.metrics import GroupMetrics, MetricsFile, RunMetrics
from malmen.results.run import Run, runs
from malmen.results.training import MetaLosses, Moved, TrainingFile

SCORES = dict.fromkeys(("ES", "pre_ES", "GS", "pre_GS", "LS", "pre_LS", "agreement"), 0.1 + 0.2)
PROMPT = AnsweredPrompt(prompt="Who?", target="Ada", before=(), after=(AnswerPart(text="Bo", right=False),))
ASKED = AskedPrompt(prompt="Où ?", target="L'été", before=(AnswerPart(" L'", True), AnswerPart("hiver", False)))
POINT = MemoryPoint(computation="loaded", n_edits=0, status="ok", peak_bytes=3, seconds=0.5)
METRICS = MetricsFile(
    model="gpt2",
    model_label="GPT-2",
    dataset="zsre",
    editor="ft",
    editor_label="FT",
    runs=(
        RunMetrics(n_edits=4, seed=0, status="ok", reason=None, groups=(GroupMetrics(**SCORES),)),
        RunMetrics(n_edits=8, seed=0, status="diverged", reason="singular", groups=()),
    ),
)
FILES = [
    METRICS,
    CostsFile((Cost(run=Run(4, 0), seconds=0.1, peak_bytes=5),)),
    CostsFile(()),
    TrainingFile(status="ok", reason=None, losses=(MetaLosses(0.5, 0.25, 1.0),)),
    TrainingFile(status="ok", reason=None, losses=(), moved={"eta": Moved(0.5, 0.25), "bias": Moved(0.5, None)}),
    MemoryFile(model="gpt2", model_label="GPT-2", device="cpu", limit_bytes=None, points=(POINT, POINT)),
    FailuresFile(
        editor="ft",
        model_label="GPT-2",
        editor_label="FT",
        n_edits=4,
        seed=0,
        records=(AnsweredTuple(id="a", edit=PROMPT, equivalent=PROMPT, unrelated=PROMPT),),
    ),
    AnswersFile(
        model="gpt2",
        editor="ft",
        asked=(Asked(seed=0, tuples=(AskedTuple(id="a", edit=ASKED, equivalent=ASKED, unrelated=ASKED),)),),
        runs=(AnsweredRun(n_edits=4, seed=0, answers=(Answers(ASKED.before, (), (AnswerPart("été", True),)),)),),
    ),
]


@pytest.mark.parametrize("content", FILES, ids=lambda content: content.kind)
def test_what_is_written_is_read_and_written_again_as_the_same_bytes(content: ResultFile, tmp_path: Path) -> None:
    content.write(tmp_path / "one.json")
    again = type(content).read(tmp_path / "one.json")
    assert again == content
    again.write(tmp_path / "two.json")
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_a_metric_that_an_editor_lacks_is_absent_and_none_is_null(tmp_path: Path) -> None:
    METRICS.write(tmp_path / "metrics.json")
    first = json.loads((tmp_path / "metrics.json").read_text())["runs"][0]
    assert list(first) == ["n_edits", "seed", "status", "reason", "groups"] and first["reason"] is None
    assert first["groups"] == [SCORES]


def test_a_number_without_meaning_is_not_written() -> None:
    with pytest.raises(ValidationError, match="ES"):
        GroupMetrics(**{**SCORES, "ES": float("nan")})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(UserError, match=str(path)):
            TrainingFile.read(path)


def test_runs_go_through_the_seeds_of_each_number_of_edits() -> None:
    assert [run.name for run in runs([4, 8], [0, 1])] == ["m4_seed0", "m4_seed1", "m8_seed0", "m8_seed1"]
