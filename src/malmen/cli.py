"""The ``malmen`` command. Each subcommand imports what it needs when it runs, so that help comes at once."""

import inspect
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from malmen import api
from malmen.config.base import Answers, Dtype, TaskName
from malmen.config.memit import MemitSettings
from malmen.data.user_text import STANDARD_INPUT
from malmen.errors import InterruptedJobError, UserError, trouble
from malmen.own_facts.edited import EditedModel, check_folder, check_out
from malmen.own_facts.methods import FineTuning, Memit
from malmen.runtime.text import counted

EXAMPLES = """Examples:

\b
  malmen plan paper
  malmen audit
  malmen audit table1 MALMEN GS gpt2
  malmen explore demo
  malmen restore demo
  malmen crate demo crate
  malmen train --model MODEL --data facts.jsonl --n-edits 256 --out editor
  malmen init --model MODEL --data facts.jsonl --out config/own.yaml
  malmen edit --model results/demo/models/gpt2/finetuned --editor editor.safetensors --facts facts.jsonl --out edited
  malmen undo edited --out unedited
  malmen apply delta --model results/demo/models/gpt2/finetuned --out edited
  malmen check edited --facts facts.jsonl --before results/demo/models/gpt2/finetuned
  malmen ask edited "Who directed Kezir Diral?"

Run 'malmen COMMAND --help' for the options of a command.
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

FT, MEMIT = "ft", "memit"
"""What ``--editor`` says in place of a trained editor."""

OPTIONS_OF = {
    FT: {field.name for field in fields(FineTuning)},
    MEMIT: {field.name.replace("settings", "memit_settings") for field in fields(Memit)},
}
"""The options that belong to one kind of editor."""


def described(source: object, name: str) -> str:
    """Return what a docstring says of an argument or attribute."""
    found = re.search(rf"^    {name}: (.+(?:\n {{8}}.+)*)", inspect.getdoc(source) or "", re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def option(source: object, name: str, *flags: str, editor: str = "", **more: Any) -> Any:
    """Return an option of the command line that a docstring of the API describes.

    Args:
        source: the function or class.
        name: its argument or attribute.
        flags: how the option is written, if not as the parameter is called.
        editor: the editor that the option belongs to; empty if it belongs to all.
        more: further arguments of ``typer.Option``.
    """
    return typer.Option(*flags, help=f"{editor and f'({editor}) '}{described(source, name)}", **more)


CONFIGURATION = "The configuration: its name, such as paper, or its file. [default: demo]"
"""What the help says of the argument of commands about a run of the workflow."""
Configuration = Annotated[str | None, typer.Argument(help=CONFIGURATION)]
"""The argument of commands about a run of the workflow."""
Configfile = Annotated[Path | None, typer.Option(help="The configuration file, as Snakemake takes it.")]
"""The option of the same meaning."""

CONFIGURATIONS = Path("config")
DEMO = CONFIGURATIONS / "demo.yaml"


@contextmanager
def reporting() -> Iterator[None]:
    """Log to standard error; end with exit code 1 and one sentence on a :class:`UserError` or after a signal."""
    logger = logging.getLogger("malmen")
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("  %(message)s"))
    logger.setLevel(logging.INFO)
    logger.handlers = [terminal]
    try:
        yield
    except (UserError, InterruptedJobError) as error:
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


def chosen(configuration: str | None, configfile: Path | None) -> Path:
    """Return the file of a configuration, named in one of the two ways or in none.

    Raises:
        UserError: if it is named in both, or there is none of this name.
    """
    if configuration is None:
        return configfile or DEMO
    if configfile is not None:
        raise UserError(f"The configuration is named twice: {configuration}, --configfile {configfile}; leave out one.")
    if found := configuration_file(configuration):
        return found
    known = sorted(path.stem for path in CONFIGURATIONS.glob("*.yaml") if path.stem != "models")
    raise UserError(
        f"There is no configuration {configuration!r}; name a file, or, in the checkout, one of {', '.join(known)}."
    )


def configuration_file(word: str) -> Path | None:
    """Return the file of the configuration that a word names, by path or by name; None if it names none."""
    file, named = Path(word), CONFIGURATIONS / f"{word}.yaml"
    return file if file.suffix in (".yaml", ".yml", ".json") else named if named.is_file() else None


def print_version(wanted: bool) -> None:
    """Print the version of the package and exit, if ``wanted``."""
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 (is slow to import)

        typer.echo(f"malmen {version('malmen-reproduction')}")
        raise typer.Exit


@app.callback()
def malmen(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Massive editing of language models (MALMEN)."""
    if Path("Snakefile").is_file():
        with reporting():
            from malmen.runtime.caches import provide_caches  # noqa: PLC0415 (not for help)

            provide_caches(Path())


