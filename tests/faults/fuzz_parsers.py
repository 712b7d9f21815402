"""Feed parsers with inputs that reach ever more of their code: ``python fuzz_parsers.py [libFuzzer's options]``.

Anything but content or one sentence ends the run with the input that caused it. Needs the package ``atheris``, which is
no part of the environment.
"""

import logging
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["malmen.data", "malmen.config", "malmen.figures"]):
    from parsers import PARSERS

from malmen.errors import UserError

logging.disable()
CHOSEN = [parser for parser in PARSERS if parser.records]
FILE = Path(tempfile.mkdtemp()) / "file"


def one_input(data: bytes) -> None:
    """Let the parser that the first byte chooses read the rest."""
    if not data:
        return
    FILE.write_bytes(data[1:])
    try:
        CHOSEN[data[0] % len(CHOSEN)].read(FILE)
    except UserError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Begin with an example of each parser, then change bytes."""
    rng = random.Random(seed)
    number = rng.randrange(len(CHOSEN))
    if len(data) < 2:
        return bytes([number]) + CHOSEN[number].example[: max_size - 1]
    changed: bytes = atheris.Mutate(data, max_size)
    return changed


if __name__ == "__main__":
    atheris.Setup([*sys.argv, "-rss_limit_mb=0", "-verbosity=0", "-max_len=2000"], one_input, custom_mutator=mutated)
    atheris.Fuzz()
