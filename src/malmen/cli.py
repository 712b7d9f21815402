"""The ``malmen`` command. Each subcommand imports what it needs when it runs, so that help comes at once."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from malmen.errors import UserError, trouble
from malmen.settings import FineTuningSettings, MemitSettings, TaskName

EXAMPLES = """Examples:

\b
  malmen plan --configfile config/paper.yaml
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


@app.command()
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
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences run through the model at once.")] = 32,
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
        from malmen.config import read_memit_settings  # noqa: PLC0415 (imports pydantic)
        from malmen.steps.editing import EditRequest, edit_facts  # noqa: PLC0415 (imports torch)

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
            batch_size=batch_size,
            device=device,
            seed=seed,
            force=force,
        )
        report = edit_facts(request)
        typer.echo(report.summary())
        typer.echo(f"The edited model is in {out}, with report.md and report.json.")


@app.command()
def plan(
    configfile: Annotated[Path, typer.Option(help="A configuration, such as config/paper.yaml.")],
    float32_tflops: Annotated[
        float, typer.Option(min=0.001, help="Sustained rate in float32; default: half of an A100's peak.")
    ] = 10.0,
    bfloat16_tflops: Annotated[
        float, typer.Option(min=0.001, help="Sustained rate in bfloat16; default: a fifth of an A100's peak.")
    ] = 60.0,
) -> None:
    """Say how many jobs a configuration has, and how many GPU hours they may take, by rule and by figure or table."""
    with reporting():
        from malmen.config import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.plan import PUBLISHED, Plan, Rates, models_to_pin  # noqa: PLC0415

        config = load_file(configfile)
        planned = Plan(config, Rates(float32_tflops, bfloat16_tflops))
        typer.echo(planned.text())
        typer.echo(f"\nGPU hours: {planned.basis}. A job serving several figures or tables is counted in each.")
        typer.echo(PUBLISHED)
        if config.device == "cpu":
            typer.echo("This configuration runs on the CPU (device: cpu), which is slower than that GPU.")
        if to_do := models_to_pin(config):
            typer.echo(to_do)


@app.command()
def restore(
    configfile: Annotated[Path, typer.Option(help="The configuration whose results are restored.")] = Path(
        "config/demo.yaml"
    ),
    full: Annotated[bool, typer.Option("--full", help="Bring data sets and checkpoints from DVC too.")] = False,
) -> None:
    """In a fresh clone: make its results count as finished, so that figures are redrawn and nothing is trained."""
    with reporting():
        from malmen.config import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.provenance import sharing  # noqa: PLC0415

        config = load_file(configfile)
        sharing.restore(Path.cwd(), config.profile, configfile, config.data.source != "world", full)
        typer.echo(f"The results of {config.profile} count as finished. Redraw them: delete some, then run")
        typer.echo(f"snakemake --configfile {configfile} figures tables")
