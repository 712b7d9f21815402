"""Resources that the workflow's rules ask for: GPUs, main memory and time, by the costs of their jobs."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from malmen.errors import UserError
from malmen.plan.estimate import COSTS, Estimate, Known
from malmen.workflow.layout import ModelWildcards

START_MINUTES = 15
"""Time that a cluster's job asks for before its work begins: to start, and to load a model from a busy disk."""
NODES = 1
"""Nodes of a cluster on which a job lies. SLURM's plugin asks for the GPUs of a job together (--gpus), and without a
number of nodes they could lie on several."""
UNKNOWN_REQUEST = {"mem_mb": 32_000, "runtime": 12 * 60, "gpu_mem_mb": 0, "nodes": NODES}
"""What a cluster's job asks for if the size of its model or data set is not known."""

Request = Callable[[Any, int], int]
"""What a job asks for, by its wildcards and the number of the attempt."""


class Requests:
    """What rules ask Snakemake, or a cluster, for.

    Args:
        known: what is known of the configuration.
    """

    def __init__(self, known: Known) -> None:
        self.known, self.config = known, known.config

    def gpus(self, model: str) -> int:
        """Return how many GPUs a job of one process asks for: none on a CPU, where jobs run side by side."""
        return self.config.gpus_of_a_process(model)

    def gpus_of(self, wildcards: ModelWildcards) -> int:
        """Return how many GPUs a job of one process asks for, by its wildcards."""
        return self.gpus(wildcards.model)

    def gpus_of_ranks(self, wildcards: ModelWildcards) -> int:
        """Return how many GPUs a job that ranks share asks for."""
        return self.config.ranks(wildcards.model) * self.gpus(wildcards.model)

    def threads_of_ranks(self, wildcards: ModelWildcards) -> int:
        """Return how many threads a job that ranks share asks for, on a GPU, too: there each rank has its own loop."""
        return self.config.ranks(wildcards.model) * self.config.threads

    def of(self, rule: str) -> dict[str, Request]:
        """Return the resources of a rule whose jobs run a model; raise ``KeyError`` if the rule's cost is not known."""
        cost = COSTS[rule]

        def resource(kind: str) -> Request:
            return lambda wildcards, attempt: self.asked(cost, dict(wildcards.items()), attempt)[kind]

        return {kind: resource(kind) for kind in UNKNOWN_REQUEST}

    def asked(
        self, cost: Callable[[Known, Mapping[str, str]], Estimate], wildcards: Mapping[str, str], attempt: int
    ) -> dict[str, int]:
        """Return what a job asks a cluster for: the shortest estimated time at first, then more, and more main memory.

        Args:
            cost: the cost of its rule's jobs.
            wildcards: the job's.
            attempt: counted from 1.

        Returns:
            ``mem_mb``, ``runtime`` in minutes, ``gpu_mem_mb`` of all GPUs together, and ``nodes``.
        """
        try:
            job = cost(self.known, wildcards)
        except UserError:
            return UNKNOWN_REQUEST
        seconds = attempt * job.time.low if job.time else 0.0
        return {
            "mem_mb": math.ceil(job.needs.memory * (1 + attempt) / 2 / 1e6),
            "runtime": math.ceil(START_MINUTES + seconds / 60),
            "gpu_mem_mb": math.ceil(job.gpus * job.needs.least / 1e6),
            "nodes": NODES,
        }
