"""What each job of the workflow costs: a function for each rule, of the job's wildcards and the configuration.

Times are operation counts (:mod:`malmen.plan.flops`) over rates, plus starting and loading; memory and disk are counted
from shapes (:mod:`malmen.plan.memory`). torch is not imported.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import cast

from malmen.config.architectures import shape_of
from malmen.config.base import Corpus, Dataset
from malmen.config.configuration import Config
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.config.optimisation import OptimisationSettings
from malmen.config.rounds import Rounds
from malmen.config.upstream_files import upstream_files
from malmen.data.formats import count_records
from malmen.data.rebuild import corpus_of
from malmen.errors import UserError
from malmen.plan.flops import EditorWork, Lengths, Network, Work
from malmen.plan.memory import FLOAT32, GIGABYTE, PROCESS, EditorFootprint, ModelFootprint, Needs
from malmen.runtime.text import numbers

LINES_PER_TUPLE = 2
"""Lines of text on which a model from scratch is pretrained, for each edit tuple: an assumption."""
PROMPTS = 4
"""Prompts of an edit tuple whose hidden states are cached, the equivalent ones among them: an assumption."""
UNKNOWN_FILE = 0.1 * GIGABYTE
"""Size of an upstream file whose size is not known: more than that of the largest known one."""
TUPLE = 2000.0
"""Bytes that a tuple takes in files and, while it is encoded, in memory: an assumption."""
TRANSLATOR = 75e6
"""Parameters of a translation model (opus-mt)."""
PICKLED_PART = 2 * GIGABYTE
"""The most that one file of safetensors takes while a pickle is converted, in float32 (``models.pickled.SHARD``)."""
BEAM = 4e6
"""Bytes that a beam of a translation, or a prompt that is filtered, takes where the model runs: an assumption."""
QUESTIONS = 2
"""Questions of a record of KILT's zsRE: an assumption."""
SPLITS = ("train", "tune", "validation")

SPREAD = 2.0
"""How many times the shortest estimated time the longest is: so far apart are the paper's two published times."""
CPU_TFLOPS = 0.08
"""What a CPU thread sustains: with :data:`SPREAD`, GPT-2's training step at m = 64 (docs/performance.md) and the demo's
27 minutes with ``--cores 1`` lie within the range."""


@dataclass(frozen=True)
class Time:
    """An estimated time, in seconds.

    Attributes:
        low: the shortest.
        high: the longest.
    """

    low: float = 0.0
    high: float = 0.0

    def __add__(self, other: "Time") -> "Time":
        return Time(self.low + other.low, self.high + other.high)

    def __mul__(self, times: float) -> "Time":
        return Time(times * self.low, times * self.high)

    __rmul__ = __mul__


@dataclass(frozen=True)
class Rates:
    """How fast a device works; a time may be :data:`SPREAD` times as long.

    The defaults are those of an A100, calibrated by the paper's two published times for 16,384 facts on GPT-J: MEMIT's
    33.75 hours are near the shortest estimated time, MALMEN's 12.25 hours near the longest.

    Attributes:
        float32: sustained TFLOP/s in float32.
        bfloat16: sustained TFLOP/s in bfloat16.
        start_seconds: to start a job and import its libraries.
        load_gigabytes: of weights loaded per second.
    """

    float32: float = 1.6
    bfloat16: float = 10.5
    start_seconds: float = 20.0
    load_gigabytes: float = 1.0

    @classmethod
    def of(cls, config: Config) -> "Rates":
        """Return the rates of the device that a configuration names."""
        if config.device == "cuda":
            return cls()
        return cls(float32=CPU_TFLOPS * config.threads, bfloat16=CPU_TFLOPS * config.threads, start_seconds=6.0)

    def time(self, work: Work, dtype: str) -> Time:
        """Return how long the work takes with a model of this precision."""
        rate = self.bfloat16 if dtype == "bfloat16" else self.float32
        seconds = (work.model / rate + work.float32 / self.float32) / 1e12
        return Time(seconds, SPREAD * seconds)

    def loading(self, size: float) -> Time:
        """Return how long a process takes to start and to load ``size`` bytes of weights."""
        seconds = self.start_seconds + size / GIGABYTE / self.load_gigabytes
        return Time(seconds, seconds)


