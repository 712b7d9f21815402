"""A job as Snakemake hands it to a script, for tests of records."""

from collections.abc import Iterator, Mapping
from typing import Any

from malmen.provenance.recording import JobFiles


class Listed(list[str]):
    """Files in order, some of them by name."""

    def __init__(self, named: Mapping[str, str | list[str]]) -> None:
        super().__init__(f for value in named.values() for f in ([value] if isinstance(value, str) else value))
        self.named = named

    def items(self) -> Iterator[tuple[str, Any]]:
        yield from self.named.items()


class Job:
    """A job without Snakemake."""

    def __init__(
        self,
        rule: str,
        inputs: Mapping[str, str | list[str]],
        outputs: Mapping[str, str | list[str]],
        params: Mapping[str, Any],
        wildcards: Mapping[str, str],
    ) -> None:
        self.rule, self.params, self.wildcards = rule, params, wildcards
        self.input: JobFiles = Listed(inputs)
        self.output: JobFiles = Listed(outputs)
        self.log = ["job.log"]
        self.resources: Mapping[str, Any] = {}
