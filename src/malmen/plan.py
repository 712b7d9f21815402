"""What a configuration will cost before it is run: its jobs by rule, and the GPU hours they are expected to take.

The hours are operation counts (:mod:`malmen.operations`) divided by assumed rates, plus starting and loading. Nothing
of this was measured. torch is not imported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from malmen.config import Config
from malmen.errors import UserError
from malmen.operations import EditorWork, Lengths, Network, Work

LINES_PER_TUPLE = 2
"""Lines of text on which a model from scratch is pretrained, for each edit tuple: an assumption."""

PUBLISHED = (
    "The paper's own times with one A100, for 16,384 edits on GPT-J, are twelve (MALMEN) and six (MEMIT) times what "
    "this count gives at the default rates: take the hours as optimistic."
)
"""How the count stands to the only published times; a test keeps it true."""


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

    def seconds(self, work: Work, dtype: str) -> float:
        """Return how long the work takes with a model of this precision."""
        rate = self.bfloat16 if dtype == "bfloat16" else self.float32
        return (work.model / rate + work.float32 / self.float32) / 1e12


@dataclass(frozen=True)
class Job:
    """A job: its rule, its seconds on a GPU (None if it uses none), and which editor it runs on which model and m."""

    rule: str
    seconds: float | None = None
    model: str | None = None
    editor: str | None = None
    sizes: tuple[int, ...] = ()


def hours(jobs: list[Job]) -> float:
    """Return the GPU hours of jobs."""
    return sum(job.seconds or 0 for job in jobs) / 3600


class Plan:
    """The jobs of a configuration of which nothing is made yet.

    Args:
        config: the configuration.
        rates: of the GPU.
        lengths: of the sequences.

    Raises:
        UserError: if a model's shape or a data set's size is not known.
    """

    def __init__(self, config: Config, rates: Rates | None = None, lengths: Lengths | None = None) -> None:
        self.config, self.rates = config, rates or Rates()
        self.lengths = lengths or Lengths()
        self.networks = {name: self.network(name) for name in self.models}
        self.jobs = [*self.data(), *self.model_jobs(), *self.editor_jobs(), *self.analyses(), *self.drawings()]

    @cached_property
    def models(self) -> list[str]:
        """The models that figures or tables use."""
        used = {use[1] for use in (*self.config.uses(), *self.config.memory_uses())}
        return [name for name in self.config.models if name in used]

    def network(self, name: str) -> Network:
        """Return what is known of a model's size."""
        model = self.config.models[name]
        shape = model.scratch.shape if model.scratch else model.shape
        if shape is None:
            raise UserError(f"What editing {name} costs cannot be estimated; set models.{name}.shape.")
        return Network(shape, model.task, self.lengths)

    def tuples(self, model: str, *splits: str) -> int:
        """Return how many tuples splits of a model's data set hold together."""
        found = [self.config.data.at_most(self.config.models[model].dataset, split) for split in splits]
        if None in found:
            raise UserError(f"What editing {model} costs cannot be estimated: the size of its data set is not known.")
        return sum(filter(None, found))

    def job(
        self, rule: str, work: Work, model: str, editor: str | None = None, sizes: Sequence[int] = (), loads: int = 1
    ) -> Job:
        """Return a job that starts, loads a model (so often, each in a process of its own), and works."""
        dtype = self.config.models[model].dtype
        gigabytes = self.networks[model].parameters * (2 if dtype == "bfloat16" else 4) / 1e9
        load = self.rates.start_seconds + gigabytes / self.rates.load_gigabytes
        return Job(rule, loads * load + self.rates.seconds(work, dtype), model, editor, tuple(sizes))

    def data(self) -> Iterator[Job]:
        """Yield the jobs that make the data sets."""
        data, datasets = self.config.data, sorted({self.config.models[name].dataset for name in self.models})
        if data.source == "world":
            yield Job("generate_world")
            return
        rule = "build_realtext" if data.source == "realtext" else f"convert_{data.source}"
        yield from [Job("download_source")] * len({file for dataset in datasets for file in data.files(dataset)})
        yield from [Job(rule)] * len(datasets)

    def model_jobs(self) -> Iterator[Job]:
        """Yield the jobs that fetch, pretrain and teach the models."""
        for name in self.models:
            model, network = self.config.models[name], self.networks[name]
            n_tuples = self.tuples(name, "train", "tune", "validation")
            if model.scratch:
                work = network.training(LINES_PER_TUPLE * n_tuples, model.pretraining)
                yield self.job("pretrain_model", work, name)
            elif model.directory is None:
                yield Job("fetch_model")
            if model.teaching:
                yield self.job("teach_model", network.training(n_tuples, model.teaching), name)

    def editor_jobs(self) -> Iterator[Job]:
        """Yield the jobs that train and measure the editors."""
        for model, editor in product(self.models, self.config.editors):
            settings = self.config.models[model].editors[editor]
            batches = self.config.batches(model, editor)
            work = EditorWork(self.networks[model], settings)
            if batches and settings.method == "memit":
                statistics = work.statistics(settings.memit.statistics.max_tokens)
                yield self.job("collect_statistics", statistics, model, editor)
            for sizes, seeds in batches:
                if settings.trained:
                    training = len(seeds) * self.training(work, model, sizes)
                    yield self.job("train_editor", training, model, editor, sizes)
                evaluation = len(seeds) * self.evaluation(work, model, sizes)
                yield self.job("evaluate_editor", evaluation, model, editor, sizes)

    def training(self, work: EditorWork, model: str, sizes: list[int]) -> Work:
        """Return what training an editor takes, once for each m."""
        n_tuples = self.tuples(model, "train")
        steps = {m: work.settings.training.steps(n_tuples, m) for m in sizes}
        return sum((steps[m] * work.meta_step(m) for m in sizes), Work())

    def evaluation(self, work: EditorWork, model: str, sizes: list[int]) -> Work:
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
            work = EditorWork(self.networks[model], self.config.models[model].editors[editor])
            scoring = Work(model=6 * m * work.network.forward)
            yield self.job("list_failures", work.edit(m) + scoring, model, editor, [m])
        if figure := self.config.figures.figure9:
            editors = [self.config.models[figure.model].editors[e] for e in (figure.separated, figure.concatenated)]
            works = [EditorWork(self.networks[figure.model], settings) for settings in editors]
            steps = sum((work.meta_step(m) for work, m in product(works, figure.n_edits)), Work())
            yield self.job("measure_memory", steps, figure.model, loads=1 + 2 * len(figure.n_edits))

    def drawings(self) -> Iterator[Job]:
        """Yield the jobs that draw figures and write tables."""
        kinds = {"figure8": "draw_residual", "figure9": "draw_memory"}
        yield from (Job(kinds.get(name, "draw_scaling")) for name in self.config.figures.names)
        yield from (Job(f"write_{name}") for name in (*self.config.tables, "compute", "summary"))
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
                and (job.rule == "collect_statistics" or sizes & set(job.sizes))
                and job.rule in ("collect_statistics", "train_editor", measuring)
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
    def summary(self) -> str:
        """One sentence with jobs and GPU hours."""
        on_gpu = [job for job in self.jobs if job.seconds is not None]
        count = f"{len(self.jobs):,} jobs, {len(on_gpu):,} of them on a GPU for some {hours(on_gpu):,.0f} hours"
        return f"{count} ({self.basis})."

    def text(self) -> str:
        """Return the plan as tables, of rules and of figures and tables."""
        rules = {**self.by_rule(), "total": self.jobs}
        lines = [f"{'rule':<20}{'jobs':>6}{'GPU hours':>12}"]
        for rule, jobs in rules.items():
            on_gpu = any(job.seconds is not None for job in jobs)
            lines.append(f"{rule:<20}{len(jobs):>6,}{f'{hours(jobs):,.1f}' if on_gpu else '-':>12}")
        lines += ["", f"{'figure or table':<20}{'jobs':>6}{'GPU hours':>12}"]
        lines += [f"{name:<20}{len(jobs):>6,}{hours(jobs):>12,.1f}" for name, jobs in self.by_target().items()]
        return "\n".join(lines)


def models_to_pin(config: Config) -> str | None:
    """Say which models' revisions must be set before a configuration can be run; None if there is none."""
    if not config.unpinned:
        return None
    keys = ", ".join(f"models.{name}.revision" for name in config.unpinned)
    return f"Before it can be run, set {keys}: the commits of the hub's repositories that the weights are taken from."
