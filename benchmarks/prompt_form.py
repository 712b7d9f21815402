"""Looks at the form of the prompts: the question alone, or "Q: ... A:", on the tuples held out for tuning.

    python benchmarks/prompt_form.py

Run any part of `config/real.yaml` first that fetches SmolLM2 and builds zsRE, such as its caches.
It trains MALMEN on both forms, edits with it and with fine-tuning, prints ES, GS and LS beside those of the unedited
model, and writes them to ``benchmarks/results/prompt_form.json``.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import reporting

from malmen.config.base import FfnPatterns
from malmen.config.finetuning import FineTuningEditorSettings, FineTuningSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings, HyperNetworkSettings, TrainingSettings
from malmen.data.tuples import EditTuple, PromptAnswer, read_tuples
from malmen.editing.base_outputs import LiveBaseOutputs
from malmen.editing.editor import Editor
from malmen.editing.editors import make_editor
from malmen.editing.evaluation import Evaluation
from malmen.jobs.common import Machine, ModelSpec
from malmen.jobs.train_editor import train_editor
from malmen.results.run import Run
from malmen.runtime.checkpoint import NOTHING_SAVED

FFN: FfnPatterns = {"first": [r"model\.layers\.\d+\.mlp\.gate_proj"], "second": [r"model\.layers\.\d+\.mlp\.down_proj"]}
FORMS: dict[str, Callable[[str], str]] = {
    "question": lambda question: question,
    "Q: question A:": lambda question: f"Q: {question}\nA:",
}
FT = FineTuningEditorSettings(
    label="FT",
    ffn_layers=("first", "second"),
    last_blocks=3,
    finetuning=FineTuningSettings(learning_rate=1e-3, epochs=20),
)
METRICS = ("pre_ES", "pre_GS", "pre_LS", "ES", "GS", "LS")


def asked(item: EditTuple, form: Callable[[str], str]) -> EditTuple:
    """Return a tuple whose prompts have another form."""
    edit, unrelated = (PromptAnswer(form(pair.prompt), pair.answer) for pair in (item.edit, item.unrelated))
    return replace(item, edit=edit, equivalent=tuple(map(form, item.equivalent)), unrelated=unrelated)


def main() -> None:
    """Measure both forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("results/real/models/smollm2/fetched"))
    parser.add_argument("--data", type=Path, default=Path("data/real/realtext/zsre"))
    parser.add_argument("--n-edits", type=int, default=64)
    parser.add_argument("--groups", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    malmen = HyperNetworkEditorSettings(
        label="MALMEN",
        last_blocks=6,
        hypernetwork=HyperNetworkSettings(rank=512, learning_rate=1e-4),
        training=TrainingSettings(meta_learning_rate=1e-4, min_steps=arguments.steps, max_steps=arguments.steps),
    )
    spec = ModelSpec("smollm2", "SmolLM2", "zsre", "question_answering", "float32", arguments.model, FFN)
    model, run = spec.load(Machine("cpu", 1)), Run(arguments.n_edits, seed=0)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, form in FORMS.items():
        files = (arguments.data / f"{split}.jsonl" for split in ("train", "tune"))
        train, tune = ([asked(item, form) for item in read_tuples(file)] for file in files)
        evaluation = Evaluation(model, tune[: arguments.groups * run.n_edits], "auto", run.seed)
        layers = spec.layers(model, malmen)
        unsaved, live = NOTHING_SAVED.checkpoint("malmen", name, __name__, {}), LiveBaseOutputs(model, layers)
        trained, *_ = train_editor(model, layers, malmen, train, run, unsaved, live)
        editors: dict[str, Editor] = {"MALMEN": trained, "FT": make_editor(FT, spec.layers(model, FT), run.seed, None)}
        for label, editor in editors.items():
            groups = [evaluation.run(editor, group).metrics for group in evaluation.groups(run.n_edits)]
            means = {metric: sum(group[metric] for group in groups) / len(groups) for metric in METRICS}
            print(f"{name}, {label}: " + ", ".join(f"{metric} {100 * value:.1f}" for metric, value in means.items()))
            found.setdefault(name, {})[label] = means
    result = {**reporting.about(), **{key: getattr(arguments, key) for key in ("n_edits", "groups", "steps")}}
    text = json.dumps({**result, "forms": found}, indent=1) + "\n"
    (reporting.RESULTS / "prompt_form.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