@app.command(short_help="Edit your own facts into a model.")
def edit(
    context: typer.Context,
    model: Annotated[str, option(api.load_model, "model")],
    editor: Annotated[
        str,
        typer.Option(help="A trained editor (its file, or a folder with one in it), ft (fine-tuning) or memit."),
    ],
    facts: Annotated[Path, option(api.read_facts, "facts")],
    out: Annotated[Path, option(EditedModel.save, "directory")],
    revision: Annotated[str | None, option(api.load_model, "revision")] = None,
    template: Annotated[str | None, option(api.load_model, "template")] = None,
    raw: Annotated[bool, option(api.load_model, "raw", "--raw")] = False,
    unrelated: Annotated[Path | None, option(api.edit, "unrelated")] = None,
    first: Annotated[
        int | None, typer.Option(min=1, help="Edit only this number of facts, the first of the file.")
    ] = None,
    answers: Annotated[Answers, option(api.read_facts, "answers")] = "new",
    skip_bad: Annotated[bool, option(api.read_facts, "skip_bad", "--skip-bad")] = False,
    batch_size: Annotated[int | None, option(api.edit, "batch_size", min=1)] = None,
    rounds: Annotated[int, option(api.edit, "rounds", min=1)] = 1,
    measure: Annotated[int | None, option(api.edit, "measure", min=1)] = None,
    device: Annotated[str, option(api.load_model, "device")] = "auto",
    task: Annotated[TaskName | None, option(api.load_model, "task")] = None,
    dtype: Annotated[Dtype | None, option(api.load_model, "dtype")] = None,
    force: Annotated[bool, option(EditedModel.save, "force", "--force")] = False,
    delta_only: Annotated[bool, option(EditedModel.save, "delta_only", "--delta-only")] = False,
    layers: Annotated[
        list[str] | None,
        typer.Option(help=f"({FT}) {described(FineTuning, 'layers')} ({MEMIT}) {described(Memit, 'layers')}"),
    ] = None,
    last_blocks: Annotated[int, option(FineTuning, "last_blocks", editor=FT, min=1)] = FineTuning.last_blocks,
    epochs: Annotated[int, option(FineTuning, "epochs", editor=FT, min=1)] = FineTuning.epochs,
    learning_rate: Annotated[float | None, option(FineTuning, "learning_rate", editor=FT, min=1e-12)] = None,
    covariance: Annotated[Path | None, option(Memit, "covariance", editor=MEMIT)] = None,
    text: Annotated[Path | None, option(Memit, "text", editor=MEMIT)] = None,
    text_tokens: Annotated[int | None, option(Memit, "text_tokens", editor=MEMIT, min=1)] = None,
    memit_settings: Annotated[Path | None, option(Memit, "settings", editor=MEMIT)] = None,
    seed: Annotated[
        int, typer.Option(help=f"({FT}) {described(FineTuning, 'seed')} ({MEMIT}) {described(Memit, 'seed')}")
    ] = 0,
) -> None:
    """Edit facts into a model, all at once or in rounds, and save the edited model with a report.

    The edited model is an ordinary model directory. An option marked (ft) or (memit) belongs to that --editor only.
    """
    with reporting():
        from malmen.own_facts.editors import Method, check_method  # noqa: PLC0415 (imports torch)
        from malmen.own_facts.model import find_model  # noqa: PLC0415

        refuse_options_of_others(context, editor)
        if facts == unrelated == STANDARD_INPUT:
            raise UserError("--facts and --unrelated cannot both be standard input; write one into a file.")
        given = api.read_facts(facts, answers, skip_bad)[:first]
        questions = api.read_unrelated(unrelated, skip_bad) if unrelated else []
        inputs = [Path(model), Path(editor), facts, unrelated, covariance, memit_settings, text]
        check_out(out, force, [path for path in inputs if path])
        if editor == FT:
            method: Method = FineTuning(layers or (), last_blocks, epochs, learning_rate, seed)
        elif editor == MEMIT:
            method = Memit(covariance, memit_settings_in(memit_settings), seed, text, text_tokens, layers or ())
        else:
            method = api.load_editor(editor)
        source = find_model(model, revision, task, dtype)
        check_method(method, source, given)
        loaded = source.load(device, template, raw)
        edited = api.edit(loaded, given, method, questions, batch_size or "auto", rounds, measure)
        edited.save(out, force, delta_only)
        typer.echo(edited.report.verdict)
        typer.echo(edited.scores)
        what = "delta of the edit" if delta_only else "edited model"
        typer.echo(f"The {what} is in {out}, with report.md, report.json, and report.html to look up every answer.")


