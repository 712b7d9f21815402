"""Several ranks share the work of MEMIT, fine-tuning and the measures: what one process finds, they find, to rounding.

Every test looks at one run of :func:`everything` in this process, on 2 and on 3 ranks: to start them takes longest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import pytest
import torch
from memory_errors import ALLOCATOR
from on_ranks import on_ranks
from tiny_models import (
    ARCHITECTURES,
    NAMES,
    PLACES,
    edit_tuples,
    encoded_group,
    ffn_layers,
    spread_attention,
    tiny_model,
)
from torch import Tensor

from malmen.config.base import Architecture
from malmen.config.finetuning import FineTuningSettings
from malmen.config.memit import MemitSettings, NullSpaceSettings, Update
from malmen.editing.finetuning import FineTuningEditor
from malmen.editing.layers import EditedLayer, select_layers
from malmen.editing.measures import Found, StrictMeasures
from malmen.editing.memit.covariance import collect_key_covariance, encode_texts
from malmen.editing.memit.editor import MemitEditor
from malmen.editing.rounds import EditedInRounds
from malmen.editing.training import encode_edits
from malmen.errors import DivergedError
from malmen.models.batching import Size, agree_on_sizes
from malmen.models.language_model import Batch, LanguageModel
from malmen.models.perplexity import text_examples
from malmen.runtime.ranks import ranks

PRECISIONS = torch.float64, torch.float32
FT = FineTuningSettings(epochs=2, learning_rate=5e-3, batch_size=5)
LOCFT = FineTuningSettings(
    epochs=12,
    learning_rate=1e-2,
    weight_decay=0.0,
    batch_size=7,
    loss="sequences",
    stop_loss=6.5,  # reached in the ninth epoch
    skip_loss=6.6,  # some steps before are left out
    end_of_sequence=True,
)
MEMIT = MemitSettings(
    steps=4,
    learning_rate=0.3,
    covariance_weight=3.0,
    prefix_starts=("The",),
    prefix_tokens=4,
    batch_size=2,
    null_space=NullSpaceSettings(share=0.5, regularisation=1.0),
    remember=True,
)
ROUNDS = (5, 2, 1)  # edits: with 3 ranks the second leaves one without any, the third two
MEASURED: tuple[Architecture, ...] = ("gpt2", "t5")
TEXTS = [f"{name} wrote a song in {place}." for name in NAMES for place in PLACES][:9]  # the last batch is one of 1

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Shared:
    """What a rank found.

    Attributes:
        tensors: shifts, memories and covariances, by the case and the precision.
        measured: of an unedited model, by its architecture.
        errors: what was raised, by the case.
        sizes: batch sizes and whether they grow, by purpose, after the last rank ran out of memory.
        told: what was logged when ranks agreed on them.
    """

    tensors: dict[tuple[str, torch.dtype], Tensors]
    measured: dict[Architecture, Found]
    errors: dict[str, str]
    sizes: dict[str, tuple[int, bool]]
    told: list[str]


def everything() -> Shared:
    """Do all work that ranks share."""
    tensors: dict[tuple[str, torch.dtype], Tensors] = {}
    for dtype in PRECISIONS:
        architectures: Sequence[Architecture] = ARCHITECTURES if dtype == torch.float64 else ("gpt2",)
        for architecture in architectures:
            tensors[f"FT of {architecture}", dtype] = tuned(architecture, FT, 11, dtype)
        tensors["FT of one edit", dtype] = tuned("gpt2", FT, 1, dtype)
        tensors["LocFT-BF", dtype] = tuned("gpt2", LOCFT, 11, dtype)
        for update in get_args(Update):
            tensors[f"{update} of gpt2", dtype] = in_rounds("gpt2", update, dtype)
        tensors["covariance", dtype] = key_covariance(*edited("gpt2", dtype))
    tensors["least_squares of gptj", torch.float64] = in_rounds("gptj", "least_squares", torch.float64)
    measured = {name: measures(name) for name in MEASURED}
    return Shared(tensors, measured, {name: raised(name) for name in ERRORS}, *sizes_after_memory_ran_out())


def tuned(architecture: Architecture, settings: FineTuningSettings, n: int, dtype: torch.dtype) -> Tensors:
    model = tiny_model(architecture, dtype)
    return dict(FineTuningEditor(ffn_layers(model), settings, seed=0).shifts(model, encoded_group(model, n).edit))


def edited(architecture: Architecture, dtype: torch.dtype = torch.float64) -> tuple[LanguageModel, list[EditedLayer]]:
    """Return a model in which a change at the subject reaches the answer, and the layers that MEMIT edits."""
    model = spread_attention(tiny_model(architecture, dtype))
    return model, select_layers(model.module, r"transformer\.h\.[01]\.mlp\.(c_proj|fc_out)")


def key_covariance(model: LanguageModel, layers: list[EditedLayer]) -> Tensors:
    covariance, n_tokens = collect_key_covariance(model, layers, encode_texts(model, TEXTS, 100), 2)
    return covariance | {"tokens": torch.tensor(n_tokens)}


def memit(layers: list[EditedLayer], update: Update) -> MemitEditor:
    generator = torch.Generator().manual_seed(0)
    keys = [torch.randn(100, layer.shape[0], generator=generator, dtype=torch.float64) for layer in layers]
    covariance = {layer.name: k.T @ k / 100 for layer, k in zip(layers, keys, strict=True)}
    # As if each device drew other prefixes: those of the first rank count.
    return MemitEditor(layers, replace(MEMIT, update=update), covariance, seed=ranks().rank)


def in_rounds(architecture: Architecture, update: Update, dtype: torch.dtype) -> Tensors:
    """Return the sums of the shifts of several rounds, and what the editor remembers."""
    model, layers = edited(architecture, dtype)
    tuples, done, start = edit_tuples(architecture, sum(ROUNDS)), EditedInRounds(model, memit(layers, update)), 0
    for n in ROUNDS:
        done.edit(encode_edits(model, tuples[start : start + n]))
        start += n
    return done.tensors()


def measures(architecture: Architecture) -> Found:
    model = tiny_model(architecture)
    items = [replace(item, truth=PLACES[(i + 1) % 5]) for i, item in enumerate(edit_tuples(architecture, 8))]
    text = text_examples(model, " ".join(TEXTS))
    one = StrictMeasures(model, items[:1], 4, seed=0, text=text[:1]).before
    assert one.decoded and len(one.decoded.edit.own) == 1  # the other ranks have nothing to decode
    return StrictMeasures(model, items, 4, seed=0, text=text).before


# Errors, and memory that runs out.


def infinite_loss() -> None:
    tuned("gpt2", replace(FT, learning_rate=1e200), 11, torch.float64)


def search() -> None:
    model, layers = edited("gpt2")
    memit(layers, "least_squares").shifts(model, encode_edits(model, edit_tuples("gpt2", 4)))


def singular_system() -> None:
    """Only the owner of the second layer notices."""
    model, layers = edited("gpt2")
    nothing = dict(memit(layers, "least_squares").key_covariance) | {layers[1].name: torch.zeros(64, 64)}
    MemitEditor(layers, MEMIT, nothing, seed=0).shifts(model, encode_edits(model, edit_tuples("gpt2", 4)))


ERRORS: dict[str, Callable[[], object]] = {
    "the loss": infinite_loss,
    "the system": singular_system,
    # What fails on the last rank, and the work that needs it:
    "malmen.editing.memit.targets.TargetSearch.run": search,
    "malmen.editing.memit.covariance.recording": lambda: key_covariance(*edited("gpt2")),
    "malmen.models.greedy.decode_batch": lambda: measures("gpt2"),
    "malmen.editing.two_answers.preferred_here": lambda: measures("gpt2"),
    "malmen.models.perplexity.shared": lambda: measures("gpt2"),
}


def raised(name: str) -> str:
    """Return the error of some work."""

    def fail(*_: object) -> None:
        raise DivergedError(f"{name} failed")

    with pytest.MonkeyPatch.context() as patch:
        if "." in name and last():
            patch.setattr(name, fail)
        try:
            ERRORS[name]()
        except DivergedError as error:
            return str(error)
    return "nothing"


def last() -> bool:
    return ranks().rank == ranks().size - 1


def sizes_after_memory_ran_out() -> tuple[dict[str, tuple[int, bool]], list[str]]:
    """Run out of memory above 2 sequences on the last rank, and agree; not all ranks know all sizes."""
    model, told = tiny_model("gpt2"), list[str]()
    examples = encoded_group(model, 8).edit

    def work(batch: Batch) -> int:
        if last() and len(batch.members) > 2:
            raise RuntimeError(ALLOCATOR)
        return len(batch.members)

    for purpose in ("of all", "of the last") if last() else ("of all", "of others"):
        assert sum(model.in_batches(purpose, examples, 8, work)) == 8
    rows = {("rows", 1): Size(16, growing=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("malmen.models.batching.logger.info", lambda text, *values: told.append(text % values))
        agree_on_sizes(model.sizes, rows)
    known = (*model.sizes.items(), *rows.items())
    return {purpose: (size.items, size.growing) for (purpose, _), size in known}, told


# What they find.


@pytest.fixture(scope="module")
def alone() -> Shared:
    return everything()


@pytest.fixture(scope="module", params=[2, 3])
def shared(request: pytest.FixtureRequest) -> list[Shared]:
    """What each of some ranks found."""
    return on_ranks(request.param, everything)


def test_shifts_memories_and_covariances_are_those_of_one_process(alone: Shared, shared: list[Shared]) -> None:
    for (case, dtype), expected in alone.tensors.items():
        first, *others = (one.tensors[case, dtype] for one in shared)
        assert set(first) == set(expected)
        for name, tensor in expected.items():
            off = (first[name] - tensor).double().norm() / tensor.double().norm()
            assert off <= (1e-10 if dtype == torch.float64 else 1e-5), (case, dtype, name)
            assert all(torch.equal(other[name], first[name]) for other in others), (case, dtype, name)


@pytest.mark.parametrize("architecture", MEASURED)
def test_measures_are_those_of_one_process(alone: Shared, shared: list[Shared], architecture: Architecture) -> None:
    expected = alone.measured[architecture]
    assert expected.decoded and expected.preferred and expected.perplexity
    for one in shared:
        found = one.measured[architecture]
        assert found.decoded and found.preferred
        for ours, theirs in zip(found.decoded, expected.decoded, strict=True):
            assert (ours.own, ours.free) == (theirs.own, theirs.free)
            assert torch.equal(ours.own_correct, theirs.own_correct)
            assert torch.equal(ours.free_correct, theirs.free_correct)
        for mine, whole in zip(found.preferred, expected.preferred, strict=True):
            assert torch.equal(mine.larger_logit, whole.larger_logit) and torch.equal(mine.likelier, whole.likelier)
        assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-10)
        assert found.perplexity == shared[0].measured[architecture].perplexity


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_of_one_rank_is_raised_on_all(alone: Shared, shared: list[Shared], name: str) -> None:
    assert alone.errors[name] != "nothing"
    assert [one.errors[name] for one in shared] == len(shared) * [alone.errors[name]]


def test_memory_that_runs_out_on_one_rank_lowers_batch_sizes_on_all(shared: list[Shared]) -> None:
    *others, final = shared
    fits, untouched = (2, False), {"rows": (16, True)}
    assert final.sizes == {"of all": fits, "of the last": fits} | untouched and final.told == []
    for one in others:
        assert one.sizes == {"of all": fits, "of others": (8, False), "of the last": fits} | untouched
        assert one.told == [f"of all: 2 at once from now on: rank {len(others)} has memory for no more"]
