"""English Wikipedia as a stream of articles, from a pinned dump on the Hugging Face hub."""

from collections.abc import Iterator
from typing import Any

from malmen.config.memit import CovarianceSettings
from malmen.errors import UserError


def wikipedia_articles(settings: CovarianceSettings) -> Iterator[str]:
    """Yield the text of one article after the other, in an order drawn from the settings' seed; nothing is stored.

    Raises:
        UserError: if the package ``datasets`` is missing, or the hub or the data set cannot be reached.
    """
    try:
        from datasets import load_dataset  # noqa: PLC0415 (editing code must run where it is not installed)
    except ImportError:
        raise UserError(
            "Statistics from Wikipedia need the package 'datasets'; install it, or set statistics.source to text."
        ) from None
    try:
        dataset: Any = load_dataset(
            settings.dataset, settings.dump, split="train", revision=settings.revision, streaming=True
        )
        # The dump is ordered by age of the article: without the shuffle, a few million tokens are all from old ones.
        for article in dataset.shuffle(seed=settings.seed, buffer_size=1000):
            yield article["text"]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{settings.dataset} ({settings.dump}) cannot be read from the hub ({type(error).__name__}); check the "
            "network, or set statistics.source to text and statistics.path to a local file."
        ) from None
