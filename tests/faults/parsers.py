"""Everything that reads a file of data, and an example of what it reads."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from malmen.config import load_file, read_memit_settings
from malmen.data import authors, fever, mend, nq, zsre
from malmen.data.facts import read_facts, read_unrelated
from malmen.data.tuples import read_documents, read_pairs, read_tuples
from malmen.editing.editor import TrainedFor
from malmen.editing.statistics import CollectedFrom
from malmen.figures.ablation import _read_published
from malmen.figures.comparison import _published
from malmen.figures.compute import read_published
from malmen.figures.costs import hours
from malmen.figures.memory_points import read_memory
from malmen.figures.metrics import read_metrics
from malmen.figures.summary import read_claims

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Parser:
    """A parser.

    Attributes:
        name: of what it reads.
        read: reads a file.
        example: a file that it reads.
        records: whether a file is records, one a line or in a list, so that messages name one.
    """

    name: str
    read: Callable[[Path], Any]
    example: bytes
    records: bool = False


def lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def published(name: str) -> bytes:
    return (ROOT / "data" / "published" / name).read_bytes()


def authors_tuples(kind: Callable[[str, Any], Any]) -> Callable[[Path], Any]:
    return lambda path: authors.read_tuples(path, "train", None, kind)


PAIR = {"prompt": "Who?", "answer": "Ada"}
TUPLE = {"id": "1", "edit": PAIR, "equivalent": ["Who is it?"], "unrelated": PAIR, "subject": None}
CLAIM = {"id": 3, "label": "SUPPORTS", "claim": "Ada wrote.", "evidence": [[[1, 2, "Ada", 0]]]}
ZSRE = {"prompt": "Who?", "subject": "Ada", "ground_truth": ["x"], "rephrase_prompt": "Who is it?"}
AUTHORS_FEVER = {"prompt": "A", "equiv_prompt": ["B"], "unrel_prompt": "C", "alt": "REFUTES", "unrel_ans": "SUPPORTS"}
AUTHORS_ZSRE = {"src": "A?", "rephrase": "B?", "ans": "C", "loc": "d", "loc_ans": "E"}
MEND = {
    "src": "A?",
    "subject": "a",
    "answers": ["C"],
    "rephrase": "B?",
    "alt": "",
    "loc": "nq question: d",
    "loc_ans": "E",
}
METRICS = dict.fromkeys(("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement"), 0.5)
RUN = {"n_edits": 4, "seed": 0, "status": "ok", "reason": None, "groups": [METRICS]}
ABOUT = dict.fromkeys(("model", "model_label", "dataset", "editor", "editor_label"), "x")
POINT = {"computation": "loaded", "n_edits": 0, "status": "ok", "peak_bytes": 3, "seconds": 1.0}
MEMORY = {"model": "x", "model_label": "X", "device": "cpu", "limit_bytes": None, "points": [POINT, POINT]}
COST = {"run": {"n_edits": 4, "seed": 0}, "seconds": 1.0, "peak_bytes": 3}

PARSERS = [
    Parser("tuples", read_tuples, lines(TUPLE, TUPLE | {"id": "2"}), records=True),
    Parser("what a model is taught", read_pairs, lines(PAIR, PAIR), records=True),
    Parser("text", read_documents, b"A line.\nIts neighbour.\n\nAnother.\n"),
    Parser("facts", read_facts, lines(PAIR | {"rephrasings": ["Who is it?"], "subject": "Who"}), records=True),
    Parser("unrelated questions", read_unrelated, lines(PAIR), records=True),
    Parser("FEVER", fever.read_claims, lines(CLAIM, CLAIM), records=True),
    Parser("NQ-open", nq.read_questions, lines({"question": "who", "answer": ["me"]}), records=True),
    Parser("KnowEdit's zsRE", zsre.read_questions, json.dumps([ZSRE]).encode(), records=True),
    Parser(
        "the authors' FEVER", authors_tuples(authors.fever_tuple), json.dumps([AUTHORS_FEVER]).encode(), records=True
    ),
    Parser("the authors' zsRE", authors_tuples(authors.zsre_tuple), json.dumps([AUTHORS_ZSRE]).encode(), records=True),
    Parser("MEND's zsRE", authors_tuples(mend.fact), json.dumps([MEND]).encode(), records=True),
    Parser("a configuration", load_file, (ROOT / "config" / "test.yaml").read_bytes()),
    Parser("MEMIT's settings", read_memit_settings, yaml.safe_dump({"steps": 3}).encode()),
    Parser("metrics", lambda path: read_metrics([path]), json.dumps(ABOUT | {"runs": [RUN]}).encode()),
    Parser("costs", lambda path: hours([path]), json.dumps([COST]).encode()),
    Parser("memory", read_memory, json.dumps(MEMORY).encode()),
    Parser("published ablations", _read_published, published("table1.csv")),
    Parser("published comparisons", _published, published("table3.csv")),
    Parser("published times", read_published, published("compute.csv")),
    Parser("claims", read_claims, published("claims.yaml")),
    Parser("an editor", TrainedFor.read, b""),
    Parser("second moments", CollectedFrom.read, b""),
]
"""Those with an empty example read binary files, of which others make examples."""