def refuse_options_of_others(context: typer.Context, editor: str) -> None:
    """Raise :class:`UserError` if the user gave an option that the chosen editor does not have."""
    for name in sorted(set().union(*OPTIONS_OF.values()) - OPTIONS_OF.get(editor, set())):
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE":
            having = " or ".join(other for other, names in OPTIONS_OF.items() if name in names)
            raise UserError(f"--{name.replace('_', '-')} works with --editor {having} only; leave it out.")


def memit_settings_in(file: Path | None) -> MemitSettings:
    """Return MEMIT's settings in a file, or its own.

    Raises:
        UserError: if the settings are malformed.
    """
    from malmen.config.load import read_memit_settings  # noqa: PLC0415 (imports pydantic)

    return read_memit_settings(file) if file else MemitSettings()


@app.command(short_help="Undo an edit: write the model as it was before.")
def undo(
    edited: Annotated[Path, typer.Argument(help=described(api.undo_edit, "edited"))],
    out: Annotated[Path | None, option(api.undo_edit, "out")] = None,
    force: Annotated[bool, option(api.undo_edit, "force", "--force")] = False,
) -> None:
    """Write the model as it was before an edit, byte by byte, from the edited model and its edit.delta alone."""
    with reporting():
        if out is None:
            raise UserError(
                f"malmen undo does not write into {edited} itself; name a new directory for the restored model with "
                "--out, and remove the edited one afterwards if you like."
            )
        api.undo_edit(edited, out, force)
        typer.echo(f"The model as it was before the edit is in {out}.")


@app.command(short_help="Apply the delta of an edit to the unedited model.")
def apply(
    delta: Annotated[Path, typer.Argument(help=described(api.apply_edit, "delta"))],
    model: Annotated[str, option(api.apply_edit, "model")],
    out: Annotated[Path, option(api.apply_edit, "out")],
    revision: Annotated[str | None, option(api.apply_edit, "revision")] = None,
    force: Annotated[bool, option(api.apply_edit, "force", "--force")] = False,
) -> None:
    """Write the edited model that the delta of `malmen edit --delta-only` makes of the unedited one, byte by byte."""
    with reporting():
        api.apply_edit(delta, model, out, revision, force)
        typer.echo(f"The edited model is in {out}.")


