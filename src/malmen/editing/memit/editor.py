"""MEMIT (Meng et al., ICLR 2023), the locate-then-edit method that the paper compares with on GPT-J.

It needs no training. For each edit it finds the hidden state after the last edited block that makes the model give the
new answer (:mod:`malmen.editing.memit.targets`), and then spreads the change over the edited layers. With the keys K,
(m, d_in), at the subjects, the missing change R, (m, d_out), and C = E[k k^T], (d_in, d_in), of a layer's keys on
ordinary text,

    S = argmin ||K S - R||^2 + w tr(S^T C S) = (w C + K^T K)^-1 K^T R.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

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
from malmen.errors import DivergedError, UserError
from malmen.models.language_model import Example, LanguageModel
from malmen.runtime.noted import NOTES
from malmen.runtime.progress import logger, progress

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
    """

    layers: Sequence[EditedLayer]
    settings: MemitSettings
    key_covariance: Mapping[str, Tensor]
    seed: int

    def shifts(self, model: LanguageModel, edits: Sequence[Example]) -> dict[str, Tensor]:
        """Return by layer its shift, (d_in, d_out), in float32 (or 64); the model stays as it is.

        Args:
            model: the language model, unedited.
            edits: encoded by :func:`malmen.editing.training.encode_edits`.

        Raises:
            DivergedError: if a system is singular, or a shift is not finite.
            UserError: if the layers do not write to a hidden state that can be replaced.
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
        targets = optimise_targets(model, block, requests, self.settings)  # (m, d_out)
        shifts: dict[str, Tensor] = {}
        with ExitStack() as edited:
            for number, layer in enumerate(progress(self.layers, len(self.layers), "MEMIT's layers", brief=True)):
                keys, state = observe(model, layer, block, requests, self.settings)
                residual = (targets - state) / (len(self.layers) - number)  # (m, d_out)
                shifts[layer.name] = self.shift(layer, keys, residual)
                edited.enter_context(PostEditWeights([layer], shifts).applied())
        return shifts

    def requests(self, model: LanguageModel, edits: Sequence[Example]) -> list[Request]:
        """Put all edits into the same contexts; log and note the subjects that had to be guessed."""
        settings = self.settings
        prefixes = sample_prefixes(model, settings.prefix_starts, settings.prefix_tokens, settings.top_k, self.seed)
        requests = [make_request(model, edit, prefixes) for edit in edits]
        report_guesses(edits, requests)
        return requests

    def shift(self, layer: EditedLayer, keys: Tensor, residual: Tensor) -> Tensor:
        """Return one layer's shift, (d_in, d_out), for its keys, (m, d_in), and the missing change, (m, d_out).

        Raises:
            DivergedError: if the system is singular, or something is not finite.
        """
        for what, matrix in (("keys", keys), ("hidden states", residual)):
            if not matrix.isfinite().all():
                raise DivergedError(f"the {what} at layer {layer.name} are not finite")
        try:
            shift = solve(keys, residual, self.key_covariance[layer.name], self.settings.covariance_weight)
        except ArithmeticError as error:
            raise DivergedError(f"in layer {layer.name}, {error}") from None
        if not shift.isfinite().all():
            raise DivergedError(f"the shift of layer {layer.name} is not finite")
        return shift


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


def solve(keys: Tensor, residual: Tensor, covariance: Tensor, weight: float) -> Tensor:
    """Return S = (w C + K^T K)^-1 K^T R, (d_in, d_out), in R's precision.

    Computed in float64: a few directions hold nearly all of C, so that the system is badly conditioned.

    Args:
        keys: K, (m, d_in).
        residual: R, (m, d_out).
        covariance: C, (d_in, d_in).
        weight: w.

    Raises:
        ArithmeticError: if the system is not positive definite.
    """
    k = keys.double()  # (m, d_in)
    system = k.T @ k + weight * covariance.to(k)  # (d_in, d_in)
    factor, failed_at = torch.linalg.cholesky_ex(system)
    if failed_at.item():
        raise ArithmeticError("the keys' covariance is singular; collect it from more tokens")
    return torch.cholesky_solve(k.T @ residual.to(k), factor).to(residual.dtype)


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
