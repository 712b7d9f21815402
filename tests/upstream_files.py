"""Small files in the formats of the upstream ones, and a copy of the project that takes them for these."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

Record = dict[str, Any]
NAMES = ("Ada Lund", "Bram Okafor", "Cleo Hart", "Dov Meer", "Elin Ruiz", "Farah Haddad", "Goran Petit")
CITIES = ("Avaria", "Belmar", "Corvo", "Dunmore", "Estwick")


def authors_fever(i: int) -> Record:
    return {
        "prompt": f"Claim {i} holds.",
        "equiv_prompt": [f"It holds: claim {i}.", f"Claim {i}  is true."],
        "unrel_prompt": f"Other claim {i}.",
        "alt": ("SUPPORTS", "REFUTES")[i % 2],
        "unrel_ans": ("REFUTES", "SUPPORTS", "NOT ENOUGH INFO")[i % 3],
    }


def authors_zsre(i: int) -> Record:
    return {
        "src": f"Who made thing {i}?",
        "rephrase": f"Thing {i} was made by whom?",
        "ans": f"Maker {i % 50}",
        "loc": f"where is place {i}",
        "loc_ans": f"Country {i}",
    }


def mend_zsre(i: int) -> Record:
    return {
        "subject": f"Thing {i // 2}",
        "src": f"Who made part {i % 2} of Thing {i // 2}?",
        "pred": f"Maker {i + 1}",
        "rephrase": f"Part {i % 2} of Thing {i // 2} was made by whom?",
        "alt": f" Other  {i}",
        "answers": [f"Maker {i}", f"M. {i}"],
        "loc": f"nq question: where is place {i}",
        "loc_ans": f"Country {i}",
        "cond": f"Maker {i + 1} >> Other {i} || Who made part {i % 2} of Thing {i // 2}?",
    }


def knowedit_zsre(i: int) -> Record:
    return {
        "subject": f"Thing {i // 2}",
        "prompt": f"Who made part {i % 2} of Thing {i // 2}?",
        "rephrase_prompt": f"By whom was part {i % 2} of Thing {i // 2} made?",
        "ground_truth": [f"Maker {i}"],
        "target_new": f"Other {i}",
    }


def counterfact(i: int) -> Record:
    return {
        "case_id": 7 * i,
        "prompt": f"{NAMES[i % 7]} {i} lives in",
        "target_new": CITIES[(i + 1) % 5],
        "subject": f"{NAMES[i % 7]} {i}",
        "ground_truth": CITIES[i % 5],
        "rephrase_prompt": f"A rose.\n\nThe home of {NAMES[i % 7]} {i} is",
        "locality_prompt": f"{NAMES[i % 7]} {i // 2 + 1000} lives in",
        "locality_ground_truth": CITIES[i % 5],
    }


def rewrite(i: int) -> Record:
    """Return :func:`counterfact`'s record in the format of ROME and MEMIT."""
    flat = counterfact(i)
    return {
        "case_id": flat["case_id"],
        "requested_rewrite": {
            "prompt": flat["prompt"].replace(flat["subject"], "{}"),
            "relation_id": "P103",
            "target_new": {"str": flat["target_new"], "id": "Q1"},
            "target_true": {"str": flat["ground_truth"], "id": "Q2"},
            "subject": flat["subject"],
        },
        "paraphrase_prompts": [flat["rephrase_prompt"], f"{flat['subject']} can be found in"],
        "neighborhood_prompts": [flat["locality_prompt"], f"Somebody {i} lives in"],
    }


