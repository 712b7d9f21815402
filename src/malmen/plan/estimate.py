"""What a configuration will cost before it is run: its jobs by rule, and the hours, memory and disk they need.

The hours are operation counts (:mod:`malmen.plan.flops`) divided by assumed rates, plus starting and loading; memory
and disk are counted from shapes (:mod:`malmen.plan.memory`). torch is not imported.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

from malmen.config.architectures import shape_of
from malmen.config.base import Corpus, Dataset
from malmen.config.configuration import Config
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.config.memit import MemitEditorSettings
from malmen.config.optimisation import OptimisationSettings
from malmen.config.upstream_files import upstream_files
from malmen.data.rebuild import corpus_of
from malmen.errors import UserError
from malmen.plan.flops import EditorWork, Lengths, Network, Work
from malmen.plan.memory import FLOAT32, GIGABYTE, PROCESS, EditorFootprint, ModelFootprint, Needs
from malmen.runtime.text import counted

LINES_PER_TUPLE = 2
"""Lines of text on which a model from scratch is pretrained, for each edit tuple: an assumption."""
PROMPTS = 4
"""Prompts of an edit tuple whose hidden states are kept for all runs, the equivalent ones among them: an assumption."""
UNKNOWN_FILE = 0.1 * GIGABYTE
"""Size of an upstream file whose size is not known: more than that of the largest known one."""
TUPLE = 2000.0
"""Bytes that a tuple takes in files and, while it is encoded, in memory: an assumption."""

TRANSLATOR = 75e6
"""Parameters of a translation model (opus-mt)."""
BEAM = 4e6
"""Bytes that a beam of a translation, or a prompt that is filtered, takes where the model runs: an assumption."""
QUESTIONS = 2
"""Questions of a record of KILT's zsRE: an assumption."""

PUBLISHED = (
    "The paper's own times with one A100, for 16,384 edits on GPT-J, are twelve (MALMEN) and six (MEMIT) times what "
    "this count gives at the default rates: take the hours as optimistic."
)
"""How the count stands to the only published times; a test keeps it true."""
MEMORY = (
    "Memory and disk: counted from shapes, with a quarter more for an allocator's waste. GPU GB: what a job cannot do "
    "without; at best: with room for all rows that it keeps, which else lie in files in TMPDIR."
)
"""What the numbers of bytes mean."""


SPLITS = ("train", "tune", "validation")
CPU_TFLOPS = 0.04
"""What a CPU thread sustains: measured in GPT-2's training step at m = 64 (docs/performance.md)."""


@dataclass(frozen=True)
class Rates:
    """Assumed rates of one GPU. The defaults are an A100's: half of its 19.5 TFLOP/s, and a fifth of its 312.

    Attributes:
        float32: sustained TFLOP/s in float32.
        bfloat16: sustained TFLOP/s in bfloat16.
        start_seconds: to start a job and import its libraries.
        load_gigabytes: of weights loaded per second.
    """

    float32: float = 10.0
    bfloat16: float = 60.0
    start_seconds: float = 20.0
    load_gigabytes: float = 1.0

    @classmethod
    def of(cls, config: Config) -> "Rates":
        """Return the rates of the device that a configuration names."""
        if config.device == "cuda":
            return cls()
        return cls(float32=CPU_TFLOPS * config.threads, bfloat16=CPU_TFLOPS * config.threads, start_seconds=8.0)

    def seconds(self, work: Work, dtype: str) -> float:
        """Return how long the work takes with a model of this precision."""
        rate = self.bfloat16 if dtype == "bfloat16" else self.float32
        return (work.model / rate + work.float32 / self.float32) / 1e12


@dataclass(frozen=True)
class Job:
    """A job: its rule, its seconds (None if it runs no model), its model, editor and m, its needs, and if on a GPU."""

    rule: str
    seconds: float | None = None
    model: str | None = None
    editor: str | None = None
    sizes: tuple[int, ...] = ()
    needs: Needs = field(default_factory=Needs)
    on_gpu: bool = False


def duration(hours: float) -> str:
    """Return an estimated time in whole hours, or what is less in words."""
    return "less than half an hour" if hours < 0.5 else f"some {counted(round(hours), 'hour')}"


def hours(jobs: list[Job]) -> float:
    """Return the hours that jobs spend on running models."""
    return sum(job.seconds or 0 for job in jobs) / 3600


