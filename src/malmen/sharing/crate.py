"""Exporting the records of a run as an RO-Crate, a public standard that other tools read.

The crate follows the profile Provenance Run Crate 0.5 (https://w3id.org/ro/wfrun/provenance) and holds metadata only:
it names files by their paths in the checkout, with SHA-256 and size. A job is a ``CreateAction``, its rule a
``HowToStep``, and the rule with its code in one state the tool; settings are ``PropertyValue``. The same records give
the same bytes.
"""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Literal

from malmen.audit.planned import PlannedJob, planned_jobs
from malmen.audit.trail import OVERVIEWS
from malmen.errors import UserError
from malmen.provenance.records import (
    Artefact,
    Environment,
    Input,
    Names,
    Record,
    digest_of,
    environment_path,
    read_environment,
    read_records,
    record_path,
)
from malmen.runtime.files import write_text
from malmen.runtime.text import counted, first_few
from malmen.sharing.entities import Graph, Reference, place, references

FILE = "ro-crate-metadata.json"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TRACE = "https://w3id.org/ro/terms/nf-trace"
SCHEMA = "workflow/schemas/record.schema.json"
WORKFLOW = "Snakefile"
ENGINE_SETTINGS = "profiles/default/config.yaml"
BUILD_FILES = {
    "environment.yml": "https://docs.conda.io/projects/conda/en/stable/user-guide/tasks/manage-environments.html",
    "requirements.lock": "https://pip.pypa.io/en/stable/user_guide/#constraints-files",
}
LICENCE = "https://spdx.org/licenses/MIT"
CONFIGURATION = "#parameter/workflow/configuration"
ENGINE = "#parameter/workflow/engine_settings"
SOURCES = "#parameter/workflow/sources"
RESULTS = "#parameter/workflow/results"


@dataclass(frozen=True)
class Agent:
    """The person who ran the workflow.

    Attributes:
        name: the full name.
        orcid: ``https://orcid.org/...``, if known.
    """

    name: str
    orcid: str | None = None


def configured_agent(name: str | None, orcid: str | None) -> Agent:
    """Return the agent with the given name, or else the name in git's configuration.

    Raises:
        UserError: if there is no name, or the ORCID is malformed.
    """
    if not name:
        with suppress(OSError):  # where git is not installed
            done = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
            name = done.stdout.strip()
    if not name:
        raise UserError(
            "The crate needs the name of whoever ran the workflow; give --agent NAME, or set git's user.name."
        )
    if orcid and not re.fullmatch(r"https://orcid\.org/\d{4}-\d{4}-\d{4}-\d{3}[\dX]", orcid):
        raise UserError(f"{orcid!r} is not an ORCID; give one such as https://orcid.org/0000-0002-1825-0097.")
    return Agent(name, orcid)


