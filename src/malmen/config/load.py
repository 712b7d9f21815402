"""The configuration: every key described once, with type, default, unit and meaning.

The JSON schema ``workflow/schemas/config.schema.yaml`` is generated from these classes (``make schema``); a test keeps
the two in step. Settings that the models and editors use are described in :mod:`malmen.config.settings`.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from malmen.config.architectures import TASK_OF, layer_names_of
from malmen.config.data import TUPLE_FILES, WorldSettings, training_shares
from malmen.config.model_registry import entry_for
from malmen.config.settings import (
    CACHE_GB,
    DeviceMap,
    Dtype,
    EditorSettings,
    FfnLayer,
    MemitSettings,
    OptimisationSettings,
    ScratchSettings,
    Shape,
    TaskName,
    TranslationSettings,
)
from malmen.config.upstream_files import upstream_files
from malmen.errors import UserError
from malmen.runtime.files import read_yaml, write_text
from malmen.runtime.signals import SAVE_SECONDS


def all_different(values: list[Any]) -> list[Any]:
    """Return the values; raise ``ValueError`` if there is none, or one of them twice."""
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        raise ValueError("must be one or more different values")
    return values


def regular_expressions(values: list[str]) -> list[str]:
    """Return the values; raise ``ValueError`` unless all of them are regular expressions."""
    for value in values:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"must be regular expressions, which '{value}' is not ({error})") from None
    return values


def directory_or_hub_id(value: str) -> str:
    """Return the value; raise ``ValueError`` if it can only be a directory, and there is none."""
    if not Path(value).is_dir() and (value.startswith(("/", "./", "../", "~")) or value.count("/") > 1):
        raise ValueError(
            f"there is no directory {value}; check the path (~ is not replaced), or name a model of the hub"
        )
    return value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Dataset = Literal["fever", "zsre", "zsre_alternative"]
Corpus = Literal["fever", "zsre"]
SourceName = str
Sizes = Annotated[list[PositiveInt], AfterValidator(all_different)]
Seeds = Annotated[list[NonNegativeInt], AfterValidator(all_different)]
Names = Annotated[list[Name], AfterValidator(all_different)]
ModelSource = Annotated[str, AfterValidator(directory_or_hub_id)]
Patterns = Annotated[list[str], Field(min_length=1), AfterValidator(regular_expressions)]

TASKS: dict[Dataset, tuple[TaskName, ...]] = {
    "fever": ("fact_checking",),
    "zsre": ("question_answering", "sequence_to_sequence"),
    "zsre_alternative": ("question_answering", "sequence_to_sequence"),
}
"""How a model that is edited on a data set answers; the first is what is meant if nothing is said."""
MAPPING = "must be a mapping of keys to values"
TYPES = {
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "dataclass_type": MAPPING,
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
"""What a value of the wrong kind must be, by pydantic's name for the error."""
FILTERING: dict[Corpus, Dataset] = {"fever": "fever", "zsre": "zsre_alternative"}
"""The data set of a model that filters rephrasings: one that is taught the correct answers."""
RESERVED = ("raw", "published")
"""Folders of ``data`` that belong to all profiles."""


def usual_task(model: Mapping[str, Any]) -> TaskName:
    """Return how a model answers of which only other settings are known."""
    scratch, dataset = model.get("scratch"), model.get("dataset", "zsre")
    return TASK_OF[scratch.architecture] if scratch else TASKS[dataset][0]


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


def check_files(names: Sequence[str], kind: str, key: str) -> None:
    """Raise ``ValueError`` unless all names are those of upstream files of one kind, by what their names begin with."""
    known = [name for name in upstream_files() if name.startswith(kind)]
    for name in names:
        if name not in known:
            raise ValueError(f"{key} names the unknown file {name!r}; known are {', '.join(known)}")


