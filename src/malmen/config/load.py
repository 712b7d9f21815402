"""Reading a configuration: what it leaves out is filled in, and all of its mistakes are named at once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from malmen.config.checks import mistakes
from malmen.config.configuration import Config
from malmen.config.inheritance import complete, merge
from malmen.config.memit import MemitSettings
from malmen.config.messages import MAPPING, sentences
from malmen.config.schema import file_schema
from malmen.errors import UserError
from malmen.runtime.files import read_yaml


def load(raw: Mapping[str, Any], name: str = "Configuration") -> Config:
    """Check a configuration as read from YAML; messages begin with ``name``.

    Raises:
        UserError: with a line for each mistake that names the key, its value and what is allowed.
    """
    try:
        completed = complete(raw)
    except ValueError as error:
        raise UserError(f"{name}: {error}.") from None
    try:
        config = Config.model_validate(completed)
    except ValidationError as error:
        raise refused(name, sentences(error, completed, file_schema(), raw)) from None
    if found := mistakes(config):
        raise refused(name, iter(found))
    return config


def refused(name: str, sentences: Iterator[str]) -> UserError:
    """Return an error with one line for each sentence, each of which begins with the name of the file."""
    return UserError(*(f"{name}: {sentence}." for sentence in sentences))


def load_file(path: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a configuration from a YAML file and check it.

    Args:
        path: the file.
        overrides: what replaces its values, section by section, as Snakemake's ``--config`` does.

    Raises:
        UserError: if the file cannot be read, or a key is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path, or run this in the project's folder.")
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise UserError(f"The configuration {path} {MAPPING}.")
    return load(merge(raw, overrides), f"{path} and --config") if overrides else load(raw, str(path))


def read_memit_settings(path: Path) -> MemitSettings:
    """Read MEMIT's settings from a file of YAML or JSON; keys that it leaves out have their defaults.

    Raises:
        UserError: with a line for each mistake that names the file and the key, its value and what is allowed.
    """
    raw = read_yaml(path)
    raw = {} if raw is None else raw
    settings = TypeAdapter(MemitSettings)
    try:
        return settings.validate_python(raw)
    except ValidationError as error:
        raise refused(str(path), sentences(error, raw, settings.json_schema())) from None
