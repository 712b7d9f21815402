"""Resources that the workflow's rules ask for: GPUs, main memory and time, by the plan's costs of their jobs."""

from collections.abc import Callable
from typing import Any

from malmen.config.configuration import Config
from malmen.plan.estimate import Job, Plan, requested
from malmen.workflow.layout import ModelWildcards, numbers

Request = Callable[[Any, int], int]
"""What a job asks for, by its wildcards and the number of the attempt."""


class Requests:
    """What rules ask Snakemake, or a cluster, for.

    Args:
        config: the configuration.
        plan: the costs of its jobs.
    """

    def __init__(self, config: Config, plan: Plan) -> None:
        self.config = config
        self.jobs: dict[str, Callable[[Any], Job]] = {
            "pretrain_model": lambda asked: plan.pretraining_job(asked.model),
            "finetune_model": lambda asked: plan.teaching_job(asked.model),
            "cache_base_outputs": lambda asked: plan.cache_job(asked.model, asked.editor, asked.split),
            "collect_covariance": lambda asked: plan.statistics_job(asked.model, asked.editor),
            "train_editor": lambda asked: plan.training_job(
                asked.model, asked.editor, numbers(asked.n_edits), len(numbers(asked.seeds))
            ),
            "evaluate_editor": lambda asked: plan.evaluation_job(
                asked.model, asked.editor, numbers(asked.n_edits), len(numbers(asked.seeds))
            ),
            "list_failures": lambda asked: plan.failures_job(asked.model, asked.editor, int(asked.n_edits)),
            "measure_memory": lambda _: plan.memory_job(),
            "back_translate": lambda asked: plan.translation_job(asked.corpus),
            "filter_rephrasings": lambda asked: plan.filtering_job(asked.corpus),
        }

    def gpus(self, model: str) -> int:
        """Return how many GPUs a job with a model asks for: none on a CPU, where jobs run side by side."""
        return self.config.models[model].gpus if self.config.device == "cuda" else 0

    def of(self, rule: str) -> dict[str, Request]:
        """Return the resources of a rule whose jobs run a model; a later attempt asks for more."""

        def resource(kind: str) -> Request:
            return lambda wildcards, attempt: requested(lambda: self.jobs[rule](wildcards), attempt)[kind]

        return {kind: resource(kind) for kind in ("mem_mb", "runtime", "gpu_mem_mb")}

    def gpus_of(self, wildcards: ModelWildcards) -> int:
        """Return how many GPUs a job asks for, by its wildcards."""
        return self.gpus(wildcards.model)
