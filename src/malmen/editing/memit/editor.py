"""MEMIT (Meng et al., ICLR 2023), the locate-then-edit method that the paper compares with on GPT-J.

It needs no training. For each edit it finds the hidden state after the last edited block that makes the model give the
new answer (:mod:`malmen.editing.memit.targets`), and then spreads the change over the edited layers. With the keys K,
(m, d_in), at the subjects, the missing change R, (m, d_out), and C = E[k k^T], (d_in, d_in), of a layer's keys on
ordinary text,

    S = argmin ||K S - R||^2 + w tr(S^T C S) = (w C + K^T K)^-1 K^T R.

EMMET and AlphaEdit find another S (:mod:`malmen.editing.memit.updates`) and are MEMIT in all else. In rounds, the
editor may remember the keys that it edited: their sum of k k^T, C_p, then protects them as C does those of text.

Of several ranks, each searches the states and observes the keys of its share of the edits. One of them solves a
layer's system, and the others get its shift.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor

from malmen.config.memit import KeyWeights, MemitSettings
from malmen.editing.blocks import Block, state_width, states_after
from malmen.editing.capture import Positions, recording
from malmen.editing.layers import EditedLayer, PostEditWeights
from malmen.editing.memit.prefixes import sample_prefixes
from malmen.editing.memit.requests import Request, make_request
from malmen.editing.memit.subjects import count_found
from malmen.editing.memit.targets import Passages, optimise_targets, portions
from malmen.editing.memit.updates import equality, least_squares, null_space, null_space_basis
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.noted import NOTES
from malmen.runtime.progress import logger, progress
from malmen.runtime.ranks import ranks

SHOWN = 10
"""Number of uncertain guesses that the log shows for a group of edits."""


@dataclass(frozen=True)
class MemitEditor:
    """Edits the second FFN layers of a run of blocks.

    Attributes:
        layers: the edited layers, in the model's order.
        settings: how it edits.
        key_covariance: C of each layer by name, (d_in, d_in).
        seed: of the prefixes.
        remembered: C_p of each layer by name, (d_in, d_in), in float64 in main memory; empty before the first round,
            and if the settings do not say ``remember``.
        bases: AlphaEdit's directions of each layer by name, (d_in, r), once they are known; in main memory.
    """

    layers: Sequence[EditedLayer]
    settings: MemitSettings
    key_covariance: Mapping[str, Tensor]
    seed: int
    remembered: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    bases: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer its shift, (d_in, d_out), in float32 (or 64); the model stays as it is.

        Args:
            model: the language model; in rounds, as the rounds before edited it.
            edits: encoded by :func:`malmen.editing.training.encode_edits`.

        Raises:
            DivergedError: if a system is singular, or a shift is not finite.
            UserError: if the layers do not write to a hidden state that can be replaced, or AlphaEdit's threshold
                leaves it no direction.
        """
        block = Block.around(model, self.layers[-1].name)
        if block.last:
            logger.warning(
                "MEMIT edits %s, the last block: no attention follows that carries the change from the subject to the "
                "answer, so only prompts that end with their subject can change. Choose earlier blocks.",
                block.name,
            )
        width = state_width(model, block)
        for layer in self.layers:
            if layer.shape[1] != width:
                raise UserError(
                    f"Layer {layer.name} writes {layer.shape[1]} numbers a token, and the hidden state has {width}; "
                    "MEMIT cannot edit it; use another editor."
                )
        requests = self.requests(model, edits)
        report_guesses(edits, requests)
        (targets,) = of_all(requests, lambda mine: [optimise_targets(model, block, mine, self.settings)])  # (m, d_out)
        shifts: dict[str, Tensor] = {}
        with ExitStack() as edited:
            for number, layer in enumerate(progress(self.layers, len(self.layers), "MEMIT's layers", brief=True)):
                keys, state = self.observed(model, layer, block, requests)
                residual = (targets - state) / (len(self.layers) - number)  # (m, d_out)
                shifts[layer.name] = self.shift(layer, keys, residual)
                edited.enter_context(PostEditWeights([layer], shifts).applied())
        return shifts

    def requests(self, model: LanguageModel, edits: Sequence[Example]) -> list[Request]:
        """Put all edits into the same contexts, whose prefixes the model writes as it is now."""
        settings = self.settings
        prefixes = sample_prefixes(model, settings.prefix_starts, settings.prefix_tokens, settings.top_k, self.seed)
        prefixes = ranks().gathered(prefixes)[0]  # On another device, another token may be drawn.
        return [make_request(model, edit, prefixes) for edit in edits]

    def observed(
        self, model: LanguageModel, layer: EditedLayer, block: Block, requests: Sequence[Request]
    ) -> Sequence[Tensor]:
        """Return what :func:`observe` does of all requests, each observed by one rank: (m, d_in) and (m, d)."""
        return of_all(requests, lambda mine: observe(model, layer, block, mine, self.settings))

    def shift(self, layer: EditedLayer, keys: Tensor, residual: Tensor) -> Tensor:
        """Return one layer's shift, (d_in, d_out), for its keys, (m, d_in), and the missing change, (m, d_out).

        Raises:
            DivergedError: if the system is singular, or something is not finite.
        """
        check_finite("keys", keys, layer)
        check_finite("hidden states", residual, layer)
        here, owner = ranks(), ranks().owner(self.layers.index(layer))
        if here.alone:
            return self.solution(layer, keys, residual)
        shift = residual.new_empty(layer.shape)
        with here.together():
            if here.rank == owner:
                shift.copy_(self.solution(layer, keys, residual))
        return here.from_owner(shift, owner)

    def solution(self, layer: EditedLayer, keys: Tensor, residual: Tensor) -> Tensor:
        """Return a layer's shift as :meth:`shift` does, with its errors, on one rank."""
        try:
            shift = self.update(layer, keys, residual)
        except ArithmeticError as error:
            raise DivergedError(f"in layer {layer.name}, {error}") from None
        if not shift.isfinite().all():
            raise DivergedError(f"the shift of layer {layer.name} is not finite")
        return shift

    def update(self, layer: EditedLayer, keys: Tensor, residual: Tensor) -> Tensor:
        """Return a layer's shift as :meth:`shift` does; raise ``ArithmeticError`` if the system is singular."""
        settings, remembered = self.settings, self.remembered.get(layer.name)
        if settings.update == "null_space":
            basis = self.basis(layer, keys.device)
            return null_space(keys, residual, basis, settings.null_space.regularisation, remembered)
        covariance, weight = self.key_covariance[layer.name], settings.covariance_weight
        if settings.update == "equality":
            return equality(keys, residual, covariance, weight, settings.ridge, remembered)
        return least_squares(keys, residual, covariance, weight, remembered)

    def basis(self, layer: EditedLayer, device: torch.device) -> Tensor:
        """Return AlphaEdit's directions for a layer, (d_in, r), which are computed once, on the device.

        Raises:
            UserError: if the threshold leaves none.
        """
        if layer.name not in self.bases:
            kept = self.settings.null_space
            covariance = self.key_covariance[layer.name].to(device)  # (d_in, d_in)
            basis = null_space_basis(covariance, kept.threshold, kept.share).cpu()  # (d_in, r)
            size, n_kept = basis.shape
            logger.info("Layer %s is edited in %d of the %d directions of its keys", layer.name, n_kept, size)
            if not n_kept:
                raise UserError(
                    f"Keys of layer {layer.name} have no direction whose eigenvalue is below {kept.threshold:g}; set a "
                    "larger memit.null_space.threshold, or a share."
                )
            self.bases[layer.name] = basis
        return self.bases[layer.name]

    def end_round(self, model: LanguageModel, edits: Sequence[Example]) -> None:
        """Add the keys of a round's edits, as the edited model has them, to C_p of each layer, if they are remembered.

        Raises:
            DivergedError: if a key is not finite.
        """
        if not self.settings.remember:
            return
        block, requests = Block.around(model, self.layers[-1].name), self.requests(model, edits)
        grams: dict[str, Tensor] = {}
        for layer in self.layers:
            keys, _ = self.observed(model, layer, block, requests)  # (m, d_in)
            check_finite("keys", keys, layer)
            k = keys.double()
            grams[layer.name] = (k.T @ k).cpu()  # (d_in, d_in)
        for name, gram in grams.items():
            self.remembered[name] = self.remembered[name] + gram if name in self.remembered else gram

    def memory(self) -> dict[str, Tensor]:
        """Return copies of each layer's C_p by name, (d_in, d_in), in float64; nothing before the first round."""
        return {name: matrix.clone() for name, matrix in self.remembered.items()}

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Remember what :meth:`memory` returned, and nothing else; raise ``ValueError`` if it is of other layers."""
        shapes = {layer.name: torch.Size((layer.shape[0], layer.shape[0])) for layer in self.layers}
        if memory and {name: matrix.shape for name, matrix in memory.items()} != shapes:
            raise ValueError("this memory is of other layers")
        self.remembered.clear()
        self.remembered.update({name: matrix.clone() for name, matrix in memory.items()})


def of_all(requests: Sequence[Request], work: Callable[[Sequence[Request]], Sequence[Tensor]]) -> Sequence[Tensor]:
    """Return what ``work`` returns of m requests, (m, ...) each, where every rank works on its share of them.

    An error of one rank's work that a user can act on is raised on all.
    """
    here = ranks()
    if here.alone:
        return work(requests)
    mine = here.share(requests)
    with here.together():
        found = work(mine or requests[:1])  # A rank without requests learns how wide the rows are.
    return [here.in_order(rows[: len(mine)]) for rows in found]


def check_finite(what: str, matrix: Tensor, layer: EditedLayer) -> None:
    """Raise :class:`DivergedError` unless the keys or hidden states at a layer, (m, d), are finite."""
    if not matrix.isfinite().all():
        raise DivergedError(f"the {what} at layer {layer.name} are not finite")


def report_guesses(edits: Sequence[Example], requests: Sequence[Request]) -> None:
    """Log how subjects were found that no tuple states; note and log those that are uncertain."""
    found = count_found([request.subject for request in requests])
    guessed = len(requests) - found["stated"]
    if not guessed:
        return
    uncertain = {
        edit.source: request.subject
        for edit, request in zip(edits, requests, strict=True)
        if edit.source and not request.subject.certain
    }
    logger.info(
        "MEMIT guessed the subjects of %d of %d edits, which state none: %d by name, %d by the words that prompts "
        "share; %d have no hint and are edited at the end. Uncertain guesses, which the job's record lists: %d",
        guessed,
        len(requests),
        found["name"],
        found["overlap"],
        found["nowhere"],
        len(uncertain),
    )
    for number, (item, subject) in enumerate(uncertain.items()):
        text = "" if subject.found == "nowhere" else item.edit.prompt[subject.start : subject.end]
        NOTES.uncertain_subjects[item.id] = text
        if number < SHOWN:
            logger.info("  %s: %r in %r", item.id, text, item.edit.prompt)


@torch.no_grad()
def observe(
    model: LanguageModel, layer: EditedLayer, block: Block, requests: Sequence[Request], settings: MemitSettings
) -> tuple[Tensor, Tensor]:
    """Return, at the subject's last token, a layer's keys and the hidden state after a block, as the model is now.

    Returns:
        The keys as averages over contexts, (m, d_in), and the state in the bare prompt, (m, d), in float32 (or 64).
    """
    keys, states = [], []
    for part in portions(requests, settings.batch_size):
        n_contexts = len(part[0].contexts)
        contexts = [(i, context.to_subject()) for i, request in enumerate(part) for context in request.contexts]
        passages = Passages.of(model, contexts)
        with recording([layer]) as seen, block.ending() as outputs:
            model.module.base_model(**passages.batch.inputs, use_cache=False)
        positions = Positions.all(layer.name, passages.batch)
        # (requests * contexts, d_in) -> (requests, contexts, d_in) -> (requests, d_in)
        in_contexts = positions.at_rows(seen[layer.name][0], passages.places).unflatten(0, (-1, n_contexts))
        keys.append(average(in_contexts, settings.key_weights))
        # The first context of each request is the bare prompt: (requests, d).
        bare = passages.places[::n_contexts]
        states.append(states_after(block, outputs[0], passages.batch, bare))
    return torch.cat(keys), torch.cat(states)


def average(keys: Tensor, weights: KeyWeights) -> Tensor:
    """Return the average of keys over contexts, (m, d_in).

    Args:
        keys: of the bare prompt, and then of the prompt behind each prefix, (m, contexts, d_in).
        weights: "equal", or "bare_half": one half for the bare prompt, the other for the mean of all others.
    """
    if weights == "equal" or keys.shape[1] == 1:
        return keys.mean(1)
    return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
