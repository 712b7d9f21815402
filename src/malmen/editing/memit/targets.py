"""First step of MEMIT: the hidden state, at the subject's last token, that makes the model give the new answer.

For each edit, Adam optimises a vector delta, which is added to the hidden state h after the last edited block at the
subject's last token in every context. The loss is

    -log p(answer), mean over contexts and answer tokens  +  a KL(after || before) on "{subject} is a"
    +  b ||delta||^2 / ||h||^2                                           subject to ||delta|| <= c ||h||.

Edits are independent, so many are optimised at once; each stops on its own when its loss is small enough. A delta
changes nothing before its position and nothing up to its block: these run once, and each step starts after both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from malmen.config.memit import MemitSettings
from malmen.editing.blocks import Block, hidden_state, states_after
from malmen.editing.memit.requests import Passage, Request
from malmen.errors import DivergedError
from malmen.models.language_model import Batch, LanguageModel
from malmen.runtime.progress import progress


@dataclass(frozen=True)
class Passages:
    """Passages of several requests in one batch.

    Attributes:
        batch: the encoded passages.
        places: index of the last token of each passage's subject among the B*T positions, (B,).
        owners: index of the request to which each passage belongs, (B,).
    """

    batch: Batch
    places: Tensor
    owners: Tensor

    def from_subjects_on(self, model: LanguageModel) -> "Passages":
        """Return the passages from the subjects' last tokens on, which are then first, after what precedes them ran."""
        length = self.batch.inputs["input_ids"].shape[1]
        batch = model.after(self.batch, self.places % length)
        if batch is self.batch:
            return self
        left = batch.inputs["input_ids"].shape[1]
        return Passages(batch, self.places // length * left, self.owners)

    @classmethod
    def of(cls, model: LanguageModel, passages: Sequence[tuple[int, Passage]]) -> "Passages":
        """Collate passages, each given with the index of its request."""
        batch = model.collate([passage.example for _, passage in passages], range(len(passages)))
        length = batch.inputs["input_ids"].shape[1]
        places = [number * length + passage.position for number, (_, passage) in enumerate(passages)]
        owners = [owner for owner, _ in passages]
        return cls(batch, torch.tensor(places, device=model.device), torch.tensor(owners, device=model.device))


def optimise_targets(
    model: LanguageModel, block: Block, requests: Sequence[Request], settings: MemitSettings
) -> Tensor:
    """Return h + delta for each request's bare prompt, (m, d), in float32 (or 64).

    Args:
        model: the language model, unedited.
        block: the last edited block.
        requests: the edits.
        settings: how they are optimised; ``batch_size`` of them at once.

    Raises:
        DivergedError: if a loss is not finite.
    """
    what, found, n_done = "MEMIT's hidden states", list[Tensor](), 0
    for part in progress(portions(requests, settings.batch_size), len(requests), what, weight=len, brief=True):
        which = f"{what} of edits {n_done + 1} to {n_done + len(part)} of {len(requests)}"
        found.append(TargetSearch(model, block, part, settings).run(which))
        n_done += len(part)
    return torch.cat(found)


def portions(requests: Sequence[Request], size: int) -> list[Sequence[Request]]:
    """Return the requests in their order, at most ``size`` at a time."""
    return [requests[start : start + size] for start in range(0, len(requests), size)]


class TargetSearch:
    """The optimisation for n requests (see the module's description).

    Attributes:
        passages: all contexts of all requests, then their essences, each from its subject on.
        n_context_rows: number of answer rows that belong to contexts; those of the essences follow.
        before: the unedited model's logits in the essences' answer rows, (R - n_context_rows, C).
        output: the block's output without a delta; its hidden state is (B, T, d).
        state: h, the hidden state at the subject in each request's bare prompt, (n, d).
    """

    def __init__(
        self, model: LanguageModel, block: Block, requests: Sequence[Request], settings: MemitSettings
    ) -> None:
        contexts = [(owner, context) for owner, request in enumerate(requests) for context in request.contexts]
        essences = [(owner, request.essence) for owner, request in enumerate(requests) if request.essence]
        self.model, self.block, self.settings = model, block, settings
        self.passages = Passages.of(model, [*contexts, *essences]).from_subjects_on(model)
        self.n_context_rows = sum(len(context.example.targets) for _, context in contexts)
        with torch.no_grad(), block.recording() as outputs:
            whole = replace(self.passages.batch, everywhere=True)
            self.before = model.answer_logits(whole)[self.n_context_rows :]
        (self.output,) = outputs
        bare = self.passages.places[: len(contexts) : len(requests[0].contexts)]
        self.state = states_after(block, self.output, self.passages.batch, bare)

    def run(self, what: str) -> Tensor:
        """Return h + delta, (n, d); ``what`` is what the search is called where its progress is told.

        Raises:
            DivergedError: if a loss is not finite.
        """
        delta = torch.zeros_like(self.state, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=self.settings.learning_rate)
        searching = torch.ones(len(delta), dtype=torch.bool, device=delta.device)
        steps = self.settings.steps
        for _ in progress(range(steps), steps, what, unit="steps at most", brief=True):
            losses = self.losses(delta)  # (n,)
            if not losses.isfinite().all():
                raise DivergedError("the loss of MEMIT's search for a hidden state is not finite")
            searching &= losses.detach() >= self.settings.stop_loss
            if not searching.any():
                break
            (delta.grad,) = torch.autograd.grad(losses.sum(), [delta])
            stopped = delta.detach().clone()
            optimiser.step()
            with torch.no_grad():
                delta.copy_(torch.where(searching.unsqueeze(1), self.project(delta), stopped))
        return self.state + delta.detach()

    def project(self, delta: Tensor) -> Tensor:
        """Shorten each delta, (n, d), that is longer than the allowed share of its h."""
        longest = self.settings.max_relative_norm * self.state.norm(dim=1, keepdim=True)  # (n, 1)
        factors: Tensor = (longest / delta.norm(dim=1, keepdim=True)).clamp(max=1)
        return factors * delta

    def losses(self, delta: Tensor) -> Tensor:
        """Return the loss of each request, (n,), given its delta, (n, d)."""
        task, batch, n = self.model.task, self.passages.batch, self.n_context_rows
        with torch.enable_grad(), self.block.resuming(self.output, lambda: self.moved(delta)):
            logits = self.model.answer_logits(batch)  # (R, C)
        likelihood = task.negative_log_likelihood(logits[:n], batch.targets[:n])  # of contexts, by answer row
        change = task.divergence(logits[n:], self.before)  # of essences, by answer row
        relative = delta.square().sum(1) / self.state.square().sum(1)  # ||delta||^2 / ||h||^2, by request
        owners = self.passages.owners[batch.examples]  # (R,): the request of each answer row
        losses: Tensor = self.settings.weight_decay * relative
        losses = losses.index_add(0, owners[:n], batch.weights[:n].to(likelihood.dtype) * likelihood)
        return losses.index_add(0, owners[n:], self.settings.kl_coefficient * change)

    def moved(self, delta: Tensor) -> Tensor:
        """Return the hidden state after the block with each request's delta at its subjects, (B, T, d)."""
        state = hidden_state(self.output)  # (B, T, d)
        added = delta[self.passages.owners].to(state.dtype)  # (B, d)
        every = state.reshape(-1, state.shape[-1])  # (B*T, d)
        return every.index_add(0, self.passages.places, added).view_as(state)
