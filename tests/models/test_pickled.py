"""Converting pickled weights to safetensors: what comes out, what is refused, and how much memory it takes."""

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

from malmen.errors import UserError
from malmen.models import pickled
from malmen.models.identity import check_complete
from malmen.models.pickled import PickledWeights, convert
from malmen.runtime.files import sha256

FILE = "pytorch_model.bin"


def tiny_t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    sizes["tie_word_embeddings"] = False
    config = T5Config(vocab_size=100, feed_forward_proj="gated-gelu", **sizes)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


def known(path: Path, dtype: Any = "float32") -> PickledWeights:
    """Return what a configuration knows of a file."""
    return PickledWeights(path.name, path.stat().st_size, sha256(path), dtype)


def converted(folder: Path, source: Path, dtype: Any = "float32") -> Path:
    out = folder / "out"
    out.mkdir()
    convert(known(source, dtype), source, out, "lab/t5")
    return out


def refused(folder: Path, source: Path, **changes: Any) -> str:
    """Return the sentence of a refusal, which leaves nothing behind."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(UserError) as raised:
        convert(replace(known(source), **changes), source, out, "lab/t5")
    assert not list(out.iterdir()) and "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("shard", ["2GB", "20KB"])
def test_the_model_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool, shard: str) -> None:
    """T5's shared embeddings are one tensor under several names; the oldest pickles are no zip files."""
    monkeypatch.setattr(pickled, "SHARD", shard)
    model = tiny_t5()
    torch.save(model.state_dict(), tmp_path / FILE, _use_new_zipfile_serialization=zipped)
    out = converted(tmp_path, tmp_path / FILE)
    model.config.save_pretrained(out)
    check_complete(out, "lab/t5")
    assert (len(list(out.glob("*.safetensors"))) > 1) == (shard == "20KB")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(out, use_safetensors=True)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_real_numbers_alone_change_their_precision(tmp_path: Path) -> None:
    torch.save({"a": torch.full((3,), 1.001), "b": torch.ones(2, dtype=torch.bool)}, tmp_path / FILE)
    found = load_file(converted(tmp_path, tmp_path / FILE, "bfloat16") / "model.safetensors")
    assert torch.equal(found["a"], torch.full((3,), 1.001).bfloat16())
    assert found["b"].dtype == torch.bool


def test_two_conversions_give_the_same_bytes(tmp_path: Path) -> None:
    torch.save(tiny_t5().state_dict(), tmp_path / FILE)
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.append(converted(tmp_path / name, tmp_path / FILE, "bfloat16") / "model.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    torch.save({"a": Malicious(tmp_path / "ran")}, tmp_path / FILE, _use_new_zipfile_serialization=zipped)
    assert "more than tensors" in refused(tmp_path, tmp_path / FILE)
    (tmp_path / FILE).write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    assert "more than tensors" in refused(tmp_path, tmp_path / FILE)
    assert not (tmp_path / "ran").exists()


def test_another_or_a_truncated_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / FILE)
    whole = known(tmp_path / FILE)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
        assert "0" * 64 in refused(tmp_path, tmp_path / FILE, sha256="0" * 64)
        (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-10])
        sentence = refused(tmp_path, tmp_path / FILE, bytes=whole.bytes, sha256=whole.sha256)
        assert f"{whole.bytes - 10:,} bytes" in sentence
    assert "damaged" in refused(tmp_path, tmp_path / FILE)  # damaged when its digest was taken


@pytest.mark.parametrize(
    "content", [[torch.ones(3)], {"model": {"a": torch.ones(3)}}, {}, OrderedDict({1: torch.ones(3)})]
)
def test_what_is_no_mapping_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / FILE)
    assert "something else than a model's tensors by name" in refused(tmp_path, tmp_path / FILE)


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("a", torch.eye(3).to_sparse()),
        ("a", torch.empty(3, device="meta")),
        ("a", torch.ones(3, dtype=torch.complex64)),
        ("a", torch.ones(1).expand(10**13)),  # a few bytes in the file, 40 TB in memory
        ("__metadata__", torch.ones(3)),
    ],
)
def test_a_tensor_that_safetensors_cannot_keep_is_refused(tmp_path: Path, key: str, tensor: torch.Tensor) -> None:
    torch.save({"first": torch.ones(3), key: tensor}, tmp_path / FILE)
    assert f"holds {key!r}, which safetensors cannot keep" in refused(tmp_path, tmp_path / FILE)


@pytest.mark.parametrize("version", ["2.9.1", "2.9.1+cpu", "1.13.0"])
def test_an_unsafe_torch_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / FILE)
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was opened"))
    assert "CVE-2026-24747" in refused(tmp_path, tmp_path / FILE)


CONVERSION = """
import re, sys
from pathlib import Path
from malmen.models.pickled import PickledWeights, convert
from malmen.runtime.files import sha256
size, digest, source, out = sys.argv[1:]
def peak(): return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
convert(PickledWeights("pytorch_model.bin", int(size), digest, "bfloat16"), Path(source), Path(out), "lab/t5")
print(before, peak())
"""


@pytest.mark.slow
def test_the_peak_memory_of_a_large_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A random T5 of a third of a billion weights, 1.3 GB: one file of safetensors is in memory beside its pages."""
    sizes: dict[str, Any] = {"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 8, "num_heads": 16}
    with torch.device("meta"):
        shapes = T5ForConditionalGeneration(T5Config(feed_forward_proj="gated-gelu", **sizes)).state_dict()
    torch.save({name: torch.randn(tensor.shape) for name, tensor in shapes.items()}, tmp_path / FILE)
    weights = known(tmp_path / FILE)
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", CONVERSION, str(weights.bytes), weights.sha256, str(tmp_path / FILE)]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=True)
    before, peak = map(int, done.stdout.split())
    with capsys.disabled():
        print(f"pickle of {weights.bytes / 1e9:.2f} GB: peak {peak / 1e9:.2f} GB, {before / 1e9:.2f} GB before")
    written = sum(file.stat().st_size for file in (tmp_path / "out").glob("*.safetensors"))
    assert weights.bytes > 1e9 and written < 0.51 * weights.bytes
    assert before < 1e9 and peak - before < weights.bytes + written + 0.2e9
