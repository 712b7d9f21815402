import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from malmen.runtime import code_digest as code
from malmen.runtime.code_digest import code_digest, dependencies

WORKFLOW = Path(__file__).parents[2] / "workflow"
FETCH_MODELS = {"fetch_model", "fetch_translator"}
"""Rules that may convert a model."""
RUN_MODELS = {
    "pretrain_model",
    "finetune_model",
    "collect_covariance",
    "train_editor",
    "edit_in_rounds",
    "evaluate_editor",
    "measure_memory",
    "list_failures",
    "back_translate",
    "filter_rephrasings",
    "cache_base_outputs",
}


@pytest.fixture
def package(tmp_path: Path) -> Iterator[Path]:
    """A copy of the package that digests are taken of."""
    copy = tmp_path / "malmen"
    shutil.copytree(code.ROOT, copy)
    yield copy
    forget()


def forget() -> None:
    """Read the files anew, as another run of the workflow does."""
    for function in (code.tree, code.module_digest, code.imported):
        function.cache_clear()


def digest_after(change: str, file: Path) -> dict[str, str]:
    """Return the digests of the code that trains editors after a line was put at the end of a file of the copy."""
    file.write_text(f"{file.read_text()}\n{change}\n")
    forget()
    return code_digest("malmen.editing.training", root=file.parents[1])


@pytest.mark.parametrize(
    "used", ["editing/training.py", "editing/aggregation.py", "config/hypernetwork.py", "models/__init__.py"]
)
def test_changes_with_each_module_that_is_used(package: Path, used: str) -> None:
    before = code_digest("malmen.editing.training", root=package)
    assert digest_after("CHANGED = True", package / used) != before


@pytest.mark.parametrize("unrelated", ["figures/style.py", "config/load.py", "models/pretraining.py", "data/world.py"])
def test_stays_when_another_module_changes(package: Path, unrelated: str) -> None:
    before = code_digest("malmen.editing.training", root=package)
    assert digest_after("CHANGED = True", package / unrelated) == before


def test_comments_docstrings_and_layout_do_not_count(package: Path) -> None:
    file = package / "editing" / "training.py"
    before = digest_after('X: int = 1\n"""A number."""\ndef f():\n    """Nothing."""\n    return (X, "text")', file)
    text = file.read_text().replace("A number", "The number").replace('    """Nothing."""\n', "")
    file.write_text(text.replace("    return (X,", "    return ( X,\n\n"))
    assert digest_after("# Tidied up.", file) == before
    file.write_text(file.read_text().replace('"text"', '"other text"'))
    assert digest_after("", file) != before


MESSAGE = """
def refuse(path, count):
    raise UserError(f"{path} holds {count} facts; add some.")

def tell(path):
    logger.info("%s is read", path)

def give_up(step):
    raise DivergedError(f"the loss is not finite at step {step}")
"""


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("facts; add some", "edits; add more", False),
        ('"%s is read"', '"reading %s"', False),
        ("{count} facts", "{len(path)} facts", True),
        ("the loss is not finite", "the loss diverged", True),
        ("UserError", "ValueError", True),
    ],
)
def test_only_the_wording_of_results_counts(package: Path, old: str, new: str, counts: bool) -> None:
    file = package / "editing" / "training.py"
    before = digest_after(MESSAGE, file)
    file.write_text(file.read_text().replace(old, new))
    assert (digest_after("", file) != before) == counts


def test_names_of_modules_count(package: Path) -> None:
    before = code_digest("malmen.figures.style", root=package)
    (package / "figures" / "colours.py").write_text((package / "figures" / "style.py").read_text())
    assert code_digest("malmen.figures.colours", root=package) != before


EVERYTHING = '''
"""A module."""
import math as m

NUMBERS = (1, -2.5, 1e-9, 3j, True, None, ..., b"\\xff", "\\u00fc\\U0001f600", "1")

class Shape:
    """A class."""

    def area(self, *sides: float, unit: str = "m", **rest: object) -> str:
        try:
            values = [f"{side!r:>{len(unit)}} {unit}" f"" for side in sides if side > 0]
        except* ValueError as error:
            raise UserError(f"no area: {error}") from None
        match values:
            case [first, *_] if (n := len(first)):
                return f"{first:.2f}" f"{n}" ""
        return lambda x, /, y=2, *, z: {**rest, "x": x[1:y, ::2]} @ z
'''


def test_is_the_same_with_every_version_of_python(tmp_path: Path) -> None:
    # Records hold digests: if this one changes, audits of what was published before find that code differs.
    (tmp_path / "script.py").write_text(EVERYTHING)
    assert code.script_digest(tmp_path / "script.py") == "ce4810d39732f297"


def test_does_not_depend_on_the_order_of_names() -> None:
    assert code_digest("malmen.runtime.files", "malmen.errors") == code_digest("malmen.errors", "malmen.runtime.files")


@pytest.mark.parametrize("unknown", ["malmen.nothing", "torch", "malmen.runtime.files.sha256"])
def test_only_modules_of_the_package(unknown: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=re.escape(unknown)):
        code_digest(unknown)


def rules() -> dict[str, tuple[tuple[str, ...], str]]:
    """Return by rule the modules that its parameter ``code`` names, and the name of its script."""
    found = {}
    for path in sorted((WORKFLOW / "rules").glob("*.smk")):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            call = re.search(r"code_of\(([^)]*)\)", block)
            script = re.search(r"scripts/(\w+\.py)", block)
            if call and script:
                named, *modules = ast.literal_eval(call[1])
                assert named == script[1]
                found[block.partition(":")[0]] = (tuple(modules), script[1])
    return found


def imports(tree: ast.Module) -> set[str]:
    """Return the modules that a file names in its import statements."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def packages(modules: tuple[str, ...]) -> set[str]:
    """Return the packages that modules of ours import, directly or not."""
    return {name.split(".")[0] for module in dependencies(modules) for name in imports(code.tree(module))}


def test_every_script_has_a_rule_with_the_code_that_it_imports() -> None:
    scripts = {path.name for path in (WORKFLOW / "scripts").glob("*.py")}
    assert {script for _, script in rules().values()} == scripts - {"publish_results.py", "write_report.py"}
    for modules, script in rules().values():
        tree = ast.parse((WORKFLOW / "scripts" / script).read_text())
        ours = {name for name in imports(tree) if name.startswith("malmen.")}
        assert ours - dependencies(modules) <= {"malmen.jobs.job", "malmen.jobs.on_ranks"}, script


def test_training_an_editor_depends_on_no_other_method() -> None:
    used = dependencies(rules()["train_editor"][0])
    others = ("malmen.editing.memit", "malmen.editing.finetuning", "malmen.editing.evaluation", "malmen.own_facts")
    assert "malmen.editing.training" in used and not [name for name in used if name.startswith(others)]


def test_only_figures_depend_on_figures() -> None:
    for rule, (modules, _) in rules().items():
        drawn = any(name.startswith("malmen.figures") for name in dependencies(modules))
        assert drawn == (rule.startswith(("draw", "write", "collect_tuning")) and rule != "write_lineage"), rule


def test_only_models_and_editors_depend_on_torch() -> None:
    for rule, (modules, _) in rules().items():
        # Reading records shows progress on large files with the help of a module that imports torch, and else does not.
        assert ("torch" in packages(modules)) == (rule in {*RUN_MODELS, *FETCH_MODELS, "audit", "write_lineage"}), rule