@app.command(short_help="Train an editor for your own model.")
def train(
    model: Annotated[str, option(api.load_model, "model")],
    data: Annotated[
        list[Path],
        typer.Option(
            help="Facts to train on, in a format of malmen edit, or edit tuples; a file or several. Each needs an "
            "unrelated question, its own or one of --unrelated; rephrasings make a better editor."
        ),
    ],
    n_edits: Annotated[int, option(api.train_editor, "n_edits", "--n-edits", "-m", min=1)],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the editor, its report and the state of its training. A training that was interrupted "
            "there, or is to be longer now, goes on."
        ),
    ],
    kind: Annotated[
        Literal["malmen", "mend"], typer.Option("--editor", help="The editor to train: malmen, or mend.")
    ] = "malmen",
    unrelated: Annotated[
        Path | None,
        typer.Option(
            help="Unrelated questions with answers, for facts that have none. Default: questions of general knowledge."
        ),
    ] = None,
    answers: Annotated[Answers, option(api.read_facts, "answers")] = "new",
    skip_bad: Annotated[bool, option(api.read_facts, "skip_bad", "--skip-bad")] = False,
    revision: Annotated[str | None, option(api.load_model, "revision")] = None,
    template: Annotated[str | None, option(api.load_model, "template")] = None,
    raw: Annotated[bool, option(api.load_model, "raw", "--raw")] = False,
    layers: Annotated[list[str] | None, option(api.train_editor, "layers")] = None,
    last_blocks: Annotated[
        int | None, typer.Option(help="Number of last Transformer blocks to edit. Default: 6.", min=1)
    ] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the hyper-network. Default: by the model's size.", min=1)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Initial eta, the size of the first shifts. Default: by the model's size.", min=1e-12),
    ] = None,
    meta_learning_rate: Annotated[
        float | None, typer.Option(help="Adam's learning rate in training. Default: by the model's size.", min=1e-12)
    ] = None,
    locality: Annotated[
        float,
        typer.Option(
            min=0, help="Weight of the loss on unrelated questions: more changes fewer of them, and edits less."
        ),
    ] = 1.0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Meta-steps. More steps than before go on from the training in --out. Default: one pass over the "
            "tuples, but at least 45.",
        ),
    ] = None,
    tune: Annotated[bool, option(api.train_editor, "tune", "--tune")] = False,
    claims: Annotated[
        Path | None,
        typer.Option(
            "--teach",
            help="Prompts and answers that the model is fine-tuned on first, such as labelled claims for a BERT "
            "without a fact-checking head. The taught model goes to OUT/model.",
        ),
    ] = None,
    teach_epochs: Annotated[int, typer.Option(min=1, help="(--teach) Passes over these.")] = 2,
    seed: Annotated[int, option(api.train_editor, "seed")] = 0,
    device: Annotated[str, option(api.load_model, "device")] = "auto",
    n_ranks: Annotated[
        int,
        typer.Option(
            "--processes",
            min=1,
            help="Processes that share the training, each with the whole model: on a GPU, one GPU each; on a CPU, the "
            "threads that one would have are divided among them.",
        ),
    ] = 1,
    task: Annotated[TaskName | None, option(api.load_model, "task")] = None,
    dtype: Annotated[Dtype | None, option(api.load_model, "dtype")] = None,
) -> None:
    """Train an editor for a model, to edit N_EDITS facts into it at once, on other facts.

    A fifth of the facts at most is held out, and the editor is measured on it. An interrupted training goes on when
    the same command runs again.
    """
    with reporting():
        from malmen.config.optimisation import OptimisationSettings  # noqa: PLC0415 (imports pydantic)
        from malmen.own_facts.facts import GENERAL_KNOWLEDGE  # noqa: PLC0415
        from malmen.own_facts.model import find_model  # noqa: PLC0415 (imports torch)
        from malmen.own_facts.on_ranks import on_ranks  # noqa: PLC0415
        from malmen.own_facts.teaching import teach  # noqa: PLC0415
        from malmen.own_facts.training import MODEL, train_into, tuples_in  # noqa: PLC0415
        from malmen.own_facts.usual_settings import usual_settings  # noqa: PLC0415
        from malmen.runtime.ranks import ranks  # noqa: PLC0415

        check_folder(out, "the editor")
        with on_ranks(n_ranks, device, out) as terminal:
            source = ranks().from_first(lambda: find_model(model, revision, task, dtype))
            general = GENERAL_KNOWLEDGE[source.task]
            pool = ranks().from_first(
                lambda: api.read_unrelated(unrelated or general, skip_bad and unrelated is not None)
            )
            tuples = ranks().from_first(lambda: tuples_in(data, pool, answers, skip_bad, seed))
            if claims:
                pairs = [fact.pair for fact in api.read_facts(claims, "true")]
                how = OptimisationSettings(epochs=teach_epochs, learning_rate=5e-5)
                taught = ranks().from_first(lambda: teach(source, pairs, out / MODEL, how, seed, device, template, raw))
                source = ranks().from_first(lambda: find_model(taught))
            loaded = source.load(device, template, raw)
            settings = usual_settings(
                loaded.language_model, kind, last_blocks, rank, learning_rate, meta_learning_rate, locality, steps
            )
            report = train_into(out, loaded, tuples, n_edits, settings, layers or (), seed, tune)
            typer.echo(report.advice, terminal)
            if report.scores:
                typer.echo(report.scores, terminal)
            use = f"malmen edit --model {loaded.source.name} --editor {out}"
            typer.echo(f"The editor is {out}, with report.md and report.json; use it with {use}.", terminal)


