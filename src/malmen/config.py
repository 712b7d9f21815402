"""The configuration: every key described once, with type, default, unit and meaning.

The JSON schema ``workflow/schemas/config.schema.yaml`` is generated from these classes (``make schema``); a test keeps
the two in step. Settings that the models and editors use are described in :mod:`malmen.settings`.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from malmen.data.sources import registry
from malmen.data.world import WorldSettings
from malmen.errors import UserError
from malmen.files import write_text
from malmen.models.architectures import layer_names_of
from malmen.settings import (
    Dtype,
    EditorSettings,
    FfnLayer,
    OptimisationSettings,
    ScratchSettings,
    TaskName,
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Dataset = Literal["fever", "zsre"]
SourceName = str

TASKS: dict[Dataset, TaskName] = {"fever": "fact_checking", "zsre": "question_answering"}


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, fields are described by the strings below them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, protected_namespaces=())


class Split(Section):
    """How tuples are dealt into those that editors are trained on, are tuned on, and are reported on."""

    seed: int = 0
    """Seed of the dealing."""
    train: PositiveInt = 60
    """Share of the tuples on which editors are trained; the shares are relative to one another."""
    tune: PositiveInt = 10
    """Share held out from training, on which hyper-parameters are chosen (target ``tuning``)."""
    validation: PositiveInt = 30
    """Share on which results are reported; it must hold at least one group of the largest m."""

    @property
    def shares(self) -> dict[str, int]:
        """The shares by split."""
        return {"train": self.train, "tune": self.tune, "validation": self.validation}


class RealText(Section):
    """Which upstream files the real data sets are made of, by their names in ``src/malmen/data/sources.yaml``."""

    seed: int = 0
    """Seed of rephrasings and of the pairing with unrelated tuples."""
    n_equivalent: Annotated[int, Field(ge=1, le=10)] = 3
    """Rephrasings per FEVER claim, made by sentence frames (zsRE has real ones)."""
    fever_edits: list[SourceName] = ["fever_paper_dev", "fever_paper_test"]
    """Files of FEVER claims that are edited."""
    fever_unrelated: list[SourceName] = ["fever2_fixers_dev"]
    """Files of FEVER 2.0 claims, the unrelated tuples of FEVER."""
    zsre_edits: list[SourceName] = ["zsre_knowedit_test"]
    """Files of zsRE questions that are edited."""
    zsre_unrelated: list[SourceName] = ["nq_open_dev", "nq_efficientqa_dev"]
    """Files of Natural Questions, the unrelated tuples of zsRE."""

    @model_validator(mode="after")
    def _check_sources(self) -> "RealText":
        known = registry()
        for key in ("fever_edits", "fever_unrelated", "zsre_edits", "zsre_unrelated"):
            for name in getattr(self, key):
                if name not in known:
                    raise ValueError(f"{key} names the unknown file {name!r}; known are {', '.join(known)}")
        return self


class Data(Section):
    """Where edit tuples come from."""

    source: Literal["world", "realtext"] = "world"
    """"world": a synthetic world, generated from a seed; "realtext": public FEVER, zsRE and NQ files."""
    mirror: str | None = None
    """A directory or http(s) root laid out as <host>/<path>, tried before the upstream places; if null, the environment
    variable MALMEN_MIRROR."""
    split: Split = Split()
    """How tuples are dealt into training, tuning and validation."""
    world: WorldSettings = WorldSettings()
    """The synthetic world."""
    realtext: RealText = RealText()
    """The real files."""

    def at_most(self, dataset: Dataset, split: str) -> int | None:
        """Return how many tuples a split holds at most, as far as is known before the data are there."""
        if self.source == "world":
            total = self.world.fever_edits if dataset == "fever" else self.world.zsre_edits
        else:
            names = self.realtext.fever_edits if dataset == "fever" else self.realtext.zsre_edits
            records = [registry()[name].records for name in names]
            if None in records:
                return None
            total = sum(filter(None, records))
        shares = self.split.shares
        return -(-total * shares[split] // sum(shares.values()))


class Ffn(Section):
    """Names of a model's feed-forward layers: regular expressions for whole names, one per stack of blocks."""

    first: list[str]
    """The first linear layer of each FFN."""
    second: list[str]
    """The second linear layer of each FFN."""

    def patterns(self) -> dict[FfnLayer, list[str]]:
        """The expressions by layer."""
        return {"first": self.first, "second": self.second}


