"""A configuration of the workflow for a user's own model and facts: `malmen init`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from malmen.config.base import Answers
from malmen.config.load import load
from malmen.data.training_tuples import read_training_tuples
from malmen.editing.feed_forward import first_layers, second_layers
from malmen.editing.layers import as_patterns
from malmen.errors import UserError
from malmen.own_facts.facts import read_unrelated
from malmen.own_facts.methods import FineTuning
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.usual_settings import usual_settings, usual_tuning_rate
from malmen.runtime.files import write_text
from malmen.runtime.text import counted

SPLIT = {"train": 70, "tune": 10, "validation": 20}
"""Shares of the facts, in percent."""
STEP = 4
"""The values of m are its powers."""

HEAD = """# {label} edited with the facts of {facts}, in the workflow: figures, records and audit.
#   snakemake --configfile {file}         draws ES, GS and LS over the number of edits
#   malmen plan {file}                    says what that takes
#   malmen audit {file}                   checks every number
# Learning rates, rank and steps suit the model's size; `snakemake tuning` measures others on tuples held out for it.
"""


def write_configuration(
    out: Path, model: LoadedModel, facts: Path, unrelated: Path | None, answers: Answers, prompt: str
) -> None:
    """Write a configuration that trains MALMEN for a model on a file of facts, and measures it beside fine-tuning.

    Args:
        out: the file to write.
        model: the model.
        facts: the file of facts.
        unrelated: a file of unrelated questions for facts that have none.
        answers: which answer is taken where a record has two.
        prompt: how the model is asked: "plain", "chat", or a template.

    Raises:
        UserError: if the file exists, there are too few facts, or some are malformed or have no unrelated question.
    """
    if out.exists():
        raise UserError(f"{out} exists; choose another --out, or delete it.")
    source, name = model.source, out.stem
    pool = [question.pair for question in read_unrelated(unrelated)] if unrelated else []
    n_facts = len(read_training_tuples(facts, pool, answers).tuples)
    sizes = numbers_of_edits(n_facts * SPLIT["validation"] // sum(SPLIT.values()))
    if not sizes:
        raise UserError(
            f"{facts} has {counted(n_facts, 'fact')}; give at least {sum(SPLIT.values()) // SPLIT['validation']}."
        )
    settings = usual_settings(model.language_model)
    network, training = settings.hypernetwork, settings.training
    stacks = second_layers(model.language_model)
    second, blocks = as_patterns(layer for stack in stacks for layer in stack), min(map(len, stacks))
    first = as_patterns(first_layers(model.language_model)) or second  # an editor of `first` is not written here
    files: dict[str, Any] = {"facts": str(facts), "answers": answers}
    if unrelated:
        files["unrelated"] = str(unrelated)
    raw: dict[str, Any] = {
        "run": name,
        "device": model.language_model.device.type,
        "seeds": [0, 1],
        "data": {"source": "files", "split": SPLIT, "files": files},
        "editors": {
            "malmen": {
                "label": "MALMEN",
                "last_blocks": min(settings.last_blocks, blocks),
                "hypernetwork": {"rank": network.rank, "learning_rate": network.learning_rate},
                "training": {
                    "meta_learning_rate": training.meta_learning_rate,
                    "min_steps": training.min_steps,
                    "max_steps": 4 * training.min_steps,
                },
            },
            "ft": {
                "label": "FT",
                "method": "finetuning",
                "last_blocks": min(FineTuning.last_blocks, blocks),
                "finetuning": {"learning_rate": usual_tuning_rate(model.language_model), "epochs": FineTuning.epochs},
            },
        },
        "models": {
            "own": {
                "label": Path(source.name).name,
                "pretrained": source.name,
                **({"revision": source.revision} if source.revision else {"sha256": source.weights}),
                "dataset": "own",
                "task": source.task,
                "dtype": source.dtype,
                "prompt": prompt,
                "ffn": {"first": first, "second": second},
                "n_edits": sizes,
            }
        },
        "cache": {"min_runs": 2},
        "evaluation": {"max_groups": 8},
        "jobs": {"n_edits_per_job": 3},
        "figures": {"scaling": {"kind": "scaling", "model": "own", "editors": ["ft", "malmen"]}},
    }
    load(raw, str(out))  # what is written is valid
    head = HEAD.format(label=Path(source.name).name, facts=facts, file=out)
    write_text(out, head + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100))


def numbers_of_edits(n_validation: int) -> list[int]:
    """Return the values of m at which editors are compared: 1, 4, 16, ... up to the number of validation facts."""
    sizes: Sequence[int] = [STEP**power for power in range(8)]
    return [size for size in sizes if size <= n_validation]
