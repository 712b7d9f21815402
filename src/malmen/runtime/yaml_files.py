"""Reading YAML that people write."""

from pathlib import Path
from typing import Any

import yaml

from malmen.errors import UserError


def read_yaml(path: Path) -> Any:
    """Return what a file of YAML (or JSON) holds; raise :class:`UserError` if it cannot be read."""
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} cannot be read as YAML or JSON ({type(error).__name__}{where}); correct it.") from None