class Model(Section):
    """A language model that is edited."""

    label: str
    """Name in figures and tables."""
    dataset: Dataset
    """"fever": the model checks claims; "zsre": it answers questions."""
    pretrained: str | None = None
    """A local directory, or an id of the Hugging Face hub; null if the model is trained from scratch."""
    revision: str | None = None
    """Commit of the hub's repository; needed with a hub id, so that the weights cannot change."""
    scratch: ScratchSettings | None = None
    """Shape of a tiny model trained from nothing; null if ``pretrained`` is set."""
    pretraining: OptimisationSettings = OptimisationSettings()
    """How a model from scratch is pretrained on the data set's text."""
    teaching: OptimisationSettings | None = None
    """How the model is then fine-tuned on what it is to know; null if it is edited as it is."""
    seed: int = 0
    """Seed of pretraining and teaching."""
    dtype: Dtype = "float32"
    """Precision of the model's weights while it is edited."""
    ffn: Ffn
    """Names of the feed-forward layers."""
    n_edits: list[PositiveInt]
    """The values of m at which editors are compared."""
    editors: dict[Name, EditorSettings] = {}
    """In the file: what differs for this model from the ``editors`` above. Once read: every editor's whole settings."""

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if (self.pretrained is None) == (self.scratch is None):
            raise ValueError("needs either 'pretrained' or 'scratch', and not both")
        if self.pretrained and not Path(self.pretrained).is_dir() and self.revision is None:
            raise ValueError(f"pretrained is {self.pretrained!r}: no such directory, and a hub id needs a 'revision'")
        if len(set(self.n_edits)) < len(self.n_edits) or not self.n_edits:
            raise ValueError(f"n_edits is {self.n_edits} but must be one or more different numbers")
        return self

    @property
    def task(self) -> TaskName:
        """How the model answers."""
        return TASKS[self.dataset]

    @property
    def directory(self) -> Path | None:
        """The local directory of a pretrained model, if it is one."""
        return Path(self.pretrained) if self.pretrained and Path(self.pretrained).is_dir() else None


class Evaluation(Section):
    """How editors are measured."""

    max_groups: PositiveInt | None = None
    """Groups of m edits measured for each m; null means all whole groups of the validation split."""
    sizes_per_job: PositiveInt = 1
    """Values of m that one job measures: more saves start-up where models are tiny, 1 suits clusters."""


class Figure(Section):
    """A scaling curve."""

    model: Name
    """The edited model."""
    editors: list[Name]
    """The editors drawn, in the legend's order."""


class Row(Section):
    """A row of Table 1."""

    variant: Name
    """The paper's variant, as named in ``data/published/table1.csv``."""
    label: str
    """What the row is called."""
    editor: Name
    """The editor that is shown."""


class Table(Section):
    """The ablation."""

    models: list[Name]
    """The models, one block of columns each."""
    n_edits: PositiveInt
    """The number of edits m."""
    rows: list[Row]
    """The variants, from top to bottom."""


