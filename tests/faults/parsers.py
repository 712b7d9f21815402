"""Everything that reads a file of data, and an example of what it reads."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from data_and_models import read_attribution

from malmen.config.load import load_file, read_memit_settings
from malmen.config.model_registry import read_registry
from malmen.config.upstream_files import read_upstream_files
from malmen.data import authors, counterfact, fever, kilt, mend, nq, rebuild, wikibigedit, zsre
from malmen.data.reports import read_report
from malmen.data.training_tuples import read_training_tuples
from malmen.data.tuples import read_documents, read_pairs, read_tuples
from malmen.editing.editor_file import TrainedFor
from malmen.editing.memit.covariance import CollectedFrom
from malmen.errors import UserError
from malmen.figures import ablation, comparison, compute
from malmen.figures.costs import hours
from malmen.figures.metrics import read_metrics
from malmen.figures.published import read_published
from malmen.figures.summary import read_claims
from malmen.jobs.collect_covariance import lines_of
from malmen.own_facts.delta import Delta
from malmen.own_facts.facts import read_facts, read_unrelated
from malmen.provenance.records import (
    Artefact,
    Circumstances,
    Environment,
    Record,
    read_environment,
    read_record,
    to_json,
)
from malmen.results.memory import MemoryFile
from malmen.results.sources import SourcesFile
from malmen.results.training import TrainingFile
from malmen.sharing.publish import check_secrets

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Parser:
    """A parser.

    Attributes:
        name: of what it reads.
        read: reads a file.
        example: a file that it reads.
        records: whether a file is records, one a line or in a list, so that messages name one.
        file: name of a file.
    """

    name: str
    read: Callable[[Path], Any]
    example: bytes
    records: bool = False
    file: str = "file"


def lines(*records: dict[str, Any]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def published(name: str) -> bytes:
    return (ROOT / "data" / "published" / name).read_bytes()


def authors_tuples(kind: Callable[[str, Any], Any]) -> Callable[[Path], Any]:
    return lambda path: authors.read_tuples(path, "train", None, kind)


def models_registry(path: Path) -> None:
    """Read the registry of models, whose errors are part of messages about configurations."""
    try:
        read_registry(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None


PAIR = {"prompt": "Who?", "answer": "Ada"}
TUPLE = {"id": "1", "edit": PAIR, "equivalent": ["Who is it?"], "unrelated": PAIR, "subject": None}
CLAIM = {"id": 3, "label": "SUPPORTS", "claim": "Ada wrote.", "evidence": [[[1, 2, "Ada", 0]]]}
ZSRE = {"prompt": "Who?", "subject": "Ada", "ground_truth": ["x"], "rephrase_prompt": "Who is it?"}
COUNTERFACT = {
    "case_id": 3,
    "prompt": "Ada writes in",
    "target_new": "French",
    "subject": "Ada",
    "ground_truth": "English",
    "rephrase_prompt": "The language of Ada is",
    "locality_prompt": "Bo writes in",
    "locality_ground_truth": "English",
}
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
KNOWEDIT = ZSRE | {
    "target_new": "y",
    "locality": {"Relation_Specificity": [{"prompt": "Where?", "ground_truth": ["Cor"]}]},
    "portability": {},
}
REQUEST = {"prompt": "{} is", "subject": "Ada", "target_new": {"str": "x"}, "target_true": {"str": "y"}}
REWRITE = {"requested_rewrite": REQUEST, "paraphrase_prompts": ["Ada was"], "neighborhood_prompts": ["Bo is"]}
ROME = REWRITE | {"case_id": 3}
WIKIBIGEDIT = {"update": "Who?", "ans": "Ada", "rephrase": "Who is it?", "loc": "Where?", "loc_ans": "Rome"}
METRICS = dict.fromkeys(("ES", "GS", "LS", "pre_ES", "pre_GS", "pre_LS", "agreement"), 0.5)
RUN = {"n_edits": 4, "seed": 0, "status": "ok", "reason": None, "groups": [METRICS]}
ABOUT = dict.fromkeys(("model", "model_label", "dataset", "editor", "editor_label"), "x")
POINT = {"computation": "loaded", "n_edits": 0, "status": "ok", "peak_bytes": 3, "seconds": 1.0}
MEMORY = {"model": "x", "model_label": "X", "device": "cpu", "limit_bytes": None, "points": [POINT, POINT]}
COST = {"run": {"n_edits": 4, "seed": 0}, "seconds": 1.0, "peak_bytes": 3}
KILT = {"id": 3, "input": "Ada wrote.", "output": [{"answer": "SUPPORTS", "provenance": [{"title": "Ada"}]}]}
TEMPLATES = {"template_questions": ["Who is Ada?", "Who was Ada?"]}
KILT_ZSRE = {"input": "Ada [SEP] occupation", "output": [{"answer": "writer"}], "meta": TEMPLATES}
ORIGINAL = {"id": "1", "prompt": "Who?", "answer": "Ada", "subject": None, "relation": "who", "validation": True}
REPORT = {"step": "select", "unit": "prompts", "read": 3, "dropped": {"repeated": 1}, "kept": 2}
SHOWN = {
    "of": {"editor": "mend", "n_edits": 8},
    "values": {"ES": {"mean": 0.5}},
    "how": "read",
    "from": {"a": [[8, 0]]},
}
SOURCES = {"result": "figure5", "files": {"a": "0" * 64}, "numbers": [SHOWN]}
UPSTREAM = {"urls": ["https://host/x"], "sha256": "0" * 64, "licence": "CC0", "citations": ["ada"], "bytes": 3}
WORK = {"licence": "MIT", "citations": ["ada"]}
ATTRIBUTION = {
    "citations": {"ada": "Ada: Notes."},
    "models": {"a": WORK | {"parameters": 3}},
    "streamed": {"w": WORK},
}
REGISTRY = {"tiny": {"pretrained": "tiny", "ffn": {"first": ["a"], "second": ["b"]}}}
ENVIRONMENT = Environment(python="3", platform="Linux", processor="x", cores=2, gpu=None, packages={"torch": "2"})
RECORD = Record(
    rule="write",
    wildcards={},
    settings={"seed": 1},
    seeds={"seed": 1},
    determinism=None,
    code={"malmen.runtime.files": "0"},
    script="script.py",
    model=None,
    upstream=None,
    inputs=[],
    outputs=[Artefact(path="results/p/a", sha256="0" * 64, bytes=3, files=None, measurements=[])],
    input_names={},
    output_names={},
    circumstances=Circumstances(
        started="2024-01-01T00:00:00+00:00",
        seconds=1,
        cpu_seconds=1,
        recording_seconds=1,
        peak_bytes=1,
        gpu_peak_bytes=None,
        commit=None,
        uncommitted=[],
        environment=ENVIRONMENT.digest,
    ),
).sealed()

PARSERS = [
    Parser("tuples", read_tuples, lines(TUPLE, TUPLE | {"id": "2"}), records=True),
    Parser("what a model is taught", read_pairs, lines(PAIR, PAIR), records=True),
    Parser("text", read_documents, b"A line.\nIts neighbour.\n\nAnother.\n"),
    Parser("facts", read_facts, lines(PAIR | {"rephrasings": ["Who is it?"], "subject": "Who"}), records=True),
    Parser("unrelated questions", read_unrelated, lines(PAIR), records=True),
    Parser("facts of KnowEdit", read_facts, lines(KNOWEDIT), records=True),
    Parser("facts of ROME", read_facts, lines(REWRITE), records=True),
    Parser("facts of MEND", read_facts, lines(MEND | {"alt": "D"}), records=True),
    Parser("facts in a table", read_facts, b"prompt,answer,rephrasings,subject\nWho?,Ada,Who is it?|Whom?,\n"),
    Parser("facts to train on", read_training_tuples, lines(COUNTERFACT), records=True),
    Parser("FEVER", fever.read_claims, lines(CLAIM, CLAIM), records=True),
    Parser("NQ-open", nq.read_questions, lines({"question": "who", "answer": ["me"]}), records=True),
    Parser("KnowEdit's zsRE", zsre.read_questions, json.dumps([ZSRE]).encode(), records=True),
    Parser("zsRE in MEND's form", zsre.read_questions, json.dumps([MEND]).encode(), records=True),
    Parser("CounterFact", counterfact.read_statements, json.dumps([COUNTERFACT]).encode(), records=True),
    Parser("CounterFact in ROME's form", counterfact.read_statements, json.dumps([ROME]).encode(), records=True),
    Parser("WikiBigEdit", wikibigedit.read_updates, json.dumps([WIKIBIGEDIT]).encode(), records=True),
    Parser(
        "the authors' FEVER", authors_tuples(authors.fever_tuple), json.dumps([AUTHORS_FEVER]).encode(), records=True
    ),
    Parser("the authors' zsRE", authors_tuples(authors.zsre_tuple), json.dumps([AUTHORS_ZSRE]).encode(), records=True),
    Parser("MEND's zsRE", authors_tuples(mend.mend_question), json.dumps([MEND]).encode(), records=True),
    Parser("KILT's FEVER", lambda path: kilt.read_records(path, kilt.claim), lines(KILT, KILT), records=True),
    Parser("KILT's zsRE", lambda path: kilt.read_records(path, kilt.questions), lines(KILT_ZSRE), records=True),
    Parser("originals", rebuild.read_originals, lines(ORIGINAL, ORIGINAL), records=True),
    Parser(
        "rephrasings",
        lambda path: rebuild.read_rephrasings([path]),
        lines({"id": "1", "rephrasings": ["Who is it?"]}),
        records=True,
    ),
    Parser("alternatives", rebuild.read_alternatives, lines({"id": "1", "answer": "Bo"}), records=True),
    Parser("a report of a step", read_report, json.dumps(REPORT).encode()),
    Parser("text for the covariance", lambda path: list(lines_of(path)), b"A line.\n\nAnother.\n"),
    Parser("upstream files", read_upstream_files, yaml.safe_dump({"x": UPSTREAM}).encode()),
    Parser("attribution", read_attribution, yaml.safe_dump(ATTRIBUTION).encode()),
    Parser("the registry of models", models_registry, yaml.safe_dump(REGISTRY).encode()),
    Parser("DVC's configuration", check_secrets, b"[core]\n    remote = s\n['remote \"s\"']\n    url = /x\n"),
    Parser("a configuration", load_file, (ROOT / "config" / "test.yaml").read_bytes()),
    Parser("MEMIT's settings", read_memit_settings, yaml.safe_dump({"steps": 3}).encode()),
    Parser("metrics", lambda path: read_metrics([path]), json.dumps(ABOUT | {"runs": [RUN]}).encode()),
    Parser("costs", lambda path: hours([path]), json.dumps([COST]).encode()),
    Parser("memory", MemoryFile.read, json.dumps(MEMORY).encode()),
    Parser("published ablations", lambda path: read_published(path, ablation.PUBLISHED), published("table1.csv")),
    Parser("published comparisons", lambda path: read_published(path, comparison.COLUMNS), published("table3.csv")),
    Parser("published times", lambda path: read_published(path, compute.PUBLISHED), published("compute.csv")),
    Parser("claims", read_claims, published("claims.yaml")),
    Parser("numbers of a figure", SourcesFile.read, json.dumps(SOURCES).encode()),
    Parser("a record", read_record, to_json(RECORD).encode()),
    Parser("an environment", read_environment, to_json(ENVIRONMENT).encode(), file=f"{ENVIRONMENT.digest}.json"),
    Parser("a training's record", TrainingFile.read, b'{"status": "diverged", "reason": "it did", "losses": []}'),
    Parser("an editor", TrainedFor.read, b""),
    Parser("a covariance", CollectedFrom.read, b""),
    Parser("a delta", Delta.open, b""),
]
"""Those with an empty example read binary files, of which others make examples."""