@dataclass(frozen=True)
class Estimate:
    """What a job costs.

    Attributes:
        needs: memory and disk.
        time: None if it runs no model.
        gpus: how many GPUs it takes; 0 on a CPU.
        download: bytes that it fetches over the network.
    """

    needs: Needs = field(default_factory=Needs)
    time: Time | None = None
    gpus: int = 0
    download: float = 0.0

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.gpus > 0


class Known:
    """What is known of a configuration before it is run: sizes of models and data sets, and the device's rates.

    Args:
        config: the configuration.
        rates: of the device; those of :meth:`Rates.of` if not given.
        lengths: of the sequences.
    """

    def __init__(self, config: Config, rates: Rates | None = None, lengths: Lengths | None = None) -> None:
        self.config, self.rates = config, rates or Rates.of(config)
        self.lengths = lengths or Lengths()
        self.network = cache(self._network)
        self.own_facts = cache(self._own_facts)
        self.on_gpu = config.device == "cuda"

    def _network(self, name: str) -> Network:
        """Return the size of a model; raise :class:`UserError` if it is not known."""
        model = self.config.models[name]
        shape = model.scratch.shape if model.scratch else model.shape
        if shape is None and model.directory:
            shape = shape_of(model.directory)
        if shape is None:
            raise UserError(f"What editing {name} costs cannot be estimated; set models.{name}.shape.")
        return Network(shape, model.task, self.lengths)

    def tuples(self, model: str, *splits: str) -> int:
        """Return how many tuples splits of a model's data set hold together; :class:`UserError` if not known."""
        found = [self.at_most(self.config.models[model].dataset, split) for split in splits]
        if None in found:
            raise UserError(f"What editing {model} costs cannot be estimated: the size of its data set is not known.")
        return sum(filter(None, found))

    def at_most(self, dataset: Dataset, split: str) -> int | None:
        """Return how many tuples a split holds at most, of own files by what is in them; None if that is not known."""
        data = self.config.data
        if data.source != "files":
            return data.at_most(dataset, split)
        shares = data.split.shares
        return -(-self.own_facts() * shares[split] // sum(shares.values()))

    def _own_facts(self) -> int:
        """Return the number of records in the file of own facts; raise :class:`UserError` if it cannot be read."""
        assert self.config.data.files.facts  # The configuration was checked.
        return count_records(Path(self.config.data.files.facts))

    def width(self, model: str) -> int:
        """Return the bytes of one of a model's weights."""
        return 2 if self.config.models[model].dtype == "bfloat16" else 4

    def download(self, model: str) -> float:
        """Return the bytes of a hub's model: as published, or else those of its shape in the precision of its dtype."""
        settings = self.config.models[model]
        published = settings.pickle.bytes if settings.pickle else settings.download_bytes
        return float(published or self.network(model).parameters * self.width(model))

    def spread(self, model: str) -> int:
        """Return over how many devices a process spreads a model; 1 if it does not."""
        return max(1, self.config.gpus_of_a_process(model))

    def footprint(self, model: str) -> ModelFootprint:
        """Return the memory that a model takes."""
        return ModelFootprint(self.network(model), self.width(model), self.spread(model))

    def editor(self, model: str, editor: str, ranks: int = 1) -> tuple[EditorWork, EditorFootprint]:
        """Return the operations of an editor on a model, of all ranks together, and the memory of one of them."""
        work = EditorWork(self.network(model), self.config.models[model].editors[editor])
        return work, EditorFootprint(work, self.width(model), self.on_gpu, self.spread(model), ranks)

    def prompts(self, corpus: Corpus) -> float:
        """Return about how many prompts a part of a corpus of rebuilt data holds."""
        settings = self.config.data.rebuild
        names = settings.sources(corpus, "train") + settings.sources(corpus, "validation")
        records = sum(upstream_files()[name].records or 0 for name in names)
        return records * (1 if corpus == "fever" else QUESTIONS) / settings.parts

    def cost(
        self,
        work: Work,
        model: str,
        loads: int = 1,
        device: float = 0.0,
        least: float | None = None,
        disk: float = 0.0,
        memory: float = 0.0,
        ranks: int = 1,
    ) -> Estimate:
        """Return the cost of a job that starts, loads a model, and works.

        Ranks load at the same time. They are taken to share all of the work, and none of the main memory.

        Args:
            work: its operations.
            model: the model.
            loads: how often it loads the model, each time in a process of its own.
            device: bytes where the model runs, of each rank.
            least: those without which it cannot run; all if not given.
            disk: bytes that it leaves.
            memory: bytes of main memory of each rank, beside those that any job with this model takes.
            ranks: how many processes share the job.
        """
        weights = self.network(model).parameters * self.width(model)
        working = 1 / ranks * self.rates.time(work, self.config.models[model].dtype)
        time = loads * self.rates.loading(weights) + working
        memory += PROCESS[self.config.device] + TUPLE * self.tuples(model, "train", "validation")
        memory += weights if self.on_gpu else device
        needs = Needs(device, ranks * memory, disk, device if least is None else least)
        return Estimate(needs, time, ranks * self.config.gpus_of_a_process(model))


Wildcards = Mapping[str, str]


# Data


def upstream_bytes(names: Sequence[str]) -> float:
    """Return the size of upstream files."""
    return float(sum(upstream_files()[name].bytes or UNKNOWN_FILE for name in names))


def download_source(_: Known, job: Wildcards) -> Estimate:
    """Return the cost of a download."""
    size = upstream_bytes([job["name"]])
    return Estimate(Needs(disk=size), download=size)


def convert(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of making a data set of upstream files."""
    size = upstream_bytes(known.config.data.upstream(cast(Dataset, job["dataset"])))
    return Estimate(Needs(memory=Needs().memory + 10 * size, disk=2 * size))


def build_own_data(known: Known, _: Wildcards) -> Estimate:
    """Return the cost of making a data set of the user's own files."""
    files = (known.config.data.files.facts, known.config.data.files.unrelated)
    size = sum(Path(file).stat().st_size for file in files if file and Path(file).is_file())
    return Estimate(Needs(memory=Needs().memory + 10 * size, disk=2 * size))


def fetch_translator(*_: object) -> Estimate:
    """Return the cost of fetching a translation model, with its copy in the hub's cache."""
    size = TRANSLATOR * FLOAT32
    return Estimate(Needs(disk=2 * size), download=size)


def back_translate(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of translating a part of the prompts, and each of the translations back."""
    settings, prompts = known.config.data.rebuild.translation, known.prompts(corpus_of(job["corpus"]))
    texts = prompts * (1 + settings.translations)
    work = Work(model=2 * TRANSLATOR * texts * settings.beams * known.lengths.sequence)
    device = 2 * TRANSLATOR * FLOAT32 + settings.batch_size * settings.beams * BEAM
    memory = PROCESS[known.config.device] + TUPLE * prompts + device
    time = 2 * known.rates.loading(0) + known.rates.time(work, "float32")
    return Estimate(Needs(device, memory), time, int(known.on_gpu))


def filter_rephrasings(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of running a part of the prompts and their rephrasings through the model that filters."""
    settings, corpus = known.config.data.rebuild, corpus_of(job["corpus"])
    model, prompts = settings.filter[corpus], known.prompts(corpus)
    work = Work(model=prompts * (1 + settings.translation.translations**2) * known.network(model).forward)
    weights, batch = known.network(model).parameters * known.width(model), settings.filter_batch_size * BEAM
    memory = PROCESS[known.config.device] + TUPLE * prompts + weights + batch
    time = known.rates.loading(0) + known.rates.time(work, known.config.models[model].dtype)
    needs = Needs(weights / known.spread(model) + batch, memory)
    return Estimate(needs, time, known.config.gpus_of_a_process(model))


# Models


def fetch_model(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of fetching a model, with its copy in the hub's cache; some are converted on the way.

    A pickle is counted as if it had to be read as a whole, with one file of safetensors beside it. A GGUF file becomes
    float32, of which memory holds two copies.
    """
    name = job["model"]
    size, settings = known.download(name), known.config.models[name]
    if settings.package and settings.package.is_gguf:
        kept = known.network(name).parameters * FLOAT32
        return Estimate(Needs(memory=PROCESS["cpu"] + 2 * kept, disk=2 * size + kept), download=size)
    if settings.pickle is None:
        return Estimate(Needs(disk=2 * size), download=size)
    kept = known.network(name).parameters * known.width(name)
    memory = PROCESS["cpu"] + size + min(kept, PICKLED_PART * known.width(name) / FLOAT32)
    return Estimate(Needs(memory=memory, disk=size + kept), download=size)


def pretrain_model(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of training a model from scratch."""
    settings = known.config.models[job["model"]].pretraining
    return optimisation(known, job["model"], LINES_PER_TUPLE * known.tuples(job["model"], *SPLITS), settings)


def finetune_model(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of fine-tuning a model before it is edited."""
    settings = known.config.models[job["model"]].base_finetuning
    assert settings
    return optimisation(known, job["model"], known.tuples(job["model"], *SPLITS), settings)


def optimisation(known: Known, model: str, sequences: int, settings: OptimisationSettings) -> Estimate:
    """Return the cost of training all of a model's parameters."""
    size, work = known.footprint(model), known.network(model).training(sequences, settings)
    return known.cost(work, model, device=size.training(settings.batch_size), disk=size.file)


# Editors


def cache_base_outputs(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of computing what runs on the tuples of a split share."""
    model, split = job["model"], job["split"]
    n = at_most(known.tuples(model, split), known.config.cached_tuples(model, split))
    work, size = known.editor(job["model"], job["editor"])
    operations = work.capture(n) + Work(model=PROMPTS * n * work.network.forward)
    return known.cost(operations, job["model"], device=size.editing(1), disk=size.cache(n, PROMPTS))


def collect_covariance(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of collecting the covariance of MEMIT's keys."""
    ranks = known.config.ranks(job["model"])
    work, size = known.editor(job["model"], job["editor"], ranks)
    assert isinstance(work.settings, MemitEditorSettings)
    settings = work.settings.memit.covariance
    return known.cost(
        work.covariance(settings.max_tokens),
        job["model"],
        device=size.collecting(settings),
        disk=size.covariance,
        memory=3 * size.covariance,  # in float64, and once more in float32 to be written
        ranks=ranks,
    )


def train_editor(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of training an editor for some m and seeds."""
    ranks = known.config.ranks(job["model"])
    work, size = known.editor(job["model"], job["editor"], ranks)
    n_edits, seeds = numbers(job["n_edits"]), len(numbers(job["seeds"]))
    assert isinstance(work.settings, HyperNetworkEditorSettings)
    n_tuples, training = known.tuples(job["model"], "train"), work.settings.training
    each = {m: work.meta_step(m, training.groups_per_step(m)) for m in n_edits}
    steps = sum((training.steps(n_tuples, m) * step for m, step in each.items()), Work())
    needed, least = (max(size.training(m, in_files) for m in n_edits) for in_files in (False, True))
    disk = seeds * len(n_edits) * size.hyper_network * FLOAT32
    return known.cost(seeds * steps, job["model"], device=needed, least=least, disk=disk, ranks=ranks)


def evaluate_editor(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of measuring an editor with some m and seeds."""
    ranks = known.config.ranks(job["model"])
    work, size = known.editor(job["model"], job["editor"], ranks)
    n_edits, seeds = numbers(job["n_edits"]), len(numbers(job["seeds"]))
    n_tuples, limits = known.tuples(job["model"], job["split"]), known.config.evaluation
    groups = {m: min(n_tuples // m, limits.groups(m, job["editor"]) or n_tuples) for m in n_edits}
    operations = evaluation(work, at_most(n_tuples, limits.tuples(n_edits, job["editor"])), groups)
    needed, least = (max(size.editing(m, in_files) for m in n_edits) for in_files in (False, True))
    return known.cost(seeds * operations, job["model"], device=needed, least=least, ranks=ranks)


def edit_in_rounds(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of editing in rounds and measuring; each measurement scores all edits so far.

    An editor that is trained anew is trained before each of its rounds.
    """
    model, name = job["model"], job["editor"]
    ranks = known.config.ranks(model)
    work, size = known.editor(model, name, ranks)
    by_name = {rounds.name: rounds for rounds in known.config.models[model].rounds}
    rounds, seeds = [by_name[one] for one in job["rounds"].split("-")], len(numbers(job["seeds"]))
    scoring = Work(model=3 * work.network.forward)
    edits = [one.n_rounds * work.edit(one.n_edits) for one in rounds]
    measured = [one.n_edits * sum(one.measured) * scoring for one in rounds]
    retrained = [retraining(work, one, known.tuples(model, "train")) for one in rounds]
    before = max(one.total for one in rounds) * scoring
    operations = sum((*edits, *measured, *retrained), before)
    needed, least = (max(size.editing(one.n_edits, in_files) for one in rounds) for in_files in (False, True))
    return known.cost(seeds * operations, model, device=needed, least=least, ranks=ranks)


def retraining(work: EditorWork, rounds: Rounds, n_tuples: int) -> Work:
    """Return what training an editor anew before its rounds takes, on ``n_tuples`` tuples."""
    settings = work.settings
    if not isinstance(settings, HyperNetworkEditorSettings) or not settings.in_rounds.retrain_every:
        return Work()
    times = (rounds.n_rounds - 1) // settings.in_rounds.retrain_every
    return times * settings.training.steps(n_tuples, rounds.n_edits) * work.meta_step(rounds.n_edits)


def at_most(held: int, limit: int | None) -> int:
    """Return how many of the tuples that a split holds are used."""
    return held if limit is None else min(held, limit)


def evaluation(work: EditorWork, seen: int, groups: Mapping[int, int]) -> Work:
    """Return what measuring some groups of each m takes: every tuple before, and every group after its edit."""
    scoring = Work(model=3 * work.network.forward)
    return seen * scoring + sum((number * (work.edit(m) + m * scoring) for m, number in groups.items()), Work())


def list_failures(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of listing the failures of one group of edits."""
    work, size = known.editor(job["model"], job["editor"])
    n_edits = int(job["n_edits"])
    operations = work.edit(n_edits) + Work(model=6 * n_edits * work.network.forward)
    needed, least = (size.editing(n_edits, in_files) for in_files in (False, True))
    return known.cost(operations, job["model"], device=needed, least=least)


def measure_memory(known: Known, job: Wildcards) -> Estimate:
    """Return the cost of the measurements of a memory figure.

    What MEND-style needs at large m does not count: such points are marked as out of memory.
    """
    figure = known.config.memory_figures[job["figure"]]
    both = [known.editor(figure.model, editor) for editor in (figure.separated, figure.concatenated)]
    steps = sum((work.meta_step(m) for (work, _), m in product(both, figure.n_edits)), Work())
    largest, loads = max(figure.n_edits), 1 + 2 * len(figure.n_edits)
    needed, least = (both[0][1].training(largest, in_files) for in_files in (False, True))
    return known.cost(steps, figure.model, loads=loads, device=needed, least=least)


COSTS: dict[str, Callable[[Known, Wildcards], Estimate]] = {
    "download_source": download_source,
    "build_realtext": convert,
    "convert_authors": convert,
    "convert_mend": convert,
    "build_own_data": build_own_data,
    "fetch_translator": fetch_translator,
    "back_translate": back_translate,
    "filter_rephrasings": filter_rephrasings,
    "fetch_model": fetch_model,
    "pretrain_model": pretrain_model,
    "finetune_model": finetune_model,
    "cache_base_outputs": cache_base_outputs,
    "collect_covariance": collect_covariance,
    "train_editor": train_editor,
    "evaluate_editor": evaluate_editor,
    "edit_in_rounds": edit_in_rounds,
    "list_failures": list_failures,
    "measure_memory": measure_memory,
}
"""The cost of a job by its rule."""


def cost_of(known: Known, rule: str, wildcards: Wildcards) -> Estimate:
    """Return what a job costs; one of a rule that is not in :data:`COSTS` takes seconds and little memory.

    Raises:
        UserError: if a model's shape or a data set's size is not known.
    """
    return COSTS[rule](known, wildcards) if rule in COSTS else Estimate()