class Plan:
    """The jobs of a configuration of which nothing is made yet.

    Args:
        config: the configuration.
        rates: of the device; those of :meth:`Rates.of` if not given.
        lengths: of the sequences.
    """

    def __init__(self, config: Config, rates: Rates | None = None, lengths: Lengths | None = None) -> None:
        self.config, self.rates = config, rates or Rates.of(config)
        self.lengths = lengths or Lengths()

    @cached_property
    def jobs(self) -> list[Job]:
        """All jobs.

        Raises:
            UserError: if a model's shape or a data set's size is not known.
        """
        return [
            *self.data(),
            *self.model_jobs(),
            *self.cache_jobs(),
            *self.editor_jobs(),
            *self.analyses(),
            *self.drawings(),
        ]

    @cached_property
    def networks(self) -> dict[str, Network]:
        """What is known of the models' sizes."""
        return {name: self.network(name) for name in self.models}

    @cached_property
    def models(self) -> list[str]:
        """The models that figures or tables use, or that filter data."""
        used = {use[1] for use in (*self.config.uses(), *self.config.memory_uses())}
        if self.config.data.source == "rebuild":
            used |= set(self.config.data.rebuild.filter.values())
        return [name for name in self.config.models if name in used]

    def network(self, name: str) -> Network:
        """Return what is known of a model's size."""
        model = self.config.models[name]
        shape = model.scratch.shape if model.scratch else model.shape
        if shape is None and model.directory:
            shape = shape_of(model.directory)
        if shape is None:
            raise UserError(f"What editing {name} costs cannot be estimated; set models.{name}.shape.")
        return Network(shape, model.task, self.lengths)

    def tuples(self, model: str, *splits: str) -> int:
        """Return how many tuples splits of a model's data set hold together."""
        found = [self.config.data.at_most(self.config.models[model].dataset, split) for split in splits]
        if None in found:
            raise UserError(f"What editing {model} costs cannot be estimated: the size of its data set is not known.")
        return sum(filter(None, found))

    def width(self, model: str) -> int:
        """Return the bytes of one of a model's weights."""
        return 2 if self.config.models[model].dtype == "bfloat16" else 4

    def gpus(self, model: str) -> int:
        """Return over how many GPUs a model is spread; 1 if it is not."""
        settings = self.config.models[model]
        return settings.gpus if self.config.device == "cuda" and settings.device_map is not None else 1

    def job(
        self,
        rule: str,
        work: Work,
        model: str,
        editor: str | None = None,
        sizes: Sequence[int] = (),
        loads: int = 1,
        device: float = 0.0,
        least: float | None = None,
        disk: float = 0.0,
        memory: float = 0.0,
    ) -> Job:
        """Return a job that starts, loads a model (so often, each in a process of its own), and works.

        Args:
            rule: its rule.
            work: its operations.
            model: the model.
            editor: the editor.
            sizes: the values of m.
            loads: how often it loads the model.
            device: bytes where the model runs.
            least: those without which it cannot; all if not given.
            disk: bytes that it leaves.
            memory: bytes of main memory beside those that any job with this model takes.
        """
        weights = self.networks[model].parameters * self.width(model)
        load = self.rates.start_seconds + weights / GIGABYTE / self.rates.load_gigabytes
        seconds = loads * load + self.rates.seconds(work, self.config.models[model].dtype)
        memory += PROCESS[self.config.device] + TUPLE * self.tuples(model, "train", "validation")
        memory += device if self.config.device == "cpu" else weights
        needs = Needs(device, memory, disk, device if least is None else least)
        return Job(rule, seconds, model, editor, tuple(sizes), needs, self.config.device == "cuda")

    def data(self) -> Iterator[Job]:
        """Yield the jobs that make the data sets."""
        data, datasets = self.config.data, sorted({self.config.models[name].dataset for name in self.models})
        if data.source == "world":
            yield Job("generate_world")
            return
        files = {file for dataset in datasets for file in data.files(dataset)}
        sizes = {file: upstream_files()[file].bytes or UNKNOWN_FILE for file in sorted(files)}
        yield from (Job("download_source", needs=Needs(disk=size)) for size in sizes.values())
        if data.source == "rebuild":
            yield from self.rebuilding(datasets)
            return
        made = Needs(memory=Needs().memory + 10 * sum(sizes.values()), disk=2 * sum(sizes.values()) / len(datasets))
        rule = "build_realtext" if data.source == "realtext" else f"convert_{data.source}"
        yield from [Job(rule, needs=made)] * len(datasets)

    def rebuilding(self, datasets: Sequence[Dataset]) -> Iterator[Job]:
        """Yield the jobs that make data anew, but for the downloads of files and for the models that filter."""
        settings = self.config.data.rebuild
        corpora: list[Corpus] = sorted({corpus_of(dataset) for dataset in datasets})
        for model in (settings.translation.forward, settings.translation.backward):
            if not Path(model).is_dir():
                yield Job("fetch_translator", needs=Needs(disk=2 * TRANSLATOR * FLOAT32))
        for corpus in corpora:
            yield Job("select_originals")
            yield from [self.translation_job(corpus)] * settings.parts
            if corpus in settings.filter:
                yield from [self.filtering_job(corpus)] * settings.parts
        yield from [Job("choose_alternatives")] * ("zsre_alternative" in datasets)
        yield from [Job(rule) for rule in ("list_finetuning_data", "pair_tuples") for _ in datasets]

    def prompts(self, corpus: Corpus) -> float:
        """Return about how many prompts a part of the data that are made anew holds."""
        settings = self.config.data.rebuild
        names = settings.sources(corpus, "train") + settings.sources(corpus, "validation")
        records = sum(upstream_files()[name].records or 0 for name in names)
        return records * (1 if corpus == "fever" else QUESTIONS) / settings.parts

    def translation_job(self, corpus: Corpus) -> Job:
        """Return the job that translates a part of the prompts and back: each, and each of its translations."""
        settings = self.config.data.rebuild.translation
        texts = self.prompts(corpus) * (1 + settings.translations)
        work = Work(model=2 * TRANSLATOR * texts * settings.beams * self.lengths.sequence)
        loads = 2 * self.rates.start_seconds
        device = 2 * TRANSLATOR * FLOAT32 + settings.batch_size * settings.beams * BEAM
        memory = PROCESS[self.config.device] + TUPLE * self.prompts(corpus) + device
        seconds = loads + self.rates.seconds(work, "float32")
        on_gpu = self.config.device == "cuda"
        return Job("back_translate", seconds, needs=Needs(device, memory), on_gpu=on_gpu)

    def filtering_job(self, corpus: Corpus) -> Job:
        """Return the job that runs a part of the prompts and their rephrasings through the model that filters."""
        settings = self.config.data.rebuild
        texts = self.prompts(corpus) * (1 + settings.translation.translations**2)
        model = settings.filter[corpus]
        work = Work(model=texts * self.networks[model].forward)
        weights, batch = self.networks[model].parameters * self.width(model), settings.filter_batch_size * BEAM
        device = weights / self.gpus(model) + batch
        seconds = self.rates.start_seconds + self.rates.seconds(work, self.config.models[model].dtype)
        memory = PROCESS[self.config.device] + TUPLE * self.prompts(corpus) + weights + batch
        return Job(
            "filter_rephrasings", seconds, model, needs=Needs(device, memory), on_gpu=self.config.device == "cuda"
        )

    def model_jobs(self) -> Iterator[Job]:
        """Yield the jobs that fetch, pretrain and teach the models."""
        for name in self.models:
            model = self.config.models[name]
            if model.scratch:
                yield self.pretraining_job(name)
            elif model.directory is None:
                fetched = 2 * self.footprint(name).file  # with its copy in the hub's cache
                yield Job("fetch_model", model=name, needs=Needs(disk=fetched))
            if model.teaching:
                yield self.teaching_job(name)

    def footprint(self, model: str) -> ModelFootprint:
        """Return the memory that a model takes."""
        return ModelFootprint(self.networks[model], self.width(model), self.gpus(model))

    def pretraining_job(self, model: str) -> Job:
        """Return the job that trains a model from nothing."""
        n_tuples, settings = self.tuples(model, *SPLITS), self.config.models[model].pretraining
        return self.optimisation_job("pretrain_model", model, LINES_PER_TUPLE * n_tuples, settings)

    def teaching_job(self, model: str) -> Job:
        """Return the job that teaches a model what it is to know."""
        settings = self.config.models[model].teaching
        assert settings
        return self.optimisation_job("finetune_model", model, self.tuples(model, *SPLITS), settings)

    def optimisation_job(self, rule: str, model: str, sequences: int, settings: OptimisationSettings) -> Job:
        """Return a job that trains all of a model's parameters."""
        size, work = self.footprint(model), self.networks[model].training(sequences, settings)
        return self.job(rule, work, model, device=size.training(settings.batch_size), disk=size.file)

    def editor_jobs(self) -> Iterator[Job]:
        """Yield the jobs that train and measure the editors."""
        for model, editor in product(self.models, self.config.editors):
            batches = self.config.batches(model, editor)
            if batches and self.config.models[model].editors[editor].method == "memit":
                yield self.statistics_job(model, editor)
            for sizes, seeds in batches:
                if self.config.models[model].editors[editor].method == "hypernetwork":
                    yield self.training_job(model, editor, sizes, len(seeds))
                yield self.evaluation_job(model, editor, sizes, len(seeds))

    def cache_jobs(self) -> Iterator[Job]:
        """Yield the jobs that compute what runs share."""
        asked = [(m, e) for m, e in product(self.models, self.config.editors) if self.config.batches(m, e)]
        for model, editor in dict.fromkeys((model, self.config.sharing(model, editor)) for model, editor in asked):
            if editor is None:
                continue
            yield from (self.cache_job(model, editor, split) for split in ("train", "validation"))

    def cache_job(self, model: str, editor: str, split: str) -> Job:
        """Return the job that computes what runs on the tuples of a split share."""
        n = self.tuples(model, split)
        work, size = self.editor(model, editor)
        operations = work.capture(n) + Work(model=PROMPTS * n * work.network.forward)
        return self.job(
            "cache_base_outputs", operations, model, editor, device=size.editing(1), disk=size.cache(n, PROMPTS)
        )

    def editor(self, model: str, editor: str) -> tuple[EditorWork, EditorFootprint]:
        """Return the operations and the memory of an editor on a model."""
        work = EditorWork(self.networks[model], self.config.models[model].editors[editor])
        return work, EditorFootprint(work, self.width(model), self.config.device == "cuda", self.gpus(model))

    def statistics_job(self, model: str, editor: str) -> Job:
        """Return the job that collects MEMIT's second moments."""
        work, size = self.editor(model, editor)
        assert isinstance(work.settings, MemitEditorSettings)
        settings = work.settings.memit.covariance
        operations = work.statistics(settings.max_tokens)
        moments = size.second_moments
        return self.job(
            "collect_covariance",
            operations,
            model,
            editor,
            device=size.statistics(settings),
            disk=moments,
            memory=3 * moments,  # in float64, and once more in float32 to be written
        )

    def training_job(self, model: str, editor: str, sizes: Sequence[int], seeds: int) -> Job:
        """Return the job that trains an editor for some m and seeds."""
        work, size = self.editor(model, editor)
        needed, least = (max(size.training(m, in_files) for m in sizes) for in_files in (False, True))
        disk = seeds * len(sizes) * size.hyper_network * 4
        operations = seeds * self.training(work, model, sizes)
        return self.job("train_editor", operations, model, editor, sizes, device=needed, least=least, disk=disk)

    def evaluation_job(self, model: str, editor: str, sizes: Sequence[int], seeds: int) -> Job:
        """Return the job that measures an editor with some m and seeds."""
        work, size = self.editor(model, editor)
        needed, least = (max(size.editing(m, in_files) for m in sizes) for in_files in (False, True))
        operations = seeds * self.evaluation(work, model, sizes)
        return self.job("evaluate_editor", operations, model, editor, sizes, device=needed, least=least)

    def failures_job(self, model: str, editor: str, n_edits: int) -> Job:
        """Return the job that lists the failures of one group of edits."""
        work, size = self.editor(model, editor)
        operations = work.edit(n_edits) + Work(model=6 * n_edits * work.network.forward)
        needed, least = (size.editing(n_edits, in_files) for in_files in (False, True))
        return self.job("list_failures", operations, model, editor, [n_edits], device=needed, least=least)

    def memory_job(self) -> Job:
        """Return the job of Figure 9; what MEND-style needs at large m need not be there: such points are marked."""
        figure = self.config.figures.figure9
        assert figure
        both = [self.editor(figure.model, editor) for editor in (figure.separated, figure.concatenated)]
        steps = sum((work.meta_step(m) for (work, _), m in product(both, figure.n_edits)), Work())
        largest, loads = max(figure.n_edits), 1 + 2 * len(figure.n_edits)
        needed, least = (both[0][1].training(largest, in_files) for in_files in (False, True))
        return self.job("measure_memory", steps, figure.model, loads=loads, device=needed, least=least)

    def training(self, work: EditorWork, model: str, sizes: Sequence[int]) -> Work:
        """Return what training an editor takes, once for each m."""
        n_tuples = self.tuples(model, "train")
        assert isinstance(work.settings, HyperNetworkEditorSettings)
        steps = {m: work.settings.training.steps(n_tuples, m) for m in sizes}
        return sum((steps[m] * work.meta_step(m) for m in sizes), Work())

    def evaluation(self, work: EditorWork, model: str, sizes: Sequence[int]) -> Work:
        """Return what measuring an editor takes: every tuple before, and every group of each m after its edit."""
        most = self.config.evaluation.max_groups
        n_tuples = self.tuples(model, "validation")
        groups = {m: min(n_tuples // m, most or n_tuples) for m in sizes}
        seen = n_tuples if most is None else min(n_tuples, max(sizes) * most)
        scoring = Work(model=3 * work.network.forward)
        return seen * scoring + sum((groups[m] * (work.edit(m) + m * scoring) for m in sizes), Work())

    def analyses(self) -> Iterator[Job]:
        """Yield the jobs that list failures and measure memory."""
        tables = [table for table in (self.config.table4, self.config.table5) if table]
        for model, editor, m in dict.fromkeys((table.model, table.editor, table.n_edits) for table in tables):
            yield self.failures_job(model, editor, m)
        if self.config.figures.figure9:
            yield self.memory_job()

    def drawings(self) -> Iterator[Job]:
        """Yield the jobs that draw figures and write tables."""
        kinds = {"figure8": "draw_residual", "figure9": "draw_memory"}
        yield from (Job(kinds.get(name, "draw_scaling")) for name in self.config.figures.names)
        yield from (Job(f"write_{name}") for name in (*self.config.tables, "compute", "summary", "chains"))
        yield Job("all")

    def by_rule(self) -> dict[str, list[Job]]:
        """Return the jobs by rule."""
        rules = dict.fromkeys(job.rule for job in self.jobs)
        return {rule: [job for job in self.jobs if job.rule == rule] for rule in rules}

    def by_target(self) -> dict[str, list[Job]]:
        """Return, by figure and table, the jobs that train, edit and measure for it; one may serve several."""
        targets: dict[str, list[Job]] = {}
        for where, model, editor, own in self.config.uses():
            name = where.removeprefix("figures.")
            sizes = set(own or self.config.models[model].n_edits)
            measuring = "list_failures" if name in ("table4", "table5") else "evaluate_editor"
            targets.setdefault(name, []).extend(
                job
                for job in self.jobs
                if (job.model, job.editor) == (model, editor)
                and (job.rule == "collect_covariance" or sizes & set(job.sizes))
                and job.rule in ("collect_covariance", "train_editor", measuring)
            )
        if self.config.figures.figure9:
            targets["figure9"] = [job for job in self.jobs if job.rule == "measure_memory"]
        return dict(sorted(targets.items()))

    @property
    def basis(self) -> str:
        """What the hours rest on."""
        rates, lengths = self.rates, self.lengths
        return (
            f"an estimate from operation counts at {rates.float32:g} TFLOP/s in float32 and {rates.bfloat16:g} in "
            f"bfloat16, with {lengths.sequence} tokens a sequence and {lengths.answer} an answer; never measured"
        )

    @property
    def hours_of(self) -> str:
        """What the hours are hours of."""
        return "GPU hours" if self.config.device == "cuda" else "CPU hours"

    @property
    def summary(self) -> str:
        """One sentence with jobs, hours, disk and memory."""
        on_gpu = [job for job in self.jobs if job.seconds is not None]
        where = "GPU" if self.config.device == "cuda" else "CPU"
        total = Total.of(self.jobs)
        time = duration(total.hours or 0.0)
        memory = total.least if self.config.device == "cuda" else total.memory
        return (
            f"{counted(len(self.jobs), 'job')}, {len(on_gpu):,} of them on a {where} for {time}, "
            f"{in_gigabytes(memory)} GB of {where} memory at most and {in_gigabytes(total.disk)} GB of disk "
            f"({self.basis})."
        )

    def text(self) -> str:
        """Return the plan as tables, of rules and of figures and tables."""
        heads = ("rule", "jobs", self.hours_of, "longest", "GPU GB", "at best", "RAM GB", "disk GB")
        lines = [row(heads)]
        for rule, jobs in self.by_rule().items():
            lines.append(row((rule, *Total.of(jobs).cells())))
            models = {name: [job for job in jobs if job.model == name] for name in self.models}
            lines += [row((f"  {name}", *Total.of(some).cells())) for name, some in models.items() if some]
        lines.append(row(("total", *Total.of(self.jobs).cells())))
        lines += ["", row(("figure or table", "jobs", self.hours_of))]
        lines += [row((name, f"{len(jobs):,}", f"{hours(jobs):,.1f}")) for name, jobs in self.by_target().items()]
        return "\n".join(lines)


@dataclass(frozen=True)
class Total:
    """What jobs need: hours of all, None if none runs a model; of the longest; bytes of the largest; disk of all.

    Memory of a GPU is that without which a job cannot run, and that in which it has room for everything.
    """

    jobs: int
    hours: float | None
    longest: float
    least: float
    device: float
    memory: float
    disk: float

    @classmethod
    def of(cls, jobs: Sequence[Job]) -> "Total":
        """Add up jobs; on a CPU the memory where the model runs is a part of the main memory."""
        times = [job.seconds for job in jobs if job.seconds is not None]
        return cls(
            jobs=len(jobs),
            hours=sum(times) / 3600 if times else None,
            longest=max(times, default=0.0) / 3600,
            least=max(job.needs.least if job.on_gpu else 0 for job in jobs),
            device=max(job.needs.device if job.on_gpu else 0 for job in jobs),
            memory=max(job.needs.memory for job in jobs),
            disk=sum(job.needs.disk for job in jobs),
        )

    def cells(self) -> tuple[str, ...]:
        """Return everything as text."""
        times = ("-", "-") if self.hours is None else (f"{self.hours:,.1f}", f"{self.longest:,.1f}")
        return (f"{self.jobs:,}", *times, *map(in_gigabytes, (self.least, self.device, self.memory, self.disk)))


def in_gigabytes(size: float) -> str:
    """Return bytes as gigabytes: "-" for none."""
    return f"{size / GIGABYTE:,.1f}" if size else "-"


def row(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    first, *others = cells
    return f"{first:<19}" + "".join(f"{cell:>10}" for cell in others)


START_MINUTES = 15
"""Time that a cluster's job asks for before its work begins: to start, and to load a model from a busy disk."""
SLOWER = 6
"""How many times the estimate a cluster's job asks for at its first attempt; the published times are 6 and 12 times."""
UNKNOWN_REQUEST = {"mem_mb": 32_000, "runtime": 12 * 60, "gpu_mem_mb": 0}
"""What a cluster's job asks for if the plan does not know its model's size."""


def requested(job: Callable[[], Job], attempt: int = 1) -> dict[str, int]:
    """Return what a job asks a cluster for: more time and main memory at each attempt.

    Args:
        job: gives the plan's job; called here, as it may raise a :class:`UserError`.
        attempt: counted from 1.

    Returns:
        ``mem_mb``, ``runtime`` in minutes, and ``gpu_mem_mb``, 0 on a CPU.
    """
    try:
        planned = job()
    except UserError:
        return UNKNOWN_REQUEST
    minutes = START_MINUTES + SLOWER * attempt * (planned.seconds or 0) / 60
    memory = planned.needs.memory * (1 + attempt) / 2
    return {
        "mem_mb": math.ceil(memory / 1e6),
        "runtime": math.ceil(minutes),
        "gpu_mem_mb": math.ceil(planned.needs.least / 1e6) if planned.on_gpu else 0,
    }


def models_to_pin(config: Config) -> str | None:
    """Say which models' revisions must be set before a configuration can be run; None if there is none."""
    if not config.unpinned:
        return None
    keys = ", ".join(f"models.{name}.revision" for name in config.unpinned)
    return f"Before it can be run, set {keys}: the commits of the hub's repositories that the weights are taken from."
