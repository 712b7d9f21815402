"""Estimating the covariance of keys that MEMIT needs, once per model and choice of layers."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from malmen.config.memit import CovarianceSettings, MemitEditorSettings
from malmen.data.wikipedia import wikipedia_articles
from malmen.editing.memit.covariance import CollectedFrom, collect_key_covariance, encode_texts, write_key_covariance
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.identity import weights_digest
from malmen.runtime.progress import logger, progress


def collect_covariance(
    spec: ModelSpec, settings: MemitEditorSettings, text: Path | None, out: Path, machine: Machine
) -> None:
    """Write the covariance of the keys of the layers that an editor edits, as a safetensors file.

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
    sequences = progress(
        encode_texts(model, texts(wanted, text), wanted.max_tokens),
        wanted.max_tokens,
        f"{spec.label}: covariance of keys",
        weight=lambda sequence: len(sequence.tokens),
        unit="tokens",
        brief=True,
    )
    covariance, n_tokens = collect_key_covariance(model, layers, sequences, wanted.batch_size)
    if not n_tokens:
        raise UserError(f"{text or wanted.dataset} holds no text to estimate a covariance from; name another source.")
    logger.info("Key covariance of %d layers from %d tokens", len(layers), n_tokens)
    wikipedia = f"{wanted.dataset} {wanted.dump} at {wanted.revision}, seed {wanted.seed}"
    about = CollectedFrom(spec.name, weights_digest(spec.directory), n_tokens, text.name if text else wikipedia)
    write_key_covariance(out, covariance, asdict(about))


def texts(settings: CovarianceSettings, text: Path | None) -> Iterator[str]:
    """Yield the texts of the file or of Wikipedia.

    Raises:
        UserError: if the source cannot be read.
    """
    if text is None:
        yield from wikipedia_articles(settings)
        return
    try:
        with text.open(encoding="utf-8") as stream:
            yield from (line.rstrip("\n") for line in stream if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{text} cannot be read as text ({type(error).__name__}); set memit.covariance.path.") from None