def write_crate(run: str, configfile: Path, agent: Agent, out: Path, root: Path = Path()) -> Path:
    """Write the RO-Crate of a run to a directory, from the records of its jobs; return the file.

    Args:
        run: name of the run.
        configfile: its configuration, relative to ``root``.
        agent: the person who ran it.
        out: the directory; if it is ``root``, the checkout itself becomes a crate.
        root: the checkout.

    Raises:
        UserError: if there are no records, one is malformed or changed, or a figure or table is missing.
    """
    records = sorted(read_records(run, root), key=lambda record: (record.circumstances.started, record.name))
    if not records:
        raise UserError(f"There are no records in results/{run}; run the workflow first.")
    check_finished(records, run, planned_jobs(configfile, root))
    content = RunCrate(records, run, configfile, agent, root).generate()
    write_text(out / FILE, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return out / FILE


def check_finished(records: Iterable[Record], run: str, planned: Iterable[PlannedJob]) -> None:
    """Raise :class:`UserError` unless every figure and table of a run has a record."""
    made = {file.path for record in records for file in record.outputs}
    folders = tuple(f"results/{run}/{kind}/" for kind in ("figures", "tables"))
    wanted = [path for job in planned for path in job.outputs if path.startswith(folders)]
    if missing := sorted(path for path in wanted if path not in made):
        lack = f"{counted(len(missing), 'file')} of figures and tables ({first_few(missing)})"
        raise UserError(f"The run {run} is not finished: it lacks {lack}; run `snakemake` first.")


def files_of(record: Record, kind: Literal["input", "output"]) -> list[tuple[Artefact, str]]:
    """Return a job's inputs or outputs, each with its parameter."""
    names: Names = getattr(record, f"{kind}_names")
    by_place = {i: name for name, at in names.items() for i in ([at] if isinstance(at, int) else at)}
    files = enumerate(getattr(record, f"{kind}s"))
    return [(file, f"#parameter/{record.rule}/{by_place.get(i, kind)}") for i, file in files]


def settings_of(record: Record) -> dict[str, str]:
    """Return a job's settings by parameter, nested settings as JSON."""
    values = {f"#parameter/{record.rule}/{name}": value for name, value in record.settings.items()}
    return {name: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for name, v in values.items()}


def tool(record: Record) -> str:
    """Return the identifier of the tool that a job ran: its rule and one version of its code."""
    return f"#tool/{record.rule}/{digest_of(record.code)[:16]}"


class RunCrate:
    """The crate of one run, built from its records.

    Args:
        records: records of all jobs, at least one, by the start of the jobs.
        run: name of the run.
        configfile: its configuration, relative to ``root``.
        agent: the person who ran it.
        root: the checkout.
    """

    def __init__(self, records: Sequence[Record], run: str, configfile: Path, agent: Agent, root: Path) -> None:
        self.records = records
        self.run = run
        self.configfile = configfile.as_posix()
        self.root = root
        self.graph = Graph(root)
        self.agent = self.graph.add(agent.orcid or "#agent", "Person", name=agent.name)
        self.environments: dict[Path, Environment] = {}
        self.makers = {out.path: (record, name) for record in records for out, name in files_of(record, "output")}
        self.read = {file.path: file for record in records for file in record.inputs}

    def generate(self) -> Any:
        """Return the metadata document."""
        self.add_files()
        for record in self.records:
            self.add_tool(record)
        self.add_workflow()
        jobs = [self.add_job(record) for record in self.records]
        execution = self.add_run()
        engine = self.add_engine(execution)
        self.describe_root([execution, *jobs, engine])
        return self.graph.crate.metadata.generate()

    @cached_property
    def results(self) -> dict[str, tuple[Record, str]]:
        """The outputs that no other job read but for overviews, by path, with their record and parameter."""
        jobs = (record for record in self.records if record.rule not in OVERVIEWS)
        read = {file.path for record in jobs for file in record.inputs}
        return {path: maker for path, maker in self.makers.items() if path not in read}

    @cached_property
    def sources(self) -> list[Input]:
        """The inputs that no job made."""
        return [file for path, file in sorted(self.read.items()) if path not in self.makers]

    def environment(self, record: Record) -> tuple[Path, Environment]:
        """Return the file that describes a job's environment, and the environment."""
        path = environment_path(record.run, record.circumstances.environment)
        if path not in self.environments:
            self.environments[path] = read_environment(self.root / path)
        return path, self.environments[path]

    def add_files(self) -> None:
        """Add the inputs and outputs of all jobs, each with its parameters."""
        uses: dict[str, set[str]] = defaultdict(set)
        for record in self.records:
            for used, name in (*files_of(record, "input"), *files_of(record, "output")):
                uses[used.path].add(name)
        for path in self.results:
            uses[path].add(RESULTS)
        for file in self.sources:
            uses[file.path].add(SOURCES)
        for record in self.records:
            for artefact in (*record.outputs, *record.inputs):
                self.add_artefact(artefact, record, references(uses[artefact.path]))

    def add_artefact(self, file: Artefact, record: Record, examples: list[Reference]) -> None:
        """Add a file, or a directory with its files."""
        about: dict[str, Any] = {"contentSize": str(file.bytes), "exampleOfWork": examples}
        if file.files is not None:
            parts = [self.graph.add_file(path, sha256=digest) for path, digest in file.digests.items()]
            self.graph.add_file(file.path, "Dataset", hasPart=parts, **about)
            return
        if record.upstream and file in record.outputs:
            about |= {"url": record.upstream.urls, "license": record.upstream.licence}
        self.graph.add_file(file.path, sha256=file.sha256, **about)

    def add_tool(self, record: Record) -> None:
        """Add the tool of a job: its script, packages and parameters."""
        for file, name in (*files_of(record, "input"), *files_of(record, "output")):
            self.graph.add_parameter(name, "File" if file.files is None else "Dataset")
        for name in settings_of(record):
            self.graph.add_parameter(name, "Text")
        version = record.code.get(f"scripts/{Path(record.script).name}")
        self.graph.add(
            tool(record),
            "SoftwareApplication",
            name=record.rule,
            description=f"The rule {record.rule}: its script and {len(record.code) - 1} modules of malmen",
            softwareVersion=digest_of(record.code)[:16],
            mainEntity=self.graph.add_own_file(record.script, ["File", "SoftwareSourceCode"], version=version),
            softwareRequirements=self.add_packages(record),
            input=references([*(name for _, name in files_of(record, "input")), *settings_of(record)]),
            output=references(name for _, name in files_of(record, "output")),
        )

    def add_packages(self, record: Record) -> list[Reference]:
        """Add the direct dependencies of the project, in the versions that a job used."""
        _, environment = self.environment(record)
        needed = [line for line in requires("malmen-reproduction") or [] if "extra ==" not in line]
        names = sorted(re.split(r"[^\w.-]", line)[0].lower().replace("_", "-") for line in needed)
        return [self.add_package(name, environment.packages[name]) for name in names if name in environment.packages]

    def add_package(self, name: str, version: str) -> Reference:
        """Add a Python package."""
        url = f"https://pypi.org/project/{name}/{version}/"
        return self.graph.add(url, "SoftwareApplication", name=name, url=url, version=version)

    def add_workflow(self) -> None:
        """Add the workflow: its steps, their connections, and its own parameters."""
        inputs = [self.graph.add_parameter(name, "File") for name in (CONFIGURATION, ENGINE)]
        for path, example in zip((self.configfile, ENGINE_SETTINGS), inputs, strict=True):
            self.graph.add_own_file(path, exampleOfWork=example)
        inputs += [self.graph.add_parameter(SOURCES, "File")] if self.sources else []
        language = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
        site = "https://snakemake.readthedocs.io"
        rules = dict.fromkeys(record.rule for record in self.records)
        self.graph.add_own_file(
            WORKFLOW,
            ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            conformsTo={"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
            programmingLanguage=self.graph.add(language, "ComputerLanguage", name="Snakemake", url=site),
            version=self.records[-1].circumstances.commit,
            hasPart=references(tool(record) for record in self.records),
            step=[self.add_step(rule, position) for position, rule in enumerate(rules)],
            input=inputs,
            output=[self.graph.add_parameter(RESULTS, "File")],
            connection=[self.graph.connect(name, RESULTS) for name in sorted({n for _, n in self.results.values()})],
            buildInstructions=[
                self.graph.add_own_file(
                    path, conformsTo=self.graph.add(form, "WebPage", name=f"What {path} means", url=form)
                )
                for path, form in BUILD_FILES.items()
            ],
        )

    def add_step(self, rule: str, position: int) -> Reference:
        """Add a rule as a step, with the connections of its inputs and settings."""
        records = [record for record in self.records if record.rule == rule]
        connections = {(CONFIGURATION, name) for record in records for name in settings_of(record)}
        for file, name in (pair for record in records for pair in files_of(record, "input")):
            connections.add((self.makers[file.path][1] if file.path in self.makers else SOURCES, name))
        return self.graph.add(
            f"#step/{rule}",
            "HowToStep",
            name=rule,
            position=str(position),
            workExample=references(tool(record) for record in records),
            connection=[self.graph.connect(source, target) for source, target in sorted(connections)],
        )

    def add_job(self, record: Record) -> Reference:
        """Add a finished job and its settings."""
        start, end = period(record)
        path, environment = self.environment(record)
        settings = [
            self.graph.add(
                f"#value/{name.removeprefix('#parameter/')}/{digest_of(value)[:16]}",
                "PropertyValue",
                **{"name": name.rpartition("/")[2], "value": value, "exampleOfWork": {"@id": name}},
            )
            for name, value in settings_of(record).items()
        ]
        notes = [self.graph.add_own_file(str(note)) for note in (record_path(record), path)]
        changes = record.circumstances.uncommitted or []
        state = record.circumstances.commit or "an unknown commit"
        state += f", with changes to {', '.join(changes)}" if changes else ""
        return self.graph.add(
            f"#job/{record.name}",
            "CreateAction",
            name=record.name,
            description=f"{record.rule} at {state}",
            instrument={"@id": tool(record)},
            agent=self.agent,
            startTime=start,
            endTime=end,
            actionStatus="http://schema.org/CompletedActionStatus",
            object=[*({"@id": place(f.path, f.files is not None)} for f in record.inputs), *settings],
            result=[{"@id": place(f.path, f.files is not None)} for f in record.outputs],
            resourceUsage=[
                self.graph.add(
                    f"#usage/{record.name}/{name}",
                    "PropertyValue",
                    **{"name": name, "propertyID": quantity, "value": str(value)},
                    unitCode=f"https://qudt.org/vocab/unit/{unit}",
                )
                for name, quantity, unit, value in usage(record, environment)
            ],
            subjectOf=notes,
        )

    def add_run(self) -> Reference:
        """Add the run of the whole workflow."""
        start, end = self.period
        sources = [{"@id": place(file.path, file.files is not None)} for file in self.sources]
        final = [file for record in self.records for file in record.outputs if file.path in self.results]
        return self.graph.add(
            "#run",
            "CreateAction",
            name=f"Run of the workflow with the configuration {self.run}",
            description=f"{len(self.records)} jobs, from data to figures and tables",
            instrument={"@id": WORKFLOW},
            agent=self.agent,
            startTime=start,
            endTime=end,
            actionStatus="http://schema.org/CompletedActionStatus",
            object=[*references([self.configfile, ENGINE_SETTINGS]), *sources],
            result=[{"@id": place(file.path, file.files is not None)} for file in final],
        )

    @property
    def period(self) -> tuple[str, str]:
        """The start of the first job and the end of the last one."""
        starts, ends = zip(*map(period, self.records), strict=True)
        return min(starts), max(ends)

    def add_engine(self, run: Reference) -> Reference:
        """Add Snakemake's action: it ran the jobs as steps of the workflow."""
        _, environment = self.environment(self.records[-1])
        controls = [
            self.graph.add(
                f"#control/{record.name}",
                "ControlAction",
                name=f"Orchestration of {record.name}",
                instrument={"@id": f"#step/{record.rule}"},
                object={"@id": f"#job/{record.name}"},
            )
            for record in self.records
        ]
        start, end = self.period
        return self.graph.add(
            "#engine",
            "OrganizeAction",
            name="Run of Snakemake",
            instrument=self.add_package("snakemake", environment.packages["snakemake"]),
            agent=self.agent,
            startTime=start,
            endTime=end,
            object=controls,
            result=run,
        )

    def describe_root(self, actions: list[Reference]) -> None:
        """Describe the crate itself."""
        root = self.graph.crate.root_dataset
        root["name"] = f"MALMEN, reproduced: run of the configuration {self.run}"
        root["description"] = "Data, models, editors, metrics, figures and tables, and the jobs that made them"
        root["datePublished"] = self.period[1]
        root["license"] = self.graph.add(LICENCE, "CreativeWork", name="MIT License", url=LICENCE)
        root["conformsTo"] = [
            self.graph.add(url, "CreativeWork", name=name, version=url.rpartition("/")[2])
            for url, name in PROFILES.items()
        ]
        root["mainEntity"] = {"@id": WORKFLOW}
        root["mentions"] = actions
        root["author"] = self.agent
        self.graph.add_own_file("README.md", about={"@id": "./"})
        standards = ("https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0")
        self.graph.crate.metadata["conformsTo"] = references(standards)


def period(record: Record) -> tuple[str, str]:
    """Return the start and end of a job, in UTC."""
    start = datetime.fromisoformat(record.circumstances.started)
    end = start + timedelta(seconds=record.circumstances.seconds)
    return start.isoformat(timespec="milliseconds"), end.isoformat(timespec="milliseconds")


def usage(record: Record, environment: Environment) -> Iterator[tuple[str, str, str, float | str]]:
    """Yield the resources of a job: name, identifier of the quantity, QUDT unit, and value."""
    cost, own = record.circumstances, f"{SCHEMA}#/$defs/Circumstances/properties"
    yield "realTime", f"{TRACE}#realTime", "MilliSEC", round(1000 * cost.seconds)
    yield "peakRSS", f"{TRACE}#peakRSS", "BYTE", cost.peak_bytes
    yield "cpu_seconds", f"{own}/cpu_seconds", "SEC", cost.cpu_seconds
    if cost.gpu_peak_bytes is not None:
        yield "gpu_peak_bytes", f"{own}/gpu_peak_bytes", "BYTE", cost.gpu_peak_bytes
    yield "processor", "https://www.wikidata.org/wiki/Q5300", "UNITLESS", environment.processor
    if environment.gpu:
        yield "gpu", "https://www.wikidata.org/wiki/Q183484", "UNITLESS", environment.gpu.name