class RealText(Section):
    """The upstream files of the real data sets, by their names in ``src/malmen/config/upstream_files.yaml``."""

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
        for key, kind in (
            ("fever_edits", "fever"),
            ("fever_unrelated", "fever"),
            ("zsre_edits", "zsre"),
            ("zsre_unrelated", "nq"),
        ):
            check_files(getattr(self, key), kind, key)
        return self

    def sources(self, dataset: Dataset, part: Literal["edits", "unrelated"]) -> list[str]:
        """Return the files of which a data set's edits, or its unrelated tuples, are made."""
        if dataset == "zsre_alternative":  # Its unrelated tuples are questions of the same files.
            return self.zsre_edits if part == "edits" else []
        names: list[str] = getattr(self, f"{dataset}_{part}")
        return names


class Rebuild(Section):
    """How the paper's data are rebuilt from public files, named as in ``src/malmen/config/upstream_files.yaml``."""

    seed: int = 0
    """Seed of wrong answers and of the pairing with unrelated tuples."""
    fever_train: Annotated[list[SourceName], Field(min_length=1)] = ["kilt_fever_train"]
    """KILT's files of FEVER claims, which are dealt into training and tuning."""
    fever_validation: list[SourceName] = ["kilt_fever_dev"]
    """Those that are the validation split as a whole; if there are none, a share of the others is."""
    fever_unrelated: Annotated[list[SourceName], Field(min_length=1)] = ["fever2_fixers_dev"]
    """Files of FEVER 2.0 claims, the unrelated tuples of FEVER."""
    zsre_train: Annotated[list[SourceName], Field(min_length=1)] = ["kilt_zsre_train", "kilt_zsre_dev"]
    """KILT's files of zsRE questions, which are dealt as the claims are."""
    zsre_validation: list[SourceName] = []
    """Those that are the validation split as a whole; KILT's (3,724 records) is too small for the paper's m."""
    zsre_unrelated: Annotated[list[SourceName], Field(min_length=1)] = ["nq_open_train", "nq_open_dev"]
    """Files of NQ-open, the unrelated tuples of zsRE."""
    parts: PositiveInt = 32
    """Jobs into which translating, and filtering, each are cut; changes time only, and rounding."""
    translation: TranslationSettings = TranslationSettings()
    """How texts are rephrased."""
    filter: dict[Corpus, Name] = {}
    """Which of ``models`` filters the rephrasings, once it is taught the correct answers: of "fever" one whose dataset
    is "fever", of "zsre" one whose dataset is "zsre_alternative"; those of a corpus that is left out all stay."""
    filter_batch_size: PositiveInt = 64
    """Prompts run through the filtering model at once; changes time and memory, and results by rounding only."""

    @model_validator(mode="after")
    def _check_sources(self) -> "Rebuild":
        for corpus, unrelated in (("fever", "fever2"), ("zsre", "nq")):
            for part in ("train", "validation"):
                check_files(getattr(self, f"{corpus}_{part}"), f"kilt_{corpus}", f"{corpus}_{part}")
            check_files(getattr(self, f"{corpus}_unrelated"), unrelated, f"{corpus}_unrelated")
        return self

    def sources(self, dataset: Dataset, part: Literal["train", "validation", "unrelated"]) -> list[str]:
        """Return the files that play a part in making a data set."""
        if dataset == "zsre_alternative" and part == "unrelated":  # They are questions of the same files.
            return []
        names: list[str] = getattr(self, f"{'fever' if dataset == 'fever' else 'zsre'}_{part}")
        return names


