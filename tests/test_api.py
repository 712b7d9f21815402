"""The Python API, its page of documentation and its notebook, on tiny models."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch
from own_facts_files import save_editor, write_facts, write_lines, write_unrelated
from tiny_models import ARCHITECTURES, edit_tuples, ffn_layers, save_model, tiny_model

import malmen
from malmen.config.base import Architecture
from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.editing.editor_file import read_editor_file
from malmen.editing.evaluation import Evaluation
from malmen.editing.feed_forward import choose_layers
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.models.linear_layers import linear_layers
from malmen.own_facts.model import LoadedModel

ROOT = Path(__file__).parents[1]
N = 24
SMALL = HyperNetworkEditorSettings(
    label="MALMEN",
    last_blocks=2,
    hypernetwork=HyperNetworkSettings(rank=6, learning_rate=0.1),
    training=TrainingSettings(max_steps=3, min_steps=3),
)


@pytest.fixture(autouse=True)
def forget_determinism() -> Any:
    """A loaded model makes torch deterministic; leave it as it was for other tests."""
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Save a GPT-2, a trained editor, facts, unrelated questions and tuples."""
    model = tiny_model("gpt2", torch.float32)
    save_model(tmp_path / "model", model)
    save_editor(tmp_path / "editor.safetensors", model, tmp_path / "model")
    write_facts(tmp_path / "facts.jsonl", "gpt2", N)
    write_unrelated(tmp_path / "unrelated.jsonl", "gpt2", N)
    for split in ("train", "validation"):
        write_lines(tmp_path / f"{split}.jsonl", map(asdict, edit_tuples("gpt2", N)))
    return tmp_path


def state(model: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same(model: LoadedModel, expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, expected[name]) for name, tensor in model.module.state_dict().items())