@app.command(short_help="Write a configuration of the workflow for your own model and facts.")
def init(
    model: Annotated[str, option(api.load_model, "model")],
    data: Annotated[Path, typer.Option(help="Facts, in a format of malmen edit, to train and evaluate editors on.")],
    out: Annotated[Path, typer.Option(help="The configuration to write, such as config/own.yaml.")],
    unrelated: Annotated[
        Path | None, typer.Option(help="Unrelated questions with answers, for facts that have none.")
    ] = None,
    answers: Annotated[Answers, option(api.read_facts, "answers")] = "new",
    revision: Annotated[str | None, option(api.load_model, "revision")] = None,
    template: Annotated[str | None, option(api.load_model, "template")] = None,
    raw: Annotated[bool, option(api.load_model, "raw", "--raw")] = False,
    device: Annotated[str, option(api.load_model, "device")] = "auto",
    task: Annotated[TaskName | None, option(api.load_model, "task")] = None,
    dtype: Annotated[Dtype | None, option(api.load_model, "dtype")] = None,
) -> None:
    """Write a configuration that trains and measures editors of your model on your facts, with records and audit."""
    with reporting():
        from malmen.models.prompt_form import PLAIN  # noqa: PLC0415 (imports torch)
        from malmen.own_facts.configuration import write_configuration  # noqa: PLC0415

        loaded = api.load_model(model, revision, task, device, dtype, template, raw)
        prompt = template or ("plain" if loaded.language_model.form == PLAIN else "chat")
        write_configuration(out, loaded, data, unrelated, answers, prompt)
        typer.echo(f"The configuration is {out}. Look through it, then run: snakemake --configfile {out}")


