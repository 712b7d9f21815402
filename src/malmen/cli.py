"""The ``malmen`` command. Each subcommand imports what it needs when it runs, so that help comes at once."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from malmen.config.base import TaskName
from malmen.config.finetuning import FineTuningSettings
from malmen.config.memit import MemitSettings
from malmen.errors import UserError, trouble
from malmen.runtime.text import counted

EXAMPLES = """Examples:

\b
  malmen plan --configfile config/paper.yaml
  malmen audit --configfile config/demo.yaml
  malmen audit table1 MALMEN GS gpt2
  malmen restore --configfile config/demo.yaml
  malmen crate --configfile config/demo.yaml crate
  malmen edit --model results/demo/models/gpt2/taught --editor editor.safetensors --facts facts.jsonl --out edited

'malmen COMMAND --help' describes a command's options.
"""

app = typer.Typer(
    name="malmen",
    help="Massive editing of language models (MALMEN).",
    epilog=EXAMPLES,
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@contextmanager
def reporting() -> Iterator[None]:
    """Log to standard error; end with exit code 1 and one sentence on a :class:`UserError`."""
    logger = logging.getLogger("malmen")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("  %(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers = [terminal]
    try:
        yield
    except UserError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    except Exception as error:
        sentence = trouble(error)
        if sentence is None:
            raise
        typer.echo(f"Error: {sentence}", err=True)
        raise typer.Exit(1) from None
    finally:
        logger.removeHandler(terminal)


@app.callback()
def malmen() -> None:
    """Massive editing of language models (MALMEN)."""


@app.command(short_help="Edit your own facts into a model.")
def edit(
    model: Annotated[str, typer.Option(help="Directory of the model, or its id on the Hugging Face hub.")],
    editor: Annotated[str, typer.Option(help="A trained editor.safetensors, 'ft' (fine-tuning) or 'memit'.")],
    facts: Annotated[
        Path, typer.Option(help="JSON lines: prompt, answer and, if wished, rephrasings (a list) and subject.")
    ],
    out: Annotated[Path, typer.Option(help="Directory of the edited model; new or empty, unless --force.")],
    revision: Annotated[str | None, typer.Option(help="Commit of the hub's repository; needed with an id.")] = None,
    unrelated: Annotated[
        Path | None,
        typer.Option(help="JSON lines (prompt, answer) that the edit should leave alone; else general knowledge."),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences run through the model at once; found by itself unless set.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to run.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace an edited model that is already in --out.")] = False,
    layers: Annotated[
        list[str] | None,
        typer.Option(help="For ft: a regular expression for the names of layers to tune; may be given again."),
    ] = None,
    last_blocks: Annotated[int, typer.Option(min=1, help="For ft: how many of the last layers of each --layers.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="For ft: passes over the facts.")] = 5,
    learning_rate: Annotated[float, typer.Option(min=1e-12, help="For ft: learning rate of AdamW.")] = 5e-4,
    task: Annotated[
        TaskName | None, typer.Option(help="For ft and memit: how the model answers, if not as usual.")
    ] = None,
    statistics: Annotated[
        Path | None,
        typer.Option(help="For memit: the model's second_moments.safetensors; the layers in it are edited."),
    ] = None,
    memit_settings: Annotated[
        Path | None,
        typer.Option(help="For memit: YAML or JSON with settings as below 'memit' in a configuration; else defaults."),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the order of the facts (ft), or of the texts before prompts (memit).")
    ] = 0,
) -> None:
    """Edit your own facts into a model, all at once, and write it as an ordinary model directory with a report."""
    with reporting():
        from malmen.config.load import read_memit_settings  # noqa: PLC0415 (imports pydantic)
        from malmen.own_facts.edit import EditRequest, edit_facts  # noqa: PLC0415 (imports torch)

        request = EditRequest(
            model=model,
            editor=editor,
            facts=facts,
            out=out,
            revision=revision,
            unrelated=unrelated,
            task=task,
            layers=layers or (),
            last_blocks=last_blocks,
            finetuning=FineTuningSettings(epochs, learning_rate),
            statistics=statistics,
            memit=read_memit_settings(memit_settings) if memit_settings else MemitSettings(),
            memit_file=memit_settings,
            batch_size=batch_size or "auto",
            device=device,
            seed=seed,
            force=force,
        )
        report = edit_facts(request)
        typer.echo(report.summary())
        typer.echo(f"The edited model is in {out}, with report.md and report.json.")


@app.command(short_help="Say what a configuration needs: jobs, hours, memory, disk.")
def plan(
    configfile: Annotated[Path, typer.Option(help="A configuration, such as config/paper.yaml.")] = Path(
        "config/demo.yaml"
    ),
    float32_tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Sustained rate in float32; default: 10, half of an A100's peak.")
    ] = None,
    bfloat16_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Sustained rate in bfloat16; default: 60, a fifth of an A100's peak."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="End with status 1 if this machine cannot hold the run.")
    ] = False,
    graph: Annotated[
        bool, typer.Option("--graph", help="Print the graph of the rules with their needs instead, as Mermaid.")
    ] = False,
) -> None:
    """Say how many jobs a configuration has, and what they need: hours, memory and disk, by rule; hours by figure."""
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.plan.estimate import MEMORY, PUBLISHED, Plan, Rates, models_to_pin  # noqa: PLC0415
        from malmen.plan.graph import rule_graph  # noqa: PLC0415
        from malmen.plan.machine import Capacity, missing_gpu  # noqa: PLC0415

        config = load_file(configfile)
        rates = Rates.of(config)
        rates = replace(rates, float32=float32_tflops or rates.float32, bfloat16=bfloat16_tflops or rates.bfloat16)
        planned = Plan(config, rates)
        if graph:
            typer.echo(rule_graph(configfile, planned))
            return
        typer.echo(planned.text())
        typer.echo(
            f"\n{planned.hours_of}: {planned.basis}. A job serving several figures or tables is counted in each."
        )
        typer.echo(MEMORY)
        typer.echo(PUBLISHED)
        if config.device == "cpu":
            typer.echo(f"This configuration runs on the CPU (device: cpu), {counted(config.threads, 'thread')} a job.")
        if to_do := models_to_pin(config):
            typer.echo(to_do)
        missing = missing_gpu(config.profile) if config.device == "cuda" else None
        shortage = missing or Capacity.here(config.folders).shortage(planned)
        if shortage and check:
            raise UserError(shortage)
        if shortage:
            typer.echo(shortage)


@app.command(short_help="In a fresh clone: make its results count as finished.")
def restore(
    configfile: Annotated[Path, typer.Option(help="The configuration whose results are restored.")] = Path(
        "config/demo.yaml"
    ),
    full: Annotated[bool, typer.Option("--full", help="Bring data sets and checkpoints from DVC too.")] = False,
) -> None:
    """In a fresh clone: make its results count as finished, so that figures are redrawn and nothing is trained."""
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.sharing import publish as sharing  # noqa: PLC0415

        config = load_file(configfile)
        sharing.restore(Path.cwd(), config.profile, configfile, config.data.source != "world", full)
        typer.echo(f"The results of {config.profile} count as finished. Redraw them: delete some, then run")
        typer.echo(f"snakemake --configfile {configfile} figures tables")


@app.command(short_help="Export the records of a run as an RO-Crate.")
def crate(
    out: Annotated[Path, typer.Argument(help="Directory for ro-crate-metadata.json; '.' makes the checkout a crate.")],
    configfile: Annotated[Path, typer.Option(help="The configuration whose run is exported.")] = Path(
        "config/demo.yaml"
    ),
    agent: Annotated[str | None, typer.Option(help="Who ran it; else git's user.name.")] = None,
    orcid: Annotated[str | None, typer.Option(help="The ORCID of who ran it, as a URL.")] = None,
) -> None:
    """Export the records of a run as an RO-Crate, in the profile Provenance Run Crate; metadata alone."""
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.sharing.crate import configured_agent, write_crate  # noqa: PLC0415

        written = write_crate(load_file(configfile).profile, configfile, configured_agent(agent, orcid), out)
        typer.echo(f"The crate is {written}.")


@app.command(short_help="Trace figures and tables back to the raw data.")
def audit(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="A figure, a number of a table ('table1 MALMEN GS gpt2') or a file: show its chain only."),
    ] = None,
    configfile: Annotated[Path, typer.Option(help="The configuration whose results are audited.")] = Path(
        "config/demo.yaml"
    ),
    figures_only: Annotated[
        bool, typer.Option("--figures-only", help="Data sets, models and editors may be absent, as in a fresh clone.")
    ] = False,
    rerun: Annotated[int, typer.Option(min=0, help="Do so many jobs once more and compare what they make.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the choice of these jobs.")] = 0,
    sign: Annotated[
        Path | None, typer.Option(help="If all holds: sign the records with this SSH key (by ssh-keygen).")
    ] = None,
    signers: Annotated[
        Path | None, typer.Option(help="OpenSSH's file of allowed signers: whose signature is accepted.")
    ] = None,
) -> None:
    """Trace every figure and table back to its raw data and name every link that is broken; exit code 1 if one is."""
    with reporting():
        from malmen.audit import audit as whole  # noqa: PLC0415
        from malmen.audit.lineage import explain  # noqa: PLC0415
        from malmen.audit.signature import sign as sign_records  # noqa: PLC0415
        from malmen.audit.trail import Trail  # noqa: PLC0415
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)

        profile = load_file(configfile).profile
        if what:
            typer.echo(explain(what, Trail(profile)))
            return
        outcome = whole.audit(configfile, scope=whole.Scope(figures_only, rerun, seed, signers))
        typer.echo(whole.report(outcome))
        if not outcome.holds:
            raise typer.Exit(1)
        if sign:
            typer.echo(f"Signed: {sign_records(profile, sign)}")
