"""Feed parsers with inputs that reach ever more of their code: ``python fuzz_parsers.py [libFuzzer's options]``.

Anything but content or one sentence that names the file ends the run with the input that caused it.
"""

import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["malmen"]):
    from parsers import PARSERS

from malmen.errors import UserError

logging.disable()
MOST_BYTES = 2000
CHOSEN = [parser for parser in PARSERS if 0 < len(parser.example) < MOST_BYTES]
FOLDER = Path(tempfile.mkdtemp(dir="."))


def one_input(data: bytes) -> None:
    """Let the parser that the first byte chooses read the rest."""
    if not data:
        return
    parser = CHOSEN[data[0] % len(CHOSEN)]
    path = FOLDER / parser.file
    path.write_bytes(data[1:])
    try:
        parser.read(path)
    except UserError as error:
        assert str(error).endswith(".") and str(path) in str(error), error


def write_examples(folder: Path) -> Path:
    """Write what to begin with: an example of each parser's input."""
    folder.mkdir()
    for number, parser in enumerate(CHOSEN):
        (folder / str(number)).write_bytes(bytes([number]) + parser.example)
    return folder


if __name__ == "__main__":
    examples = write_examples(FOLDER / "examples")
    options = ["-rss_limit_mb=0", "-verbosity=0", f"-max_len={MOST_BYTES}"]
    atheris.Setup([*sys.argv, *options, str(examples)], one_input)
    atheris.Fuzz()