@app.command(short_help="Say whether an edited model is still good.")
def check(
    model: Annotated[str, typer.Argument(help=f"The edited model: {described(api.load_model, 'model')}")],
    facts: Annotated[Path, typer.Option(help="The facts that were edited into it, in a file as malmen edit takes it.")],
    before: Annotated[str | None, typer.Option(help=f"{described(api.check, 'before')} As MODEL.")] = None,
    unrelated: Annotated[Path | None, option(api.check, "unrelated")] = None,
    first: Annotated[
        int | None, typer.Option(min=1, help="Check only this number of facts, the first of the file.")
    ] = None,
    answers: Annotated[Answers, option(api.read_facts, "answers")] = "new",
    skip_bad: Annotated[bool, option(api.read_facts, "skip_bad", "--skip-bad")] = False,
    measure: Annotated[int | None, option(api.edit, "measure", min=1)] = None,
    text: Annotated[Path | None, option(api.check, "text")] = None,
    template: Annotated[str | None, option(api.load_model, "template")] = None,
    raw: Annotated[bool, option(api.load_model, "raw", "--raw")] = False,
    out: Annotated[Path, typer.Option(help="Folder for check.md, check.json and check.html.")] = Path("check"),
    fail: Annotated[bool, typer.Option("--fail", help="Exit with code 1 if the verdict is: do not use.")] = False,
    lm_eval: Annotated[
        str | None,
        typer.Option(
            metavar="TASKS",
            help="Also run tasks of lm-evaluation-harness (an extra, lm-eval), with commas between them. It downloads "
            "their data.",
        ),
    ] = None,
    batch_size: Annotated[int | None, option(api.check, "batch_size", min=1)] = None,
    device: Annotated[str, option(api.load_model, "device")] = "auto",
    task: Annotated[TaskName | None, option(api.load_model, "task")] = None,
    dtype: Annotated[Dtype | None, option(api.load_model, "dtype")] = None,
) -> None:
    """Say whether a model is still good, whoever edited it, and write a page on which to look up every answer.

    A model that this package edited is asked as in its edit, unless --template or --raw say otherwise.
    """
    with reporting():
        from malmen.own_facts.check import Questions, compared, look_at  # noqa: PLC0415 (imports torch)
        from malmen.own_facts.lm_eval import check_harness, run_tasks  # noqa: PLC0415
        from malmen.own_facts.model import find_model  # noqa: PLC0415
        from malmen.own_facts.ordinary_text import OrdinaryText  # noqa: PLC0415

        given = api.read_facts(facts, answers, skip_bad)[:first]
        others = api.read_unrelated(unrelated, skip_bad) if unrelated else []
        tasks = [name.strip() for name in (lm_eval or "").split(",") if name.strip()]
        source = find_model(model, task=task, dtype=dtype)
        ordinary = OrdinaryText.read(text)
        questions = Questions(given, others, ordinary, batch_size or "auto", measure, source.form_of_edit)
        original = find_model(before, task=task, dtype=dtype) if before else None
        check_harness(tasks, [source])
        check_folder(out, "the results of the check")
        # One model at a time is in memory.
        looked = look_at(original.load(device, template, raw), questions, "before the edit") if original else None
        found = compared(
            source.load(device, template, raw), questions, looked, run_tasks(tasks, source, original, device)
        )
        found.write(out)
        typer.echo(found.verdict)
        typer.echo(found.metrics)
        for score in found.tasks:
            typer.echo(score)
        typer.echo(f"Look up every answer in {out / 'check.html'}; check.md and check.json are beside it.")
        if fail and found.verdict.level == "refuse":
            raise typer.Exit(1)


@app.command(short_help="Ask a model questions.")
def ask(
    model: Annotated[str, typer.Argument(help=described(api.load_model, "model"))],
    questions: Annotated[list[str], typer.Argument(metavar="QUESTION...", help=described(api.ask, "questions"))],
    template: Annotated[str | None, option(api.load_model, "template")] = None,
    raw: Annotated[bool, option(api.load_model, "raw", "--raw")] = False,
    max_tokens: Annotated[int, option(api.ask, "max_tokens", min=1)] = 64,
    revision: Annotated[str | None, option(api.load_model, "revision")] = None,
    device: Annotated[str, option(api.load_model, "device")] = "auto",
    task: Annotated[TaskName | None, option(api.load_model, "task")] = None,
    dtype: Annotated[Dtype | None, option(api.load_model, "dtype")] = None,
) -> None:
    """Ask a model questions, each by itself; several are printed with their answers.

    A model that this package edited is asked as in its edit, unless --template or --raw say otherwise.
    """
    with reporting():
        from malmen.own_facts.answers import NOTHING  # noqa: PLC0415

        loaded = api.load_model(model, revision, task, device, dtype, template, raw)
        answers = api.ask(loaded, questions, max_tokens)
        for question, answer in zip(questions, answers, strict=True):
            if questions[1:]:
                typer.echo(f"{question}")
            typer.echo(answer or NOTHING)


