"""The page of data and models: their sources, licences and citations, and the configurations that use them."""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from malmen.config.configuration import Config
from malmen.config.load import load_file
from malmen.config.memit import CovarianceSettings, MemitEditorSettings
from malmen.config.model_registry import read_registry
from malmen.config.translation import TranslationSettings
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.runtime.files import read_yaml, write_text

PAGE = Path("docs", "data-and-models.md")
NOT_A_RUN = ("models.yaml",)
"""Files of ``config`` that hold no configuration."""

HUB, PACKAGES = "https://huggingface.co/", "https://pypi.org/project/"

INTRODUCTION = """\
# Data and models: sources, licences, citations

`make schema` writes this page from [`upstream_files.yaml`](../src/malmen/config/upstream_files.yaml),
[`attribution.yaml`](../tools/attribution.yaml) and the configurations; a test keeps it up to date. Nothing listed here
is part of this repository. The licences are those that the publishers state; if you pass files on, comply with them.

The workflow accepts an upstream file only with the checksum below, wherever it comes from. It tries in this order:

1. the mirror, if you set one (`data.mirror`, or the environment variable `MALMEN_MIRROR`);
2. the places listed below; from a `Google Drive` folder it takes the file by its name;
3. what was published with [DVC](sharing.md).

The next attempt continues an interrupted transfer. *On request* means that no configuration in `config/` uses a file.
"""


@cache
def attribution() -> Mapping[str, Any]:
    """Read ``attribution.yaml``, which is part of the package."""
    return read_attribution(Path(__file__).with_name("attribution.yaml"))


class Entry(BaseModel, extra="forbid"):
    """What is known of a model, or of data that are streamed."""

    package: bool = False
    licence: str
    citations: list[str]
    parameters: int | None = None


class Attribution(BaseModel):
    """The content of ``attribution.yaml``."""

    citations: dict[str, str]
    models: dict[str, Entry]
    streamed: dict[str, Entry]


def read_attribution(path: Path) -> Mapping[str, Any]:
    """Read a file like ``attribution.yaml``; one that is malformed is a :class:`UserError`."""
    try:
        return Attribution.model_validate(read_yaml(path), strict=True).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"{path}, {where}: {first['msg']}; correct it.") from None


def configurations(folder: Path) -> dict[str, Config]:
    """Return the configurations of a folder by their file's name without its ending."""
    paths = sorted(path for path in folder.glob("*.yaml") if path.name not in NOT_A_RUN)
    return {path.stem: load_file(path) for path in paths}


def files_used(config: Config) -> set[str]:
    """Return the upstream files of which a configuration's data sets are made."""
    return {name for model in config.models.values() for name in config.data.upstream(model.dataset)}


def models_used(config: Config) -> set[str]:
    """Return the published models that a configuration edits, translates with, or estimates a covariance from."""
    translation = config.data.rebuild.translation
    names = {model.pretrained for model in config.models.values() if model.pretrained}
    names |= {model.package.name for model in config.models.values() if model.package}
    names |= {translation.forward, translation.backward} if config.data.source == "rebuild" else set()
    editors = [editor for model in config.models.values() for editor in model.editors.values()]
    covariances = [editor.memit.covariance for editor in editors if isinstance(editor, MemitEditorSettings)]
    return names | {settings.dataset for settings in covariances if settings.source == "wikipedia"}


def page(runs: Mapping[str, Config]) -> str:
    """Return the page for these configurations."""
    files_by = {name: [run for run, config in runs.items() if name in files_used(config)] for name in upstream_files()}
    known = {**attribution()["models"], **attribution()["streamed"]}
    models_by = {name: [run for run, config in runs.items() if name in models_used(config)] for name in known}
    sections = [
        INTRODUCTION,
        "## Upstream files\n\n" + "\n".join(file_lines(files_by)),
        "### Places and checksums\n\n" + "\n".join(place_lines()),
        "## Models and streamed data\n\n" + "\n".join(model_lines(models_by, revisions(runs))),
        "## What to cite\n\n" + "\n".join(f"- **{key}**: {text}" for key, text in attribution()["citations"].items()),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def file_lines(used: Mapping[str, list[str]]) -> Iterable[str]:
    """Yield the table of upstream files."""
    yield "| file | records | bytes | licence | cite | used by |"
    yield "|---|---:|---:|---|---|---|"
    for name, source in upstream_files().items():
        facts = [name, number(source.records), number(source.bytes), source.licence]
        yield f"| {' | '.join([*facts, *cited(source.citations, used[name])])} |"


def place_lines() -> Iterable[str]:
    """Yield the list of places."""
    for name, source in upstream_files().items():
        kind = "SHA-256" if source.sha256 else "git blob"
        yield f"- **{name}**, {kind} `{source.checksum}`: {', then '.join(place(url) for url in source.urls)}"


def place(url: str) -> str:
    """Return a link to a place, by its host."""
    host = "Google Drive" if "drive.google.com" in url else url.split("/")[2]
    return f"[{host}]({url})"


def model_lines(used: Mapping[str, list[str]], pins: Mapping[str, str]) -> Iterable[str]:
    """Yield the table of models and of data that are streamed."""
    yield "| id on the Hugging Face hub, or package | revision or version | parameters | licence | cite | used by |"
    yield "|---|---|---:|---|---|---|"
    for name, entry in {**attribution()["models"], **attribution()["streamed"]}.items():
        millions = f"{entry['parameters']:,} million" if "parameters" in entry else "-"
        link = f"[{name}]({PACKAGES if entry['package'] else HUB}{hub_path(name)})"
        cells = [link, f"`{pins[name]}`", millions, entry["licence"], *cited(entry["citations"], used[name])]
        yield f"| {' | '.join(cells)} |"


def revisions(runs: Mapping[str, Config]) -> dict[str, str]:
    """Return the commit to which each id of the hub is pinned, by the configurations or else by default."""
    translation, statistics = TranslationSettings(), CovarianceSettings()
    pins = {
        translation.forward: translation.source("forward").revision,
        translation.backward: translation.source("backward").revision,
        statistics.dataset: statistics.revision,
    }
    entries = read_registry().values()
    pins |= {entry["pretrained"]: entry["revision"] for entry in entries if "pretrained" in entry}
    pins |= {entry["package"]["name"]: entry["package"]["version"] for entry in entries if "package" in entry}
    models = (model for config in runs.values() for model in config.models.values())
    return pins | {model.pretrained: model.revision for model in models if model.pretrained and model.revision}


def hub_path(name: str) -> str:
    """Return the path of a model or of a streamed data set on the hub."""
    return f"datasets/{name}" if name in attribution()["streamed"] else name


def cited(citations: Iterable[str], used: Iterable[str]) -> list[str]:
    """Return the cells that say what to cite, and which configurations use it."""
    return [", ".join(citations), ", ".join(f"`{name}.yaml`" for name in used) or "on request"]


def number(value: int | None) -> str:
    """Return a number, or a dash where it is not known."""
    return "-" if value is None else f"{value:,}"


def write_page(root: Path) -> None:
    """Write the page of a copy of the project."""
    write_text(root / PAGE, page(configurations(root / "config")))


if __name__ == "__main__":
    write_page(Path(__file__).parents[1])