def test_importing_the_package_loads_neither_torch_nor_the_api() -> None:
    check = "import sys, malmen; sys.exit(bool({'torch', 'malmen.api', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    check = "import sys; from malmen import *; sys.exit('torch' in sys.modules or not callable(edit))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_the_stub_names_what_the_package_gives_out() -> None:
    stub = (ROOT / "src" / "malmen" / "__init__.pyi").read_text(encoding="utf-8")
    assert re.findall(r'^    "(\w+)",$', stub, re.MULTILINE) == malmen.__all__
    assert all(hasattr(malmen, name) for name in malmen.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        malmen.no_such_name  # type: ignore[attr-defined] # noqa: B018


def test_an_edit_leaves_the_model_as_it_was(files: Path) -> None:
    model = malmen.load_model(files / "model")
    before = state(model)
    edited = malmen.edit(model, malmen.read_facts(files / "facts.jsonl"), malmen.load_editor(files))
    assert same(model, before)
    with edited.applied() as module:
        assert not same(model, before) and module is model.module
    assert same(model, before)
    edited.save(files / "edited")
    assert same(model, before)
    saved = malmen.load_model(files / "edited")
    with edited.applied():
        assert same(model, state(saved))


def test_a_trained_editor_is_the_same_in_memory_and_from_its_file(files: Path) -> None:
    model = malmen.load_model(files / "model")
    tuples = malmen.read_tuples(files / "train.jsonl")
    trained = malmen.train_editor(model, tuples, 8, SMALL, seed=1)
    assert trained.save(files / "trained") == files / "trained" / "editor.safetensors"
    loaded = malmen.load_editor(files / "trained")
    assert loaded.trained_for == trained.trained_for
    assert (loaded.trained_for.n_edits, loaded.trained_for.seed) == (8, 1)
    again = malmen.load_model(files / "model")
    facts = malmen.read_facts(files / "facts.jsonl")[:8]
    shifts = [malmen.edit(model_, facts, editor).shifts for model_ in (model, again) for editor in (trained, loaded)]
    assert all(torch.equal(other[name], shifts[0][name]) for other in shifts for name in shifts[0])
    with pytest.raises(UserError, match="25 edits"):
        malmen.train_editor(model, tuples, 25, SMALL)


def test_evaluation_is_the_workflows(files: Path) -> None:
    model = malmen.load_model(files / "model")
    tuples = malmen.read_tuples(files / "validation.jsonl")
    scores = malmen.evaluate(model, malmen.load_editor(files / "editor.safetensors"), tuples, 8, max_groups=2, seed=3)
    layers = [EditedLayer(name, module) for name, module in linear_layers(model.module).items()]
    editor = read_editor_file(files / "editor.safetensors", layers)
    evaluation = Evaluation(model.language_model, tuples[:16], "auto", 3)
    first, second = (evaluation.run(editor, group).metrics for group in evaluation.groups(8))
    assert scores == {name: pytest.approx((first[name] + second[name]) / 2) for name in scores}
    assert set(scores) == {"ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement"}
    with pytest.raises(UserError, match="25 edits"):
        malmen.evaluate(model, malmen.FineTuning(), tuples, 25)


def test_numbers_that_are_none_are_refused(files: Path) -> None:
    model, tuples = malmen.load_model(files / "model"), malmen.read_tuples(files / "train.jsonl")
    facts, tuning = [malmen.Fact("Who?", "Ada")], malmen.FineTuning(epochs=1)
    for call, name in (
        (lambda: malmen.edit(model, facts, tuning, measure=0), "measure"),
        (lambda: malmen.edit(model, facts, tuning, batch_size=0), "batch_size"),
        (lambda: malmen.check(model, facts, measure=0), "measure"),
        (lambda: malmen.ask(model, ["Who?"], max_tokens=0), "max_tokens"),
        (lambda: malmen.train_editor(model, tuples, 0), "n_edits"),
        (lambda: malmen.evaluate(model, tuning, tuples, 0), "n_edits"),
        (lambda: malmen.evaluate(model, tuning, tuples, 2, max_groups=0), "max_groups"),
    ):
        with pytest.raises(UserError, match=f"{name} is 0 but must be a whole number"):
            call()
    with pytest.raises(UserError, match="must be a list"):
        malmen.ask(model, "Who?")
    with pytest.raises(UserError, match="tune measures on held-out tuples"):
        malmen.train_editor(model, tuples, 2, tune=True)


def test_facts_made_in_python_are_checked(files: Path) -> None:
    model = malmen.load_model(files / "model")
    facts = [malmen.Fact("Who?", "Ada"), malmen.Fact("Who?", "Bo")]
    with pytest.raises(UserError, match="'Ada'"):
        malmen.edit(model, facts, malmen.FineTuning())
    with pytest.raises(UserError, match="no facts"):
        malmen.edit(model, [], malmen.FineTuning())
    edited = malmen.edit(model, facts[:1], malmen.FineTuning())
    edited.save(files / "edited")
    assert json.loads((files / "edited" / "report.json").read_text(encoding="utf-8"))["facts"] is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_default_layers_are_the_second_of_the_feed_forward_networks(architecture: Architecture) -> None:
    model = tiny_model(architecture)
    for last in (2, 3):
        assert choose_layers(model, (), last) == ffn_layers(model, "second", last)
    assert choose_layers(model, (), 9) == choose_layers(model, (), 3)


def blocks_of_page() -> list[str]:
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


PATHS = {"MODEL": "model", "EDITOR": ".", "FACTS": "facts.jsonl", "UNRELATED": "unrelated.jsonl", "OUT": "edited"}


def cells_of_notebook() -> list[str]:
    """Return the code of the notebook, with the paths of the tiny files in place of the demo's."""
    notebook = json.loads((ROOT / "examples" / "edit_facts.ipynb").read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    parameters, *code = ["".join(cell["source"]) for cell in cells]
    assert re.findall(r"^(\w+) = ", parameters, re.MULTILINE) == list(PATHS)
    assert not any(cell["outputs"] for cell in cells)
    return ["\n".join(f"{name} = {path!r}" for name, path in PATHS.items()), *code]


@pytest.mark.parametrize("parts", [blocks_of_page(), cells_of_notebook()], ids=["page", "notebook"])
def test_the_examples_run_and_print_scores(files: Path, parts: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(parts)], cwd=files, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert re.search(r"^ES +\d+\.\d % +\d+\.\d %", run.stdout, re.MULTILINE), run.stdout
    assert (files / "edited" / "report.json").is_file()
