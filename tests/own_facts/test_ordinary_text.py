"""Texts on which perplexity is measured."""

from pathlib import Path

import pytest

from malmen.errors import UserError
from malmen.own_facts.ordinary_text import BUILT_IN, OrdinaryText


def test_the_built_in_text_is_the_one_whose_digest_is_reported() -> None:
    text = OrdinaryText.read()
    assert text.file is None and len(text.text.split()) > 1500
    assert text.sha256 == "e896e6cf1c3806f61ef62350e29e8581db5672e0241ec9f3d7a7286c81871068"
    assert BUILT_IN.suffix == ".txt"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"word"])
def test_a_text_that_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"text\.txt"):
        OrdinaryText.read(path)
