"""The cache of base outputs that all runs of a grid on one model share (:mod:`malmen.editing.base_outputs`)."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malmen.config.cache import CACHE_GB
from malmen.config.edited_layers import EditedLayersSettings
from malmen.config.hypernetwork import HyperNetworkEditorSettings
from malmen.data.tuples import read_tuples
from malmen.editing.base_outputs import CachedBaseOutputs, CacheKey
from malmen.editing.layers import EditedLayer
from malmen.errors import UserError
from malmen.jobs.common import Machine, ModelSpec
from malmen.models.identity import model_digests
from malmen.models.language_model import LanguageModel
from malmen.runtime.files import joint_digest, replacing_directory
from malmen.runtime.progress import logger


def allowed_gb(config: Mapping[str, Any]) -> float:
    """Return the largest allowed size of a cache in GB, from a configuration as read from YAML."""
    return float(config["cache"].get("max_gb", CACHE_GB))


def write_cache(
    spec: ModelSpec,
    settings: HyperNetworkEditorSettings,
    tuples: Path,
    out: Path,
    max_gb: float,
    machine: Machine,
    n_tuples: int | None = None,
) -> None:
    """Write the base outputs that all editors with the same edited layers and cached tokens share.

    Args:
        spec: the model.
        settings: one of the editors; only its edited layers and cached tokens matter.
        tuples: file of all tuples of a split.
        out: folder of the cache.
        max_gb: largest allowed size, in GB.
        machine: where to run.
        n_tuples: how many tuples of the file, the first, are cached; None for all.

    Raises:
        UserError: before writing, if the cache would exceed ``max_gb`` or the free space of the disk.
    """
    model = spec.load(machine)
    layers = spec.layers(model, settings)
    cache = CachedBaseOutputs.of_tuples(model, layers, settings.hypernetwork.tokens, read_tuples(tuples)[:n_tuples])
    what = (
        f"The cache of {spec.label} for {tuples.stem} holds keys and value gradients of {len(cache.edits)} edits, "
        f"hidden states of {len(cache.prompts)} prompts: {cache.size / 1e9:.2f} GB in {spec.dtype}"
    )
    logger.info(what)
    with replacing_directory(out) as folder:
        free = shutil.disk_usage(folder).free
        if cache.size > free:
            raise UserError(
                f"{what}, but the disk has {free / 1e9:.2f} GB left; make room or leave out the section cache."
            )
        if cache.size > max_gb * 1e9:
            raise UserError(f"{what}, more than cache.max_gb ({max_gb:g}); raise it or leave out the section cache.")
        cache.write(folder, contents(spec, settings, layers), settings.hypernetwork.batch_size)


def read_cache(
    folder: Path | None,
    spec: ModelSpec,
    settings: EditedLayersSettings,
    model: LanguageModel,
    layers: list[EditedLayer],
) -> CachedBaseOutputs | None:
    """Open the cache that :func:`write_cache` wrote; return None without a folder or a hyper-network.

    Raises:
        UserError: if it is broken, or belongs to another model or other settings.
    """
    if folder is None or not isinstance(settings, HyperNetworkEditorSettings):
        return None
    return CachedBaseOutputs.open(folder, model, layers, contents(spec, settings, layers))


def contents(spec: ModelSpec, settings: HyperNetworkEditorSettings, layers: list[EditedLayer]) -> CacheKey:
    """Return the key of a cache."""
    model = joint_digest(model_digests(spec.directory))
    return CacheKey(model, [layer.name for layer in layers], settings.hypernetwork.tokens)
