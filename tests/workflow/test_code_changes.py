"""Which jobs run again when code changes."""

import pytest
from workflow_project import Finished

TRAINING = {"pretrain_model", "finetune_model", "cache_base_outputs", "train_editor", "measure_memory"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("editing/layers.py", "a pattern must match the whole", "a pattern has to match the whole"),
        ("data/tuples.py", "does not exist; check the path", "is missing; check the path"),
        ("runtime/progress.py", '"%s: done in', '"%s: finished in'),
    ],
)
def test_a_reworded_message_re_runs_nothing(finished: Finished, file: str, old: str, new: str) -> None:
    with finished.changed(f"src/malmen/{file}", old, new):
        assert "Nothing to be done" in finished.plan().output


@pytest.mark.parametrize("file", ["memit/editor.py", "memit/targets.py", "finetuning.py"])
def test_a_change_of_another_method_trains_no_editor(finished: Finished, file: str) -> None:
    with finished.changed(f"src/malmen/editing/{file}", "\nimport torch\n", "\nimport torch\n\nCHANGED = True\n"):
        planned = finished.plan().jobs
    assert planned["evaluate_editor"] and not TRAINING & set(planned)