@app.command(short_help="Estimate the jobs, time, memory and disk of a run.")
def plan(
    words: Annotated[list[str] | None, typer.Argument(metavar="CONFIGURATION", help=CONFIGURATION)] = None,
    configfile: Configfile = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE...", help="Replace values of the configuration, as Snakemake's --config: 'seeds=[0]'."
        ),
    ] = None,
    float32_tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Sustained float32 rate. Default: 1.6, calibrated for an A100.")
    ] = None,
    bfloat16_tflops: Annotated[
        float | None, typer.Option(min=0.001, help="Sustained bfloat16 rate. Default: 10.5, calibrated for an A100.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with code 1 if the run does not fit here.")] = False,
) -> None:
    """Estimate jobs, time, memory, disk and downloads of a run by rule, and after how long each figure is there."""
    with reporting():
        from malmen.audit.planned import overridden  # noqa: PLC0415
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.plan import jobs as planning  # noqa: PLC0415
        from malmen.plan import report  # noqa: PLC0415
        from malmen.plan.estimate import Known, Rates  # noqa: PLC0415
        from malmen.plan.machine import Capacity, missing_gpu, too_few_gpus  # noqa: PLC0415

        more = [word for word in words or [] if config and "=" in word]  # --config takes several, as Snakemake's does
        if (named := [word for word in words or [] if word not in more])[1:]:
            raise UserError(f"Name one configuration, and not {' '.join(named)}.")
        file = chosen(named[0] if named else None, configfile)
        overrides = overridden([*config, *more]) if config else {}
        settings = load_file(file, overrides)
        rates = Rates.of(settings)
        rates = replace(rates, float32=float32_tflops or rates.float32, bfloat16=bfloat16_tflops or rates.bfloat16)
        known = Known(settings, rates)
        jobs = [job.in_folder(Path()) for job in planning.plan(file, known, overrides)]
        missing = missing_gpu(settings.run) if settings.device == "cuda" else None
        shortage = Capacity.here(settings.folders).shortage(settings.run, jobs)
        refusals = list(filter(None, (missing, too_few_gpus(jobs), shortage)))
        if check and refusals:
            raise UserError(" ".join(refusals))
        summary = f"The run {settings.run!r} takes {report.summary(jobs, settings.device)}"
        typer.echo("\n".join([*refusals, summary, *filter(None, [report.largest(jobs)]), ""]))
        for table in report.tables(jobs, known):
            typer.echo(f"{table}\n")
        typer.echo(f"{report.basis(known)}\n{report.COLUMNS}")
        if fewer := planning.with_one_seed(file, known, overrides):
            typer.echo(report.reduced(fewer, settings.seeds[0], overrides))


@app.command(short_help="Write a page to look through all curves and answers.")
def explore(
    configuration: Configuration = None,
    configfile: Configfile = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page; without the answers whose files are not here. Default: in the run's results."),
    ] = None,
) -> None:
    """Write one page, without network access, on which to look through all curves and answers of a run."""
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.figures.explorer import page  # noqa: PLC0415 (imports pandas and altair)
        from malmen.workflow.layout import Layout  # noqa: PLC0415
        from malmen.workflow.parameters import Parameters  # noqa: PLC0415

        layout = Layout(load_file(chosen(configuration, configfile)))
        metrics, kept = (list(map(Path, files)) for files in (layout.all_metrics(), layout.all_answers()))
        here = [file for file in kept if file.is_file()]
        explored = page.Explored(**Parameters(layout).explored(), metrics=metrics, answers=here)
        if not metrics:
            raise UserError(f"{explored.run} measures no editor: its configuration has no such figures or tables.")
        if out:
            page.write_copy(explored, Path(layout.results), out)
        elif lacking := [str(file) for file in kept if file not in here]:
            files = f"{counted(len(lacking), 'file')} of answers, such as {lacking[0]},"
            raise UserError(f"{files} must be made by the workflow; or name a page without them with --out.")
        else:
            out = Path(*layout.explorer())
            page.write_explorer(explored, out)
        typer.echo(f"The page is {out}; open it in a browser.")


@app.command(short_help="Mark the results in a fresh clone as up to date.")
def restore(
    configuration: Configuration = None,
    configfile: Configfile = None,
    full: Annotated[bool, typer.Option("--full", help="Also get the data sets and checkpoints from DVC.")] = False,
) -> None:
    """Mark the results in a fresh clone as up to date, so that Snakemake can redraw figures without training.

    It names the code that has changed since they were made, and how to make again what depends on it.
    """
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.sharing import publish as sharing  # noqa: PLC0415
        from malmen.workflow.layout import Layout  # noqa: PLC0415

        configfile = chosen(configuration, configfile)
        config = load_file(configfile)
        changed = sharing.restore(Path.cwd(), config.run, configfile, full)
        typer.echo(f"The results of {config.run} count as up to date. To redraw figures, delete them and run:")
        layout = Layout(config)
        absent = [] if all(Path(file).exists() for file in layout.quoting_files()) else layout.quoting_tables()
        tables = [name for name in config.tables if name not in absent] if absent else ["tables"]
        typer.echo("\n".join([f"snakemake --configfile {configfile} figures {' '.join(tables)}", *changed]))
        if absent:
            typer.echo(
                f"Not here: {', '.join(absent)}. They quote the data; making them prepares data and models again."
            )


