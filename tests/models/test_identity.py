"""Which weights lie in a directory, and in which precision."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from malmen.config.base import Dtype
from malmen.errors import UserError
from malmen.models.identity import (
    check_weights,
    dtype_for_editing,
    stored_precision,
    surroundings_digest,
    weights_digest,
)


def test_one_file_is_known_by_its_own_digest(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    assert weights_digest(tmp_path) == hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()


def test_each_of_several_files_counts(tmp_path: Path) -> None:
    def index(*names: str) -> None:
        placed = {"weight_map": {name: f"{name}.safetensors" for name in names}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(placed), encoding="utf-8")

    for name in "ab":
        save_file({name: torch.ones(3)}, tmp_path / f"{name}.safetensors")
    index("a", "b")
    before = weights_digest(tmp_path)
    assert before == weights_digest(tmp_path)
    save_file({"b": torch.zeros(3)}, tmp_path / "b.safetensors")
    changed = weights_digest(tmp_path)
    (tmp_path / "b.safetensors").rename(tmp_path / "c.safetensors")
    index("a", "c")
    assert len({before, changed, weights_digest(tmp_path)}) == 3


def test_configuration_and_tokenizer_count_beside_the_weights(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    for name in ("config.json", "vocab.txt", ".snakemake_timestamp"):
        (tmp_path / name).write_text("1", encoding="utf-8")
    before, weights = surroundings_digest(tmp_path), weights_digest(tmp_path)
    save_file({"w": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / ".snakemake_timestamp").write_text("2", encoding="utf-8")
    assert surroundings_digest(tmp_path) == before and weights_digest(tmp_path) != weights
    (tmp_path / "vocab.txt").write_text("2", encoding="utf-8")
    assert surroundings_digest(tmp_path) != before


@pytest.mark.parametrize(
    "stored, name, edited",
    [("float32", "F32", "float32"), ("bfloat16", "BF16", "bfloat16"), ("float16", "F16", "float32")],
)
def test_a_model_is_edited_in_the_precision_of_most_tensors_but_not_in_float16(
    tmp_path: Path, stored: str, name: str, edited: Dtype
) -> None:
    weights = {name: torch.ones(2, dtype=getattr(torch, stored)) for name in "ab"}
    save_file({**weights, "mask": torch.ones(2, dtype=torch.uint8)}, tmp_path / "model.safetensors")
    assert stored_precision(tmp_path) == name
    assert dtype_for_editing(tmp_path) == edited
    assert dtype_for_editing(tmp_path, "bfloat16") == "bfloat16"


def test_what_cannot_be_edited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no safetensors"):
        weights_digest(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_text("text", encoding="utf-8")
    with pytest.raises(UserError, match=r"model\.safetensors is truncated"):
        stored_precision(tmp_path)
    save_file({"w": torch.ones(3, dtype=torch.float64)}, path)
    with pytest.raises(UserError, match=r"are F64.* float32 or bfloat16 .*--dtype"):
        dtype_for_editing(tmp_path)
    assert dtype_for_editing(tmp_path, "float32") == "float32"


def test_weights_are_compared_with_the_digest_asked_for(tmp_path: Path) -> None:
    save_file({"w": torch.ones(3)}, tmp_path / "model.safetensors")
    digest = weights_digest(tmp_path)
    assert check_weights(tmp_path, None, "it") == check_weights(tmp_path, digest, "it") == digest
    with pytest.raises(UserError, match=f"^The weights of it have SHA-256 {digest}, but .* asks for {'0' * 64}; "):
        check_weights(tmp_path, "0" * 64, "it")
