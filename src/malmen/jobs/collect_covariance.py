"""Estimating the covariance of keys that MEMIT needs, once per model and choice of layers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from malmen.config.memit import MemitEditorSettings
from malmen.data.wikipedia import wikipedia_articles
from malmen.editing.layers import EditedLayer
from malmen.editing.memit.covariance import CollectedFrom, collect_key_covariance, encode_texts, write_key_covariance
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.identity import weights_digest
from malmen.models.language_model import LanguageModel
from malmen.results.costs import Cost, CostsFile
from malmen.results.run import Run
from malmen.runtime.peak_memory import PeakMemory
from malmen.runtime.progress import logger, progress
from malmen.runtime.ranks import ranks
from malmen.runtime.work_clock import seconds_of_all_ranks, work_seconds


def collect_covariance(
    spec: ModelSpec, settings: MemitEditorSettings, text: Path | None, out: Path, machine: Machine
) -> CostsFile:
    """Write the covariance of the keys of the layers that an editor edits, as a safetensors file; return the costs.

    They are those of one run with m = 0: the covariance serves every m.

    Args:
        spec: the model.
        settings: the editor.
        text: a file with one text per line, blank lines ignored; None for Wikipedia.
        out: the file to write.
        machine: where to run.

    Raises:
        UserError: if the source is empty or cannot be read.
    """
    model = spec.load(machine)
    wanted = settings.memit.covariance
    layers = spec.layers(model, settings)
    what, found = f"{spec.label}: covariance of keys", lines_of(text) if text else wikipedia_articles(wanted)
    with PeakMemory(model.device) as memory:
        start = work_seconds(model.device)
        covariance, n_tokens = collect(model, layers, found, wanted.max_tokens, wanted.batch_size, what)
        seconds = seconds_of_all_ranks(work_seconds(model.device) - start, model.device)
    if not n_tokens:
        raise UserError(f"{text or wanted.dataset} holds no text to estimate a covariance from; name another source.")
    logger.info("Key covariance of %d layers from %d tokens", len(layers), n_tokens)
    wikipedia = f"{wanted.dataset} {wanted.dump} at {wanted.revision}, seed {wanted.seed}"
    about = CollectedFrom(spec.name, weights_digest(spec.directory), n_tokens, text.name if text else wikipedia)
    if ranks().first:
        write_key_covariance(out, covariance, asdict(about))
    peak = ranks().largest(memory.peak_bytes)
    return CostsFile((Cost(run=Run(0, wanted.seed), seconds=seconds, peak_bytes=peak),))


def collect(
    model: LanguageModel,
    layers: Sequence[EditedLayer],
    texts: Iterable[str],
    max_tokens: int,
    batch_size: int,
    what: str,
) -> tuple[dict[str, Tensor], int]:
    """Return the covariance of keys by layer, (d_in, d_in), and the number of tokens; log the progress.

    Args:
        model: the language model.
        layers: the layers whose keys are observed.
        texts: what the model reads.
        max_tokens: how many tokens it reads at most.
        batch_size: sequences that it reads at once.
        what: what this work is called.

    Raises:
        UserError: if a key is not finite.
    """
    sequences = progress(
        encode_texts(model, texts, max_tokens),
        max_tokens,
        what,
        weight=lambda sequence: len(sequence.tokens),
        unit="tokens",
        brief=True,
    )
    return collect_key_covariance(model, layers, sequences, batch_size)


def lines_of(text: Path) -> Iterator[str]:
    """Yield the lines of a file that are not blank.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        with text.open(encoding="utf-8") as stream:
            yield from (line.rstrip("\n") for line in stream if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{text} cannot be read as text ({type(error).__name__}); give another file (memit.covariance.path in a "
            "configuration, --text of malmen edit)."
        ) from None
