"""The scientific outcome: which of the paper's claims must hold in the demo.

Run by `make outcome`, which first runs the demo (some 20 minutes on two cores); continuous integration leaves it out.
The claims below hold with a margin that the differences between processors do not reach.
"""

from pathlib import Path

import pandas as pd
import pytest

from malmen.audit.code_check import trail_of_code

SUMMARY = Path(__file__).parents[2] / "results" / "demo" / "summary.csv"
MUST_HOLD = {
    "strongest_scalability": ("BERT", "GPT-2", "T5", "BART"),
    "mend_falls_faster": ("BERT", "GPT-2", "T5", "GPT-J", "BART"),
    "above_memit": ("GPT-2", "GPT-J"),
    "least_squares_over_sum": ("BERT", "GPT-2", "T5", "GPT-J", "BART"),
    "regularisation_needed": ("BERT", "GPT-2"),
    "second_layer": ("BERT", "GPT-2"),
    "residual_grows": ("GPT-2", "T5", "GPT-J", "BART"),
    "memory_grows_slowly": ("GPT-2",),
}
"""Models by the claim of ``data/published/claims.yaml`` that must hold on them."""

pytestmark = pytest.mark.outcome


def test_the_results_are_those_of_this_code() -> None:
    code = trail_of_code("demo", SUMMARY.parents[2]).code
    changed = {file for one in code.values() for file in one.changed}
    assert code and not changed, "remove results/demo, and run `make outcome` again"


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], tuple[str, str]]:
    """The verdict and what was measured, by claim and model."""
    found = pd.read_csv(SUMMARY).fillna("")
    columns = (found[name].astype(str) for name in ("id", "model", "verdict", "measured"))
    return {(claim, model): (verdict, measured) for claim, model, verdict, measured in zip(*columns, strict=True)}


@pytest.mark.parametrize(
    ("claim", "model"), [(claim, model) for claim, models in MUST_HOLD.items() for model in models]
)
def test_a_claim_holds(verdicts: dict[tuple[str, str], tuple[str, str]], claim: str, model: str) -> None:
    verdict, measured = verdicts[claim, f"{model} (tiny)"]
    assert verdict == "holds", measured
