"""Editors of other packages, which these register as entry points of the group ``malmen.editors``.

The name of an entry point is the editor's method; its value is ``module:Class``, the class of its settings. An entry
point that cannot be used is no error until a configuration names its method.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import get_args

from malmen.config.editor import EditorSettings

GROUP = "malmen.editors"


@dataclass(frozen=True)
class OutsideEditors:
    """The editors of other packages.

    Attributes:
        settings: the classes of their settings, in the order of their methods.
        refused: why an entry point cannot be used, as a sentence without full stop, by method.
    """

    settings: tuple[type[EditorSettings], ...]
    refused: Mapping[str, str]

    @classmethod
    def found(
        cls, built_in: Sequence[type[EditorSettings]], registered: Iterable[EntryPoint] | None = None
    ) -> "OutsideEditors":
        """Import the settings of all registered editors.

        Args:
            built_in: the classes of settings of this package.
            registered: the entry points; by default those of all installed packages.
        """
        # A package that can be found in two places is found twice.
        points = set(entry_points(group=GROUP) if registered is None else registered)
        taken = {method_of(settings): settings.__name__ for settings in built_in}
        settings: list[type[EditorSettings]] = []
        refused: dict[str, str] = {}
        for point in sorted(points, key=lambda one: (one.name, one.value)):
            where = f"the entry point '{point.name} = {point.value}' of the group {GROUP}"
            if point.name in taken:
                refused[point.name] = f"{where} gives it a second meaning; uninstall its package, or rename it"
                continue
            try:
                loaded = point.load()
                reason = unfit(loaded, point.name, [*taken.values()])
            except Exception as error:  # The code of another package may fail in any way.
                message = (str(error).strip().splitlines() or [""])[0]
                reason = f"cannot be imported ({type(error).__name__}: {message})"
            if reason:
                refused[point.name] = f"{where} {reason}; correct or uninstall its package"
                continue
            taken[point.name] = loaded.__name__
            settings.append(loaded)
        return cls(tuple(one for one in settings if method_of(one) not in refused), refused)


def method_of(settings: type[EditorSettings]) -> str:
    """Return the method of a class of settings."""
    (method,) = get_args(settings.__annotations__["method"])
    return str(method)


def unfit(loaded: object, name: str, names: Sequence[str]) -> str | None:
    """Return why an object cannot be the class of an editor's settings, as the end of a sentence; None if it can.

    Args:
        loaded: what an entry point names.
        name: of the entry point.
        names: of the classes of settings of other editors.
    """
    if not (isinstance(loaded, type) and issubclass(loaded, EditorSettings) and loaded is not EditorSettings):
        return "names no class derived from malmen.config.editor.EditorSettings"
    reason = None
    if "__pydantic_fields__" not in vars(loaded):
        reason = "without the decorator pydantic.dataclasses.dataclass"
    elif get_args(loaded.__annotations__.get("method")) != (name,):
        reason = f"that does not say `method: Literal[{name!r}] = {name!r}`"
    elif not callable(getattr(loaded, "make", None)):
        reason = "without a method make(layers, seed), which makes the editor"
    elif loaded.trained or loaded.covariance is not EditorSettings.covariance:
        reason = "that needs a file of another job, as only editors of this package do"
    elif loaded.__name__ in names:
        reason = f"called {loaded.__name__}, like that of another editor"
    return reason and f"names a class {reason}"
