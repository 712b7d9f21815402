"""Which code a result depends on.

Snakemake sees the date of a script, but neither its content nor the modules that it imports. Rules therefore
carry digests of their script and of the modules they really use as a parameter: a changed plot retrains no editor.
Records of runs hold the same digests. An audit computes them again for the code of the commit that a record names, so
they are the same with every version of Python, and a change of how they are computed makes all earlier records differ.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = "malmen"
ROOT = Path(__file__).parents[1]
"""The folder of this package; functions take another one, as of the same package at an earlier commit."""
RESULTS_IN_WORDS = ("DivergedError", "SingularSystemError", "ArithmeticError")
"""Exceptions whose text becomes a result: the reason for which a run diverged."""
LOGGING = ("debug", "info", "warning", "error", "exception")
"""Methods of a logger."""


def code_digest(*modules: str, root: Path = ROOT) -> dict[str, str]:
    """Return a digest of each of the named modules and of all modules of this package they import, directly or not.

    Comments, docstrings, layout and the wording of errors and log lines do not count, so that tidying up re-runs
    nothing. The wording of :data:`RESULTS_IN_WORDS` counts.

    Raises:
        ModuleNotFoundError: if a module is not part of the package.
    """
    return {name: module_digest(name, root) for name in sorted(dependencies(modules, root))}


def dependencies(modules: Iterable[str], root: Path = ROOT) -> set[str]:
    """Return the named modules and all modules of the package that they import, directly or not."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(imported(name, root))
    return found


def source(module: str, root: Path = ROOT) -> Path | None:
    """Return the file of a module of this package, or None if there is no such module."""
    base = root.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def tree(module: str, root: Path = ROOT) -> ast.Module:
    """Return a module's syntax tree, without docstrings and without the wording of messages."""
    path = source(module, root)
    if path is None or module.split(".", maxsplit=1)[0] != PACKAGE:
        raise ModuleNotFoundError(f"{module} is not a module of {PACKAGE}")
    return parse(path)


def parse(path: Path) -> ast.Module:
    """Return a file's syntax tree, without docstrings and without the wording of messages."""
    parsed = ast.parse(path.read_text(encoding="utf-8"))
    for node in [parsed, *statements(parsed)]:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            bare = [isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) for part in body]
            body[:] = [part for part, is_docstring in zip(body, bare, strict=True) if not is_docstring]
        if is_message(node):
            WithoutWords().visit(node)
    return parsed


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all statements below a node, and not the far more numerous expressions: every plan waits for this."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for child in getattr(node, name, ()):
            yield child
            yield from statements(child)


def is_message(node: ast.AST) -> bool:
    """Return whether a statement raises an error, or logs a line, whose wording does not become a result."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return ast.unparse(node.exc.func).rpartition(".")[2] not in RESULTS_IN_WORDS
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LOGGING:
        return "log" in ast.unparse(call.func.value).lower()
    return False


class WithoutWords(ast.NodeTransformer):
    """Empties every text; the values that a message shows stay, since to compute them is code."""

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        """Empty a text."""
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.JoinedStr:
        """Keep the values of an f-string alone."""
        return ast.JoinedStr([part for part in node.values if isinstance(part, ast.FormattedValue)])


@cache
def module_digest(module: str, root: Path = ROOT) -> str:
    """Return a digest of a module's code (see :func:`code_digest`)."""
    return digest(tree(module, root))


def script_digest(path: Path) -> str:
    """Return a digest of a script's code (see :func:`code_digest`)."""
    return digest(parse(path))


def digest(tree: ast.Module) -> str:
    """Return a digest of code."""
    return hashlib.sha256(json.dumps(plain(tree)).encode()).hexdigest()[:16]


def plain(part: Any) -> Any:
    """Return a part of a syntax tree as JSON values, which are the same with every version of Python.

    (The text of ``ast.unparse`` is not; later versions add fields to nodes, which are empty in the code of earlier
    ones; from 3.12 on, some f-strings have empty parts.)
    """
    if isinstance(part, ast.JoinedStr):
        part = ast.JoinedStr([one for one in part.values if not (isinstance(one, ast.Constant) and one.value == "")])
    if isinstance(part, ast.AST):
        fields = ((name, getattr(part, name, None)) for name in part._fields if name != "ctx")
        return [type(part).__name__, *([name, plain(value)] for name, value in fields if value not in (None, []))]
    if isinstance(part, list):
        return list(map(plain, part))
    return part if isinstance(part, str) else {type(part).__name__: repr(part)}


@cache
def imported(module: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the modules of the package that a module imports, and the packages that it lies in."""
    names = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
    for node in statements(tree(module, root)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # ``from package import x`` may import a module x or a name x of the package.
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(sorted(name for name in names if name.split(".")[0] == PACKAGE and source(name, root)))
