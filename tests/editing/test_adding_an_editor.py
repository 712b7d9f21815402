"""An editor from outside of the package: the example of docs/adding-an-editor.md, registered as a stranger would."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
from tiny_models import edit_tuples, save_model, tiny_model

from malmen.config.editors import BUILT_IN, EditorSettings
from malmen.config.outside_editors import GROUP, OutsideEditors
from malmen.data.tuples import write_splits
from malmen.editing.editors import make_editor
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError

ROOT = Path(__file__).parents[2]


def block(name: str) -> str:
    """Return the code of the page between two marks."""
    page = (ROOT / "docs" / "adding-an-editor.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- begin: {name} -->\n```\w+\n(.*?)```\n<!-- end -->", page, re.DOTALL)
    assert found, name
    return found[1]


def install(folder: Path, entries: str, code: str) -> Path:
    """Put a package into a folder as pip would."""
    about = folder / "one_step_editor-0.1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: one-step-editor\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{entries}\n")
    (folder / "one_step.py").write_text(code, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ((name, value),) = tomllib.loads(block("pyproject.toml"))["project"]["entry-points"][GROUP].items()
    code = block("one_step.py").replace("import Sequence", "import Mapping, Sequence")
    return install(tmp_path_factory.mktemp("outside"), f"{name} = {value}", f"{code}\n\n{block('momentum')}")


def run(folder: Path, code: str) -> str:
    """Run code in a process of its own, in which the package of the folder is installed; return what it printed."""
    path = os.pathsep.join([str(folder), str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "EXAMPLE": block("configuration")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


CONFIGURATION = """
import os, yaml
from malmen.config.load import load, load_file
raw = yaml.safe_load(open("config/test.yaml"))
example = yaml.safe_load(os.environ["EXAMPLE"])
example["editors"]["one_step"]["last_blocks"] = 1
raw["editors"] |= example["editors"]
raw["figures"] |= example["figures"]
raw["models"]["gpt2"]["chunks"] = {"batch_size": 3, "rows_per_batch": 5}
"""


def test_configuration_layout_plan_and_parameters_take_it_without_torch(installed: Path) -> None:
    printed = run(
        installed,
        CONFIGURATION
        + """
import sys
from types import SimpleNamespace
from malmen.config.editors import editor_settings
from malmen.plan.estimate import Known, cost_of
from malmen.workflow.layout import Layout
from malmen.workflow.parameters import Parameters
config = load(raw)
settings = config.models["gpt2"].editors["one_step"]
print(type(settings).__name__, settings.learning_rate, settings.batch_size)
layout, wildcards = Layout(config), SimpleNamespace(model="gpt2", editor="one_step", n_edits="4-16", seeds="0")
print(layout.curve_files("my_curve"), layout.training_of(wildcards), layout.key_covariance(wildcards))
job = {"model": "gpt2", "editor": "one_step", "n_edits": "4-16", "seeds": "0", "split": "validation"}
cost = cost_of(Known(config), "evaluate_editor", job)
print(cost.needs.memory > 0)
given = Parameters(layout).editor(wildcards)
print(list(given["code_of_editor"]), len(given["code_of_editor"]["one_step.py"]), editor_settings(given) == settings)
assert "torch" not in sys.modules
raw["editors"]["one_step"]["colour"] = 1
try:
    load(raw)
except Exception as error:
    print(type(error).__name__, error)
""",
    ).splitlines()
    assert printed[0] == "OneStepSettings 0.05 3"
    assert printed[1] == "['results/test/metrics/validation/gpt2/one_step/m4-16_seed0.json'] [] []"
    assert printed[2] == "True"
    assert printed[3] == "['one_step.py'] 16 True"
    assert printed[4].startswith("UserError") and "editors.one_step.colour" in printed[4]
    assert "learning_rate" in printed[4]


def test_it_edits_along_autograds_gradient_and_is_evaluated(installed: Path) -> None:
    printed = run(
        installed,
        """
import torch
from tiny_models import edit_tuples, ffn_layers, tiny_model
from malmen.config.editors import editor_settings
from malmen.editing.editor import Remembering
from malmen.editing.editors import make_editor
from malmen.editing.evaluation import Evaluation
from malmen.editing.training import encode_edits
from malmen.models.language_model import with_loss_weights
from one_step import MomentumEditor
model = tiny_model("gpt2")
layers, tuples = ffn_layers(model), edit_tuples("gpt2", 6)
settings = editor_settings({"label": "One", "method": "one_step", "learning_rate": 0.25})
editor = make_editor(settings, layers, 0)
edits = encode_edits(model, tuples)
shifts = editor.shifts(model, edits)
for layer in layers:
    layer.weight.requires_grad_(True)
    layer.weight.grad = None
model.loss(model.collate(with_loss_weights(edits), range(6))).backward()
for layer in layers:
    torch.testing.assert_close(shifts[layer.name], -0.25 * layer.orient(layer.weight.grad))
    layer.weight.requires_grad_(False)
result = Evaluation(model, tuples, 4, seed=0).run(editor, slice(0, 6))
print(0 <= result.metrics["ES"] <= 1)
momentum = MomentumEditor(layers, settings)
assert isinstance(momentum, Remembering) and not isinstance(editor, Remembering)
momentum.restore(momentum.memory())
momentum.shifts(model, edits)
momentum.end_round(model, edits)
second = momentum.shifts(model, edits)
for name, shift in shifts.items():
    torch.testing.assert_close(second[name], 1.5 * shift)