def wikibigedit(i: int) -> Record:
    return {
        "update": f"Who runs Club {i}?",
        "rephrase": f"Club {i} is run by whom?",
        "ans": f"{NAMES[i % 7]} {i}",
        "personas": f"Ahoy! Who runs Club {i}, matey?",
        "loc": f"Who runs Club {1000 + i // 2}?",
        "loc_ans": NAMES[i // 2 % 7],
        "mhop": f"Where was the head of Club {i} born?",
        "mhop_ans": CITIES[i % 5],
    }


def locft_wikibigedit(i: int) -> Record:
    """Return :func:`wikibigedit`'s record as LocFT's copy has it."""
    record = wikibigedit(i)
    return {
        "prompt": record["update"],
        "target_new": record["ans"],
        "subject": f"Club {i}",
        "rephrase_prompt": record["rephrase"],
        "locality_prompt": record["loc"],
        "locality_ground_truth": record["loc_ans"],
    }


def evidence(title: str) -> list[Record]:
    """Return one place of KILT's Wikipedia."""
    place = {"wikipedia_id": "31045316", "title": title, "section": "Section::::Abstract.", "bleu_score": 1.0}
    spans = {f"{end}_{unit}": 1 for end in ("start", "end") for unit in ("paragraph_id", "character")}
    return [place | spans | {"meta": {"fever_page_id": title.replace(" ", "_"), "fever_sentence_id": 0}}]


def kilt_fever(i: int) -> Record:
    name = f"{NAMES[i % 7]} {i}"
    return {
        "id": str(70000 + i),
        "input": f"{name} was born in {CITIES[i % 5]}.",
        "output": [{"answer": ("SUPPORTS", "REFUTES")[i % 2], "provenance": evidence(name)}],
        "meta": {},
    }


def kilt_zsre(i: int) -> Record:
    name = f"{NAMES[i % 7]} {i}"
    return {
        "id": hashlib.md5(name.encode()).hexdigest(),
        "input": f"{name} [SEP] place of birth",
        "output": [{"provenance": evidence(name)}, {"answer": CITIES[i % 5], "provenance": evidence(name)}],
        "meta": {
            "template_questions": [f"Where was {name} born?", f"In which place was {name} born?"],
            "subj_aliases": [],
            "sub_surface": [name],
            "obj_surface": [CITIES[i % 5]],
        },
    }


def fever2(i: int) -> Record:
    return {
        "id": 500000 + i,
        "label": ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")[i % 3],
        "claim": f"There is a river called River {i}.",
        "evidence": [[[141141, 156349, f"River_{i}", 0]]],
        "original_id": 120126,
        "transformation": "label_preserving",
        "attack": "there.is.a.called",
        "annotation": "N/A",
    }


def nq_open(i: int) -> Record:
    return {"question": f"what is the capital of land {i}", "answer": [f"Town {i}", f"City {i}"]}


def some(record: Callable[[int], Record], start: int, stop: int) -> list[Record]:
    return [record(i) for i in range(start, stop)]


FILES: dict[str, list[Record]] = {
    "authors_fever_train": some(authors_fever, 0, 60),
    "authors_fever_eval": some(authors_fever, 60, 92),
    "authors_zsre_train": some(authors_zsre, 0, 60),
    "authors_zsre_eval": some(authors_zsre, 60, 92),
    "zsre_knowedit_test": some(knowedit_zsre, 0, 40),
    "zsre_locft": some(mend_zsre, 30, 100),
    "counterfact_recipe_train": some(counterfact, 0, 80),
    "counterfact_locft": some(counterfact, 60, 100),
    "counterfact_rledit_train": some(rewrite, 0, 60),
    "counterfact_rledit_eval": some(rewrite, 60, 80),
    "wikibigedit_locft": some(locft_wikibigedit, 0, 80),
    "mend_zsre_train": some(mend_zsre, 0, 60),
    "mend_zsre_eval": some(mend_zsre, 60, 92),
    "kilt_fever_train": some(kilt_fever, 0, 40),
    "kilt_fever_dev": some(kilt_fever, 38, 60),
    "kilt_zsre_train": some(kilt_zsre, 0, 30),
    "kilt_zsre_dev": some(kilt_zsre, 30, 40),
    "fever2_fixers_dev": some(fever2, 0, 60),
    "nq_open_train": some(nq_open, 0, 40),
    "nq_open_dev": some(nq_open, 40, 50),
    "nq_efficientqa_dev": some(nq_open, 50, 100),
}


def json_lines(path: Path, records: Iterable[Record]) -> Path:
    """Write one record per line, as KILT, FEVER and NQ-open do."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def json_list(path: Path, records: Iterable[Record]) -> Path:
    """Write one list, as the authors' and MEND's files are."""
    path.write_text(json.dumps(list(records)), encoding="utf-8")
    return path


def publish(project: Path, mirror: Path) -> None:
    """Put all files into a mirror, and let a copy of the project expect them: by checksum, size and count."""
    listed = project / "src" / "malmen" / "config" / "upstream_files.yaml"
    sources = yaml.safe_load(listed.read_text(encoding="utf-8"))
    for name, records in FILES.items():
        entry = sources[name]
        path = mirror / entry["urls"][0].partition("://")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        (json_list if path.suffix == ".json" else json_lines)(path, records)
        content = path.read_bytes()
        entry["records"] = len(records)
        if "sha256" in entry:
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        else:
            entry["git_blob"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    listed.write_text(yaml.safe_dump(sources), encoding="utf-8")