class Config(Section):
    """A whole configuration."""

    profile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Names the results: they go to ``results/<profile>/``, so those of two configurations never mix."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run. With "cuda" each such job asks Snakemake for the resource gpu=1."""
    threads: PositiveInt = 1
    """CPU threads of a job; sums are split by them, so another number can change last digits."""
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0, 1, 2]
    """One run of every editor for each; figures show mean and standard deviation."""
    data: Data = Data()
    """Edit tuples."""
    editors: dict[Name, dict[str, Any]] = {}
    """Editors by name, each with keys of EditorSettings; ``based_on`` names another whose keys it starts from."""
    models: dict[Name, Model]
    """Language models by name."""
    evaluation: Evaluation = Evaluation()
    """How editors are measured."""
    figures: dict[Literal["figure4", "figure5"], Figure]
    """Figures 4 and 5."""
    table1: Table
    """Table 1."""

    @model_validator(mode="before")
    @classmethod
    def _complete_editors(cls, raw: Any) -> Any:
        """Give every model the whole settings of every editor."""
        if not isinstance(raw, dict) or not isinstance(raw.get("models"), dict):
            return raw
        raw = copy.deepcopy(dict(raw))
        editors = raw.get("editors") or {}
        for model in raw["models"].values():
            own = model.get("editors") or {}
            for name in own:
                if name not in editors:
                    raise ValueError(f"editors has no {name!r}, which a model changes; known are {', '.join(editors)}")
            model["editors"] = {name: complete(editors, own, name, ()) for name in editors}
        return raw

    @model_validator(mode="after")
    def _check(self) -> "Config":
        for where, model, editor in self.uses():
            if model not in self.models:
                raise ValueError(f"{where} names the model {model!r}; known are {', '.join(self.models)}")
            if editor not in self.editors:
                raise ValueError(f"{where} names the editor {editor!r}; known are {', '.join(self.editors)}")
            check_layers(self.models[model], self.models[model].editors[editor], f"models.{model}.editors.{editor}")
        for name in self.models:
            for m in self.sizes(name):
                self.check_size(name, m)
        return self

    def uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield where in the configuration which model and editor are asked for."""
        for name, figure in self.figures.items():
            yield from ((f"figures.{name}", figure.model, editor) for editor in figure.editors)
        for row in self.table1.rows:
            yield from ((f"table1.rows ({row.label})", model, row.editor) for model in self.table1.models)

    def sizes(self, model: str, editor: str | None = None) -> list[int]:
        """Return the values of m at which an editor (or any) is measured on a model, in ascending order."""
        sizes: set[int] = set()
        if any(f.model == model and (editor is None or editor in f.editors) for f in self.figures.values()):
            sizes |= set(self.models[model].n_edits)
        if model in self.table1.models and (editor is None or editor in [row.editor for row in self.table1.rows]):
            sizes.add(self.table1.n_edits)
        return sorted(sizes)

    def tuning_sizes(self, model: str) -> list[int]:
        """Return the values of m at which hyper-parameters are compared: those that the tuning split can hold."""
        most = self.data.at_most(self.models[model].dataset, "tune")
        return [m for m in self.models[model].n_edits if most is None or m <= most]

    def check_size(self, model: str, n_edits: int) -> None:
        """Raise ``ValueError`` if a split cannot hold one group of ``n_edits``."""
        for split in ("train", "validation"):
            most = self.data.at_most(self.models[model].dataset, split)
            if most is not None and n_edits > most:
                raise ValueError(
                    f"models.{model} is to be edited with m = {n_edits}, but its {split} split holds {most} tuples "
                    "at most; lower n_edits or raise the split's share"
                )


def complete(editors: Mapping[str, Any], own: Mapping[str, Any], name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Return an editor's whole settings: those it is based on, its own, and the model's, each over the one before.

    Raises:
        ValueError: if it is based on an unknown editor or on itself.
    """
    if name in seen or name not in editors:
        raise ValueError(f"based_on of editors.{(*seen, name)[-2]} is {name!r}; known are {', '.join(editors)}")
    entry = dict(editors[name])
    base = entry.pop("based_on", None)
    start = complete(editors, own, base, (*seen, name)) if base else {}
    return merge(merge(start, entry), own.get(name) or {})


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the keys of ``above`` laid over it, section by section."""
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if nested else value
    return result


def check_layers(model: Model, editor: EditorSettings, where: str) -> None:
    """Raise ``ValueError`` if the model is known not to have the layers that an editor edits."""
    source = model.scratch or model.directory
    known = layer_names_of(source) if source else []
    for kind in editor.ffn_layers if known else ():
        for pattern in model.ffn.patterns()[kind]:
            found = [name for name in known if re.fullmatch(pattern, name)]
            if len(found) < editor.last_blocks:
                raise ValueError(
                    f"{where} edits the last {editor.last_blocks} layers named like {pattern!r}, but the model has "
                    f"{len(found)}; its last layers are {', '.join(known[-2:])}"
                )


def load(raw: Mapping[str, Any]) -> Config:
    """Check a configuration as read from YAML.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """Say in one sentence what is wrong first with a configuration."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"Configuration: {key} is not a known key; workflow/schemas/config.schema.yaml lists them all."
    if first["type"] in ("missing", "missing_argument"):
        return f"Configuration: {key} is missing; set it."
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"Configuration: {key + ': ' if key else ''}{reason}."
    return f"Configuration: {key} is {first['input']!r}: {reason}."


def write_schema(path: Path) -> None:
    """Write the JSON schema of the configuration, as YAML."""
    schema = Config.model_json_schema()
    head = "# Generated by `make schema` from src/malmen/config.py: every key with type, default and meaning.\n"
    write_text(path, head + yaml.safe_dump(schema, sort_keys=False, width=120, allow_unicode=True))
