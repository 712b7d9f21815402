"""Training an editor in memory, by the same code as the workflow's jobs."""

from collections.abc import Sequence
from dataclasses import asdict

from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import EditTuple
from malmen.editing.base_outputs import LiveBaseOutputs
from malmen.editing.editor_file import TrainedFor
from malmen.editing.feed_forward import choose_layers
from malmen.editing.layer_checks import check_layers
from malmen.errors import UserError
from malmen.jobs.train_editor import train_editor as train
from malmen.own_facts.model import LoadedModel
from malmen.own_facts.trained import TrainedEditor
from malmen.results.run import Run
from malmen.runtime.checkpoint import Checkpoint


def train_editor(
    model: LoadedModel,
    tuples: Sequence[EditTuple],
    n_edits: int,
    settings: HyperNetworkEditorSettings | None,
    layers: Sequence[str],
    seed: int,
) -> TrainedEditor:
    """Train an editor; arguments and errors as in :func:`malmen.train_editor`."""
    settings = settings or HyperNetworkEditorSettings(label="MALMEN")
    if len(tuples) < n_edits:
        raise UserError(f"{n_edits} edits at once need as many tuples, but there are {len(tuples)}; lower n_edits.")
    edited = choose_layers(model.language_model, layers, settings.last_blocks)
    check_layers(model.language_model, edited, settings.hypernetwork.tokens)
    run, source = Run(n_edits, seed), model.source
    checkpoint = Checkpoint(what=f"{settings.label} on {source.name}, m = {n_edits}, seed {seed}")
    live = LiveBaseOutputs(model.language_model, edited)
    network, record, _ = train(model.language_model, edited, settings, tuples, run, checkpoint, live)
    trained_for = TrainedFor(
        source.name,
        source.weights,
        source.task,
        settings.label,
        **asdict(run),
        dtype=source.dtype,
        diverged=record.reason,
    )
    return TrainedEditor(trained_for, network=network)
