"""The covariance of keys that MEMIT needs: collected from text on first use, and kept for later edits of the model."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from malmen.config.memit import CovarianceSettings
from malmen.data.wikipedia import wikipedia_articles
from malmen.editing.feed_forward import second_layers
from malmen.editing.layer_checks import check_layers
from malmen.editing.layers import EditedLayer, feed_forward_place, select_layers
from malmen.editing.memit.covariance import CollectedFrom, write_key_covariance
from malmen.errors import UserError, first_line
from malmen.jobs.collect_covariance import collect, lines_of
from malmen.models.language_model import LanguageModel
from malmen.own_facts.methods import Memit
from malmen.own_facts.model import LoadedModel
from malmen.runtime.caches import can_write, user_folder
from malmen.runtime.files import sha256
from malmen.runtime.progress import logger
from malmen.runtime.text import counted

GPT_J = (3, 8, 28)
"""The first and the last block that MEMIT's authors edit in GPT-J, counted from 0, and the number of its blocks."""
TOKENS_PER_NUMBER, FEWEST_TOKENS = 30, 100_000
"""How much text is read unless the user says so: tokens for each number in a key, and at least this many. It then takes
minutes, and the covariance is known to about a fifth of itself (the square root of 1/30)."""


@dataclass(frozen=True)
class Source:
    """A text to collect from.

    Attributes:
        name: what it is called in messages and reports.
        digest: SHA-256 of its file, or the commit and order of an online one.
        lines: its parts.
    """

    name: str
    digest: str
    lines: Iterable[str]

    @classmethod
    def chosen(cls, method: Memit) -> "Source":
        """Return the user's file, or Wikipedia, which nothing is read of yet.

        Raises:
            UserError: if there is no such file.
        """
        wanted = method.settings.covariance
        file = method.text or (Path(wanted.path) if wanted.path else None)
        if file is None:
            commit = f"{wanted.dataset} {wanted.dump} at {wanted.revision}, seed {wanted.seed}"
            return cls(commit, commit, articles(wanted))
        if not file.is_file():
            raise UserError(f"There is no text {file}; give a file of ordinary text, one text a line, with --text.")
        digest = sha256(file)
        return cls(f"{file} (SHA-256 {digest})", digest, lines_of(file))


def articles(settings: CovarianceSettings) -> Iterable[str]:
    """Yield the articles of Wikipedia.

    Raises:
        UserError: if they cannot be read.
    """
    try:
        yield from wikipedia_articles(settings)
    except Exception as error:  # No network: the hub's HTTP library raises errors of many kinds.
        reason = type(error).__name__ if not isinstance(error, UserError) else first_line(error).split("; ")[0]
        raise UserError(
            f"MEMIT needs statistics of ordinary text, and English Wikipedia cannot be read ({reason}); give a file of "
            "ordinary text, one text a line, with --text, or check the network."
        ) from None


def with_covariance(method: Memit, model: LoadedModel) -> Memit:
    """Return MEMIT with the covariance of this model's keys: the user's, one that was kept, or a new one.

    Raises:
        UserError: if the layers or the text cannot be used, or there is no folder to keep the covariance in.
    """
    if method.covariance is not None:
        return method
    text, layers = Source.chosen(method), choose_layers(model.language_model, method.layers)
    check_layers(model.language_model, layers, "all")
    size = max(layer.shape[0] for layer in layers)
    tokens = wanted_tokens(method, size)
    file = place(model, layers, text, tokens)
    if file.is_file():
        found = CollectedFrom.read(file)
        logger.info("MEMIT uses the covariance of keys in %s, from %d tokens of %s", file, found.tokens, found.source)
        return replace(method, covariance=file, text=None, text_tokens=None, layers=())
    if not can_write(file.parent):
        raise UserError(
            f"The covariance of keys cannot be kept in {file.parent}; set XDG_CACHE_HOME to a folder for it, or give "
            "one that was collected with --covariance."
        )
    logger.info(
        "MEMIT collects the covariance of keys once for this model, from %s: at most %d tokens (--text-tokens)",
        text.name,
        tokens,
    )
    batch_size = method.settings.covariance.batch_size
    covariance, n_tokens = collect(model.language_model, layers, text.lines, tokens, batch_size, "covariance of keys")
    if n_tokens < size:
        remedy = "give a longer --text" if n_tokens < tokens else "read more of them (--text-tokens)"
        raise UserError(
            f"{text.name} gave {counted(n_tokens, 'token')}, but the covariance of keys of {size} numbers needs {size} "
            f"at least, and better {TOKENS_PER_NUMBER * size:,}; {remedy}."
        )
    about = CollectedFrom(model.source.name, model.source.weights, n_tokens, text.name)
    write_key_covariance(file, covariance, asdict(about))
    logger.info("MEMIT keeps the covariance of keys, from %d tokens, in %s", n_tokens, file)
    return replace(method, covariance=file, text=None, text_tokens=None, layers=())


def wanted_tokens(method: Memit, size: int) -> int:
    """Return how many tokens are read at most, for keys of ``size`` numbers."""
    stated = method.settings.covariance.max_tokens
    if method.text_tokens or stated != CovarianceSettings().max_tokens:
        return method.text_tokens or stated
    return min(stated, max(FEWEST_TOKENS, TOKENS_PER_NUMBER * size))


def place(model: LoadedModel, layers: Sequence[EditedLayer], text: Source, tokens: int) -> Path:
    """Return the file of a covariance, whose name depends on all that it depends on.

    It is not beside the model: vLLM and others would read it as weights there, and the hub's cache is the hub's.
    """
    names = [layer.name for layer in layers]
    key = json.dumps([model.source.weights, model.source.dtype, names, text.digest, tokens])
    name = f"key_covariance-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    return user_folder("XDG_CACHE_HOME", ".cache") / "malmen" / model.source.weights / name


def choose_layers(model: LanguageModel, patterns: Sequence[str]) -> list[EditedLayer]:
    """Return the layers that patterns name, in the model's order; by default those as deep as MEMIT's in GPT-J.

    Raises:
        UserError: if a pattern names no layer, or the blocks of that depth have none.
    """
    if patterns:
        named = {layer.name: layer for pattern in patterns for layer in select_layers(model.module, pattern)}
        return [named[name] for name, _ in model.module.named_modules() if name in named]
    stack = max(second_layers(model), key=len)
    by_block = {found[1]: layer for layer in stack if (found := feed_forward_place(layer.name))}
    n_blocks = getattr(model.text_config, "num_hidden_layers", None) or max(by_block) + 1
    first, last = (n_blocks * block // GPT_J[2] for block in GPT_J[:2])
    chosen = [layer for block, layer in by_block.items() if first <= block <= last]
    if not chosen:
        raise UserError(
            f"MEMIT edits blocks {first} to {last} of a model of {n_blocks}, but none of them has a layer to edit; "
            "name layers with --layers."
        )
    logger.info(
        "MEMIT edits %s to %s, blocks %d to %d of %d: as deep as its authors' in GPT-J; --layers names others",
        chosen[0].name,
        chosen[-1].name,
        first,
        last,
        n_blocks,
    )
    return chosen