""",
    )
    assert printed.split() == ["True"]


def test_an_editor_that_remembers_by_halves_is_refused() -> None:
    class ByHalves:
        layers: Sequence[EditedLayer] = ()

        def end_round(self, model: object, edits: object) -> None:
            """Take note of a round, and never give it back."""

    class Settings(EditorSettings):
        label, method = "Halves", "by_halves"

        def make(self, _layers: object, _seed: int) -> ByHalves:
            return ByHalves()

    with pytest.raises(UserError, match="Halves has no memory and no restore, but one that remembers rounds needs"):
        make_editor(object.__new__(Settings), [], 0)


def test_the_api_measures_it(installed: Path, tmp_path: Path) -> None:
    model = tiny_model("gpt2", torch.float32)
    save_model(tmp_path / "model", model)
    write_splits(tmp_path, dict.fromkeys(("train", "tune", "validation"), edit_tuples("gpt2", 16)))
    code = block("evaluate").replace('"model"', repr(str(tmp_path / "model")))
    printed = run(installed, code.replace('"validation.jsonl"', repr(str(tmp_path / "validation.jsonl"))))
    assert re.search(r"^ES +\d+\.\d % +\d+\.\d %", printed, re.MULTILINE), printed


@pytest.mark.parametrize(
    ("entry", "code", "said"),
    [
        ("one_step = one_step:Missing", "", "cannot be imported (AttributeError"),
        ("one_step = one_step:Settings", "raise OSError('no disk')", "cannot be imported (OSError: no disk)"),
        ("one_step = one_step:x", "x = 1", "names no class derived from malmen.config.editor.EditorSettings"),
        ("memit = one_step:x", "x = 1", "gives it a second meaning"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_one_sentence_where_it_is_used(
    tmp_path: Path, entry: str, code: str, said: str
) -> None:
    method = entry.partition(" ")[0]
    install(tmp_path, entry, code)
    printed = run(
        tmp_path,
        CONFIGURATION
        + f"""
from malmen.config.editors import editor_settings
from malmen.errors import UserError
for make in (lambda: load(raw | {{"editors": raw["editors"] | {{"it": {{"label": "It", "method": "{method}"}}}}}}),
             lambda: editor_settings({{"label": "It", "method": "{method}"}})):
    try:
        make()
    except UserError as error:
        print(error)
from malmen.config.load import load_file
try:
    print(load_file(__import__("pathlib").Path("config/test.yaml")).run)
except UserError as error:
    print("refused")
""",
    ).splitlines()
    assert len(printed) == 3
    for sentence in printed[:2]:
        assert f"method is '{method}', but the entry point '{entry}' of the group malmen.editors {said}" in sentence
        assert sentence.endswith(".")
    assert printed[2] == ("refused" if method == "memit" else "test")  # which uses MEMIT, but no other editor


HEAD = """
from typing import Literal
from pydantic.dataclasses import dataclass
from malmen.config.base import STRICT
from malmen.config.editor import EditorSettings
"""
DECORATOR = "@dataclass(frozen=True, config=STRICT, kw_only=True)\n"
MAKE = "    def make(self, layers, seed): ...\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class It(EditorSettings):\n    method: Literal['it'] = 'it'\n" + MAKE, "without the decorator"),
        (
            DECORATOR + "class It(EditorSettings):\n    method: Literal['that'] = 'that'\n" + MAKE,
            "does not say `method",
        ),
        (DECORATOR + "class It(EditorSettings):\n" + MAKE, "does not say `method: Literal['it'] = 'it'`"),
        (DECORATOR + "class It(EditorSettings):\n    method: Literal['it'] = 'it'\n", "without a method make"),
        (
            DECORATOR + "class It(EditorSettings):\n    trained = True\n    method: Literal['it'] = 'it'\n" + MAKE,
            "needs a file of another job",
        ),
        (
            DECORATOR
            + "class MemitEditorSettings(EditorSettings):\n    method: Literal['it'] = 'it'\n"
            + MAKE
            + "It = MemitEditorSettings\n",
            "called MemitEditorSettings, like that of another editor",
        ),
        (DECORATOR + "class It(EditorSettings):\n    method: Literal['it'] = 'it'\n" + MAKE, None),
    ],
)
def test_a_class_that_is_no_editors_settings_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str | None
) -> None:
    (tmp_path / "stranger.py").write_text(HEAD + code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    found = OutsideEditors.found(BUILT_IN, [EntryPoint("it", "stranger:It", GROUP)] * 2)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    if said is None:
        assert not found.refused and [one.__name__ for one in found.settings] == ["It"]
    else:
        assert said in found.refused["it"] and not found.settings


def test_two_packages_cannot_give_one_method_two_meanings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = HEAD + DECORATOR + "class It(EditorSettings):\n    method: Literal['it'] = 'it'\n" + MAKE
    (tmp_path / "two_strangers.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("it", "two_strangers:It", GROUP), EntryPoint("it", "two_strangers:Other", GROUP)]
    found = OutsideEditors.found(BUILT_IN, points)
    assert "second meaning" in found.refused["it"] and not found.settings