class Data(Section):
    """Where edit tuples come from."""

    source: Literal["world", "realtext", "authors", "mend", "rebuild"] = "world"
    """"world": a synthetic world, generated from a seed; "realtext": public FEVER, zsRE and NQ files; "authors": the
    tuples of the paper's authors; "mend": zsRE as MEND's and MEMIT's authors use it; "rebuild": FEVER and zsRE made
    anew of KILT's files by back-translation. Files for evaluation are the validation split whatever its share."""
    mirror: str | None = None
    """A directory or http(s) root laid out as <host>/<path>, tried before the upstream places; if null, the environment
    variable MALMEN_MIRROR."""
    split: Split = Split()
    """How tuples are dealt into training, tuning and validation."""
    world: WorldSettings = WorldSettings()
    """The synthetic world."""
    realtext: RealText = RealText()
    """The real files."""
    rebuild: Rebuild = Rebuild()
    """How data are made anew."""

    def edits(self, dataset: Dataset) -> tuple[list[str], list[str]]:
        """Return the upstream files whose edits are dealt into splits, and those that are the validation split whole.

        Raises:
            ValueError: if the source has none for the data set.
        """
        if self.source == "world":
            return [], []
        if self.source == "realtext":
            return self.realtext.sources(dataset, "edits"), []
        if self.source == "rebuild":
            return self.rebuild.sources(dataset, "train"), self.rebuild.sources(dataset, "validation")
        if dataset not in TUPLE_FILES[self.source]:
            raise ValueError(f"data.source is {self.source!r}, which has no data set {dataset!r}; choose another")
        train, evaluation = TUPLE_FILES[self.source][dataset]
        return [train], [evaluation]

    def files(self, dataset: Dataset) -> list[str]:
        """Return all upstream files of which a data set is made (raises as :meth:`edits`)."""
        dealt, validation = self.edits(dataset)
        unrelated: list[str] = []
        if self.source == "realtext":
            unrelated = self.realtext.sources(dataset, "unrelated")
        if self.source == "rebuild":
            unrelated = self.rebuild.sources(dataset, "unrelated")
        return [*dealt, *validation, *unrelated]

    def at_most(self, dataset: Dataset, split: str) -> int | None:
        """Return how many tuples a split holds at most, as far as is known before the data are there."""
        shares = self.split.shares
        if self.source == "world":
            return -(-self.world.edits[dataset] * shares[split] // sum(shares.values()))
        if self.source == "rebuild" and dataset != "fever":  # A record of KILT's zsRE asks several questions.
            return None
        names, validation = self.edits(dataset)
        if validation and split == "validation":
            names, shares = validation, {split: 1}
        elif validation:
            shares = training_shares(shares)
        records = [upstream_files()[name].records for name in names]
        if None in records:
            return None
        return -(-sum(filter(None, records)) * shares[split] // sum(shares.values()))


class Ffn(Section):
    """Names of a model's feed-forward layers: regular expressions for whole names, one per stack of blocks."""

    first: Patterns
    """The first linear layer of each FFN."""
    second: Patterns
    """The second linear layer of each FFN."""

    def patterns(self) -> dict[FfnLayer, list[str]]:
        """The expressions by layer."""
        return {"first": self.first, "second": self.second}


class Chunks(Section):
    """How much of a model's work is done at once, unless an editor says it; changes results by rounding only."""

    batch_size: PositiveInt | Literal["auto"] | None = None
    """Sequences run through the language model at once; "auto": found by itself."""
    rows_per_batch: PositiveInt | Literal["auto"] | None = None
    """Rows (cached tokens) run through the hyper-network at once; "auto": found by itself."""


def without_ffn(schema: dict[str, Any]) -> None:
    """Let the schema of the file leave out ``ffn``, which may come from the registry."""
    schema["required"].remove("ffn")


class Model(Section):
    """A language model that is edited."""

    model_config = ConfigDict(json_schema_extra=without_ffn)

    label: str
    """Name in figures and tables."""
    registry: str | None = None
    """An entry of ``config/models.yaml`` whose keys this model starts from."""
    dataset: Dataset
    """"fever": the model checks claims; "zsre": it answers questions, and edits teach the right answers;
    "zsre_alternative": it was taught the right answers, and edits demand wrong ones (Table 3)."""
    pretrained: ModelSource | None = None
    """A local directory, or an id of the Hugging Face hub; null if the model is trained from scratch."""
    revision: str | None = None
    """Commit of the hub's repository; a hub id can be planned without, but not fetched: the weights could change."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 that the weights must have, of a hub's model when it is fetched and of a local one whenever it is loaded;
    of several files, that of their names and digests, as ``source.json`` beside fetched weights records it."""
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
    device_map: DeviceMap | None = None
    """Where the model's parts lie if one GPU does not hold them: "auto" spreads them over all GPUs that a job sees, a
    mapping from names of its modules to devices says it (with accelerate, the extra "large"); null: all on one."""
    gpus: PositiveInt = 1
    """How many GPUs a job with this model asks for, where device is "cuda"."""
    task: TaskName = Field(default_factory=usual_task)
    """How the model answers; if left out, as its ``scratch`` architecture does, or else with SUPPORTS and REFUTES on
    "fever" and by continuing the prompt on "zsre"."""
    ffn: Ffn
    """Names of the feed-forward layers."""
    shape: Shape | None = None
    """The size of published weights, from which `malmen plan` estimates what their editing costs."""
    chunks: Chunks = Chunks()
    """How much is done at once, for editors that do not say it."""
    n_edits: Sizes
    """The values of m at which editors are compared."""
    editors: dict[Name, EditorSettings] = {}
    """In the file: what differs for this model from the ``editors`` above. Once read: every editor's whole settings."""

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if (self.pretrained is None) == (self.scratch is None):
            raise ValueError(
                f"pretrained is {brief(self.pretrained)} and scratch is {brief(self.scratch)}, but exactly one of them "
                "must be set"
            )
        if self.scratch and TASK_OF[self.scratch.architecture] not in TASKS[self.dataset]:
            allowed = [repr(name) for name, task in TASK_OF.items() if task in TASKS[self.dataset]]
            raise ValueError(
                f"scratch.architecture is {self.scratch.architecture!r} but dataset {self.dataset!r} needs "
                f"{' or '.join(allowed)}"
            )
        needed = [TASK_OF[self.scratch.architecture]] if self.scratch else TASKS[self.dataset]
        if self.task not in needed:
            source = self.scratch.architecture if self.scratch else self.dataset
            raise ValueError(f"task is {self.task!r} but {source!r} needs {' or '.join(map(repr, needed))}")
        return self

    @property
    def directory(self) -> Path | None:
        """The local directory of a pretrained model, if it is one."""
        return Path(self.pretrained) if self.pretrained and Path(self.pretrained).is_dir() else None


class Evaluation(Section):
    """How editors are measured."""

    max_groups: PositiveInt | None = None
    """Groups of m edits measured for each m; null means all whole groups of the validation split."""


class Jobs(Section):
    """How many runs of an editor one job makes: more save start-up where models are tiny, one each suits clusters."""

    sizes: PositiveInt = 1
    """Values of m in a job, of its training and of its measurement."""
    seeds: PositiveInt = 1
    """Seeds in a job, likewise."""
    save_seconds: Annotated[float, Field(ge=0)] = SAVE_SECONDS
    """Running work is saved so often, in seconds; an interrupted job goes on from there. It changes no result."""


class Cache(Section):
    """What all runs on a model share, in files that may be deleted afterwards; changes results by rounding only.

    Keys and value gradients of edits, and hidden states of all prompts below the first edited block and behind the
    last, in the model's own precision. The times of training and editing are then those of the rest.
    """

    max_gb: Annotated[float, Field(gt=0)] = CACHE_GB
    """How large one model's cache of one split may be, in GB; a larger one is refused before it is made."""
    min_runs: PositiveInt = 4
    """So many runs (an editor, an m, a seed) must use it for it to be made at all."""


class Figure(Section):
    """A curve over the number of edits, from the editors' measurements."""

    model: Name
    """The edited model."""
    editors: Names
    """The editors drawn, in the legend's order."""
    n_edits: Sizes | None = None
    """The values of m; null means the model's. Where a job takes several values of m, all of a job are drawn."""


class MemoryFigure(Section):
    """Peak memory of one meta-step against the number of edits."""

    model: Name
    """The edited model."""
    separated: Name
    """The editor whose meta-gradient is computed apart on hyper-network and language model (the paper's MALMEN)."""
    concatenated: Name
    """The editor whose meta-gradient goes through both in one backward pass (the paper's MEND-style)."""
    n_edits: Sizes
    """The values of m. Training tuples are repeated where there are fewer."""
    limit_bytes: PositiveInt | None = None
    """A step that needs more is ended and marked: resident memory on a CPU, the allocator's on a GPU; null: no
    limit."""


class Figures(Section):
    """The figures: what each of them shows; one that is left out is not made."""

    figure4: Figure | None = None
    """Scaling curve, the paper's with BERT on FEVER."""
    figure5: Figure | None = None
    """Scaling curve, the paper's with GPT-2 on zsRE."""
    figure6: Figure | None = None
    """Scaling curve, the paper's with T5-XL on zsRE."""
    figure7: Figure | None = None
    """Scaling curve, the paper's with GPT-J on zsRE."""
    figure8: Figure | None = None
    """Mean residual, the paper's with GPT-2 on zsRE; of editors with a hyper-network."""
    figure9: MemoryFigure | None = None
    """Peak memory, the paper's with GPT-2 on zsRE."""

    @property
    def curves(self) -> dict[str, Figure]:
        """The figures drawn from editors' measurements, by name."""
        return {name: figure for name, figure in self if isinstance(figure, Figure)}

    @property
    def names(self) -> list[str]:
        """All figures that are made."""
        return [name for name, figure in self if figure]


class Row(Section):
    """A row of an ablation."""

    variant: Name
    """The paper's variant, as named in ``data/published/table1.csv`` and ``table2.csv``."""
    label: str
    """What the row is called."""
    editor: Name
    """The editor that is shown."""


class Ablation(Section):
    """An ablation: variants of an editor side by side."""

    models: Names
    """The models, one block of columns each."""
    n_edits: PositiveInt
    """The number of edits m."""
    rows: Annotated[list[Row], Field(min_length=1)]
    """The variants, from top to bottom."""


class Comparison(Section):
    """Success and drawdown by sequence, for several numbers of edits."""

    model: Name
    """The edited model; its data set is "zsre_alternative" in the paper."""
    editors: Names
    """The editors shown, in the order of their columns."""
    n_edits: Sizes
    """The numbers of edits m, one line each."""


class Failures(Section):
    """Answers that one group of edits left or made wrong."""

    model: Name
    """The edited model, one that answers questions."""
    editor: Name
    """The editor."""
    n_edits: PositiveInt
    """The number of edits m of the group: the first so many of the validation split, edited with the first seed."""
    records: PositiveInt = 10
    """How many failing records the table shows at most; its CSV holds all."""


class Config(Section):
    """A whole configuration."""

    profile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    """Names the results: they go to ``results/<profile>/``, so those of two configurations never mix."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where models run. With "cuda" each such job asks Snakemake for the resource gpu=1."""
    threads: PositiveInt = 1
    """CPU threads of a job; sums are split by them, so another number can change last digits."""
    check_machine: bool = True
    """Whether a run is refused before it starts if this machine has too little disk or memory for it, by the estimate
    of `malmen plan`."""
    seeds: Seeds = [0, 1, 2]
    """One run of every editor for each; figures show mean and standard deviation."""
    data: Data = Data()
    """Edit tuples."""
    editors: dict[Name, EditorSettings] = {}
    """Editors by name."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """Language models by name."""
    evaluation: Evaluation = Evaluation()
    """How much is measured."""
    jobs: Jobs = Jobs()
    """How work is cut into jobs."""
    cache: Cache | None = None
    """Whether what runs on a model share is computed once, into files; null: every run computes it."""
    figures: Figures = Figures()
    """What the figures show."""
    table1: Ablation | None = None
    """Table 1, an ablation; null leaves the table out, as in those below."""
    table2: Ablation | None = None
    """Table 2, an ablation with times."""
    table3: Comparison | None = None
    """Table 3."""
    table4: Failures | None = None
    """Table 4: failures of edit and equivalent tuples."""
    table5: Failures | None = None
    """Table 5: failures of unrelated tuples."""

    @model_validator(mode="before")
    @classmethod
    def _complete_editors(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Write out what models and editors start from, and give every model the whole settings of every editor."""
        raw = copy.deepcopy(raw)
        editors = mapping(raw.get("editors", {}), "editors")
        for name, editor in editors.items():
            mapping(editor, f"editors.{name}")
        models = mapping(raw.get("models", {}), "models")
        for name, written in models.items():
            models[name] = model = merge(entry_for(mapping(written, f"models.{name}"), f"models.{name}"), written)
            where = f"models.{name}.editors"
            own = mapping(model.get("editors", {}), where)
            for editor, changes in own.items():
                if editor not in editors:
                    raise ValueError(f"{where}.{editor} changes no editor; known are {', '.join(editors)}")
                mapping(changes, f"{where}.{editor}")
            chunks = {"hypernetwork": stated(model.get("chunks"))}
            model["editors"] = {editor: merge(chunks, complete(editors, own, editor, ())) for editor in editors}
        raw["editors"] = {name: complete(editors, {}, name, ()) for name in editors}
        return raw

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.profile in RESERVED:
            raise ValueError(f"profile is {self.profile!r} but data/{self.profile} holds other files; choose another")
        for where, model, editor in (*(use[:3] for use in self.uses()), *self.memory_uses()):
            if model not in self.models:
                raise ValueError(f"{where} names the model {model!r}; known are {', '.join(self.models)}")
            if editor not in self.editors:
                raise ValueError(f"{where} names the editor {editor!r}; known are {', '.join(self.editors)}")
            check_layers(self.models[model], self.models[model].editors[editor], f"models.{model}.editors.{editor}")
        labelled: dict[str, str] = {}
        for name, settings in self.models.items():
            label = settings.label
            if (other := labelled.setdefault(label, name)) != name:
                raise ValueError(f"models.{name}.label is {label!r}, as is that of models.{other}; change one of them")
        for name, settings in self.models.items():
            self.data.files(settings.dataset)
            for m in self.sizes(name):
                self.check_size(name, m)
        for name in ("table4", "table5"):
            table = getattr(self, name)
            if table and self.models[table.model].task == "fact_checking":
                raise ValueError(f"{name}.model is {table.model!r} but must be a model that answers questions")
        return self

    @model_validator(mode="after")
    def _check_filters(self) -> "Config":
        """The models that filter rephrasings must be there, and be taught what is right."""
        for corpus, name in self.data.rebuild.filter.items():
            where = f"data.rebuild.filter.{corpus}"
            if name not in self.models:
                raise ValueError(f"{where} names the model {name!r}; known are {', '.join(self.models)}")
            if self.models[name].dataset != FILTERING[corpus]:
                raise ValueError(f"{where} is {name!r}, whose dataset is not {FILTERING[corpus]!r}; choose another")
        return self

    @model_validator(mode="after")
    def _check_hypernetworks(self) -> "Config":
        """Residuals and the memory of a meta-step are those of editors with a hyper-network."""
        residuals = [use[:3] for use in self.uses() if use[0] == "figures.figure8"]
        for where, model, editor in (*residuals, *self.memory_uses()):
            if not self.models[model].editors[editor].trained:
                raise ValueError(f"{where} names the editor {editor!r}, which has no hyper-network; choose another")
        return self

    def memory_uses(self) -> Iterator[tuple[str, str, str]]:
        """Yield which model and editors Figure 9 asks for; they need not be trained or measured."""
        if memory := self.figures.figure9:
            yield from (("figures.figure9", memory.model, editor) for editor in (memory.separated, memory.concatenated))

    def batches(self, model: str, editor: str) -> list[tuple[list[int], list[int]]]:
        """Return the values of m and the seeds that each job of an editor on a model takes."""
        sizes = cut(self.sizes(model, editor), self.jobs.sizes)
        return [(some, seeds) for some in sizes for seeds in cut(self.seeds, self.jobs.seeds)]

    def sharing(self, model: str, editor: str) -> str | None:
        """Return under which editor's name what an editor's runs on a model share is kept; None if it is not.

        It is the first of those that cache the same positions of the same layers.
        """
        editors = self.models[model].editors

        def cached(name: str) -> tuple[object, ...]:
            settings = editors[name]
            return settings.ffn_layers, settings.last_blocks, settings.blocks, settings.hypernetwork.tokens

        alike = [name for name in editors if editors[name].trained and cached(name) == cached(editor)]
        runs = len(self.seeds) * sum(len(self.sizes(model, name)) for name in alike)
        shared = self.cache is not None and editors[editor].trained and runs >= self.cache.min_runs
        return alike[0] if shared else None

    @property
    def folders(self) -> list[Path]:
        """The folders that hold nothing but what this configuration made."""
        return [Path("results", self.profile), Path("data", self.profile)]

    @property
    def unpinned(self) -> list[str]:
        """The models that are to be fetched from the hub, but of which no revision is set."""
        return [name for name, m in self.models.items() if m.pretrained and not m.directory and not m.revision]

    @property
    def tables(self) -> list[str]:
        """The names of the tables that are made."""
        return [name for name in ("table1", "table2", "table3", "table4", "table5") if getattr(self, name)]

    def uses(self) -> Iterator[tuple[str, str, str, list[int] | None]]:
        """Yield where which model and editor are asked for, and the values of m to be measured (None: the model's)."""
        for name, figure in self.figures.curves.items():
            yield from ((f"figures.{name}", figure.model, editor, figure.n_edits) for editor in figure.editors)
        for name in self.tables:
            table = getattr(self, name)
            if isinstance(table, Ablation):
                yield from ((name, model, row.editor, [table.n_edits]) for row in table.rows for model in table.models)
            elif isinstance(table, Comparison):
                yield from ((name, table.model, editor, table.n_edits) for editor in table.editors)
            else:
                yield name, table.model, table.editor, [table.n_edits]

    def sizes(self, model: str, editor: str | None = None) -> list[int]:
        """Return the values of m at which an editor (or any) is measured on a model, in ascending order."""
        sizes: set[int] = set()
        for _, used, by, own in self.uses():
            if used == model and editor in (None, by):
                sizes |= set(self.models[model].n_edits if own is None else own)
        return sorted(sizes)

    def tuning_sizes(self, model: str) -> list[int]:
        """Return the values of m at which hyper-parameters are compared: those that the tuning split can hold."""
        most = self.data.at_most(self.models[model].dataset, "tune")
        return [m for m in sorted(self.models[model].n_edits) if most is None or m <= most]

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
    entry = merge(editors[name], own.get(name, {}))
    base = entry.pop("based_on", None)
    chain = (*seen, name)
    if base in chain:
        raise ValueError(f"editors.{name}.based_on is {base!r} but that is itself based on {name!r}")
    if base is not None and base not in tuple(editors):
        raise ValueError(f"editors.{name}.based_on is {brief(base)} but must be one of {', '.join(editors)}")
    return merge(complete(editors, own, base, chain), entry) if base else entry


def cut(values: Sequence[int], length: int) -> list[list[int]]:
    """Return the values, so many at a time."""
    return [list(values[start : start + length]) for start in range(0, len(values), length)]


def mapping(value: Any, where: str) -> Any:
    """Return a value of the file; raise ``ValueError`` unless it maps keys to values."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} is {brief(value)} but {MAPPING}")
    return value


def stated(section: Any) -> dict[str, Any]:
    """Return what a section of the file sets to something."""
    return {key: value for key, value in section.items() if value is not None} if isinstance(section, Mapping) else {}


def brief(value: Any) -> str:
    """Return a value as Python writes it, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``below`` with the keys of ``above`` laid over it, section by section."""
    result = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if nested else value
    return result


def check_layers(model: Model, editor: EditorSettings, where: str) -> None:
    """Raise ``ValueError`` if the model is known not to have the layers that an editor edits."""
    if editor.method == "memit" and model.task != "question_answering":
        raise ValueError(f"{where} is MEMIT, which edits models that continue a prompt, but task is {model.task!r}")
    source = model.scratch or model.directory
    known = layer_names_of(source) if source else []
    for kind in editor.ffn_layers if known else ():
        for pattern in model.ffn.patterns()[kind]:
            found = [name for name in known if re.fullmatch(pattern, name)]
            if len(found) < editor.blocks_needed:
                edits = f"the last {editor.last_blocks}" if editor.blocks is None else f"number {editor.blocks[-1]}"
                raise ValueError(
                    f"{where} edits {edits} of the layers named like '{pattern}', but the model has {len(found)}; its "
                    f"last layers are {', '.join(known[-2:])}"
                )


def load(raw: Mapping[str, Any], name: str = "Configuration") -> Config:
    """Check a configuration as read from YAML; messages begin with ``name``.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    try:
        return Config.model_validate(dict(raw))
    except ValidationError as error:
        raise UserError(f"{name}: {explain(error.errors()[0], Config.model_json_schema())}.") from None


def load_file(path: Path) -> Config:
    """Read a configuration from a YAML file and check it.

    Raises:
        UserError: if the file cannot be read, or names a key that is wrong.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; check the path, or run this in the project's folder.")
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise UserError(f"The configuration {path} {MAPPING}.")
    return load(raw, str(path))


def read_memit_settings(path: Path) -> MemitSettings:
    """Read MEMIT's settings from a file of YAML or JSON, which need not have all keys.

    Raises:
        UserError: naming the file and the key, its value and what is allowed.
    """
    raw = read_yaml(path)
    settings = TypeAdapter(MemitSettings)
    try:
        return settings.validate_python({} if raw is None else raw)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error.errors()[0], settings.json_schema())}.") from None


def explain(error: ErrorDetails, schema: Mapping[str, Any]) -> str:
    """Say which key is wrong, what its value is, and what is allowed; ``schema`` is that of the whole."""
    key = ".".join(str(part) for part in error["loc"] if part != "[key]")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{key} is not a known key; known are {', '.join(known_keys(error['loc'][:-1], schema))}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{key} is missing; set it"
    reason = error["msg"].removeprefix("Value error, ").partition(" after validation")[0]
    reason = TYPES.get(error["type"]) or re.sub(r"^\w+ should ", "must ", reason)
    if reason.startswith("must "):
        return f"{key or 'it'} is {brief(error['input'])} but {reason}"
    return f"{key}: {reason}" if key else reason


def known_keys(place: Sequence[str | int], schema: Mapping[str, Any]) -> list[str]:
    """Return the keys that the schema allows at a place of what it describes."""
    node = schema
    for part in place:
        inner = [*node.get("patternProperties", {}).values(), node.get("items"), node.get("properties", {}).get(part)]
        found = next(filter(None, inner))
        refs = [option["$ref"] for option in (found, *found.get("anyOf", ())) if "$ref" in option]
        node = schema["$defs"][refs[0].rpartition("/")[2]] if refs else found
    return list(node["properties"])


def write_schema(path: Path) -> None:
    """Write the JSON schema of the configuration, as YAML."""
    schema = Config.model_json_schema()
    head = "# Generated by `make schema` from src/malmen/config/load.py: every key with type, default and meaning.\n"
    write_text(path, head + yaml.safe_dump(schema, sort_keys=False, width=120, allow_unicode=True))