@app.command(short_help="Export the records of a run as an RO-Crate.")
def crate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[CONFIGURATION] DIRECTORY",
            help="The configuration, by name or file [default: demo], and the directory for ro-crate-metadata.json; "
            "use . for the checkout.",
        ),
    ],
    configfile: Configfile = None,
    agent: Annotated[str | None, typer.Option(help="Name of the person who ran it. Default: git's user.name.")] = None,
    orcid: Annotated[str | None, typer.Option(help="ORCID of this person, as a URL.")] = None,
) -> None:
    """Export the records of a run as an RO-Crate (Provenance Run Crate profile). The crate holds metadata only."""
    with reporting():
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)
        from malmen.sharing.crate import configured_agent, write_crate  # noqa: PLC0415

        if len(words) > 2:
            raise UserError(f"Name a configuration and a directory, and not {' '.join(words)}.")
        configfile = chosen(words[0] if words[1:] else None, configfile)
        agent_named = configured_agent(agent, orcid)
        written = write_crate(load_file(configfile).run, configfile, agent_named, Path(words[-1]))
        typer.echo(f"The crate is {written}.")


@app.command(short_help="Trace figures and tables back to the raw data.")
def audit(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIGURATION] [WHAT]...",
            help="The configuration, by name or file [default: demo], and what to trace: a figure, a file, or a number "
            "of a table (table1 MALMEN GS gpt2) [default: everything].",
        ),
    ] = None,
    configfile: Configfile = None,
    figures_only: Annotated[
        bool,
        typer.Option("--figures-only", help="Allow missing data sets, models and editors, as in a fresh clone."),
    ] = False,
    rerun: Annotated[int, typer.Option(min=0, help="Repeat this number of random jobs and compare their outputs.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the choice of jobs to repeat.")] = 0,
    sign: Annotated[
        Path | None, typer.Option(help="Sign the records with this SSH key (ssh-keygen) if the audit passes.")
    ] = None,
    signers: Annotated[
        Path | None, typer.Option(help="OpenSSH file of allowed signers; one of them must have signed the records.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every link with its verdict as JSON, for programs.")
    ] = False,
) -> None:
    """Trace every figure and table back to the raw data and name each broken link; exit with code 1 if there is one."""
    with reporting():
        from malmen.audit import audit as whole  # noqa: PLC0415
        from malmen.audit import report  # noqa: PLC0415
        from malmen.audit.part import explain  # noqa: PLC0415
        from malmen.audit.report_file import AuditReport  # noqa: PLC0415
        from malmen.audit.signature import sign as sign_records  # noqa: PLC0415
        from malmen.audit.trail import Trail  # noqa: PLC0415
        from malmen.config.load import load_file  # noqa: PLC0415 (reads the sources and the registry of models)

        named = configuration_file(what[0]) if what else None
        what, configfile = (what or [])[bool(named) :], chosen(str(named) if named else None, configfile)
        run = load_file(configfile).run
        if what and (rerun or sign or signers):
            raise UserError("--rerun, --sign and --signers concern the whole run; leave out them or the words.")
        if what:
            lineage, outcome = explain(what, Trail(run, absent_allowed=figures_only))
            if not as_json:
                typer.echo(lineage)
        else:
            outcome = whole.audit(run, configfile, scope=whole.Scope(figures_only, rerun, seed, signers))
        typer.echo(AuditReport.of(outcome).model_dump_json(indent=1) if as_json else report.report(outcome))
        if not outcome.holds:
            raise typer.Exit(1)
        if sign:
            typer.echo(f"Signed: {sign_records(run, sign)}", err=as_json)
