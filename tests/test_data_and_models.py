"""The page of sources, licences and citations is that of the code."""

from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from data_and_models import PAGE, attribution, configurations, files_used, models_used, page, write_page

from malmen.config.data import TUPLE_FILES
from malmen.config.load import load_file
from malmen.config.memit import CovarianceSettings
from malmen.config.model_registry import read_registry
from malmen.config.translation import TranslationSettings
from malmen.config.upstream_files import upstream_files

ROOT = Path(__file__).parents[1]


def test_the_page_is_written_of_the_registries(tmp_path: Path) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    write_page(tmp_path)
    assert (tmp_path / PAGE).read_text() == (ROOT / PAGE).read_text(), "run `make schema`"


def test_everything_has_a_licence_and_a_citation() -> None:
    entries = chain(attribution()["models"].values(), attribution()["streamed"].values())
    citations = [
        *(entry["citations"] for entry in entries),
        *(source.citations for source in upstream_files().values()),
    ]
    assert all(citations)
    assert {key for keys in citations for key in keys} == set(attribution()["citations"])
    assert all(source.licence for source in upstream_files().values())
    assert all(entry["licence"] for entry in attribution()["models"].values())


def test_every_model_that_can_be_named_is_listed() -> None:
    known = {**attribution()["models"], **attribution()["streamed"]}
    translation = TranslationSettings()
    named = {e["package"]["name"] if "package" in e else e["pretrained"] for e in read_registry().values()}
    assert named <= set(known)
    packaged = {entry["package"]["name"] for entry in read_registry().values() if "package" in entry}
    assert {name for name, entry in known.items() if entry["package"]} == packaged
    assert {translation.forward, translation.backward, CovarianceSettings().dataset} <= set(known)
    for config in configurations(ROOT / "config").values():
        assert models_used(config) <= set(known) and files_used(config) <= set(upstream_files())


def test_a_run_that_rebuilds_the_data_uses_kilt_and_the_translators(tmp_path: Path) -> None:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "config" / "test.yaml").read_text())
    raw["data"] |= {"source": "rebuild"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(raw))
    config = load_file(tmp_path / "other.yaml")
    assert {"kilt_fever_dev", "kilt_zsre_train", "fever2_fixers_dev", "nq_open_train"} <= files_used(config)
    assert models_used(config) == {"Helsinki-NLP/opus-mt-en-de", "Helsinki-NLP/opus-mt-de-en"}
    text = page({"other": config})
    (line,) = (line for line in text.splitlines() if line.startswith("| kilt_zsre_train "))
    assert line == "| kilt_zsre_train | 147,909 | 71,444,475 | MIT (KILT) | petroni2021, levy2017 | `other.yaml` |"
    assert "| `6f6b23ef5ef8a586414ad9d2b7dda64ca5352935` | 74 million | Apache-2.0 |" in text
    assert "| authors_fever_eval | 10,444 | - | none stated | tan2024 | on request |" in text


def test_the_papers_run_uses_the_authors_files() -> None:
    names = {name for files in TUPLE_FILES["authors"].values() for name in files}
    assert files_used(configurations(ROOT / "config")["paper"]) == names
