import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, StrictUndefined

publish_parts = importlib.import_module("docutils.core").publish_parts  # it has no type hints

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


def params(dataset: str, which: str = "edited") -> SimpleNamespace:
    labels = {"separated": "MALMEN", "concatenated": "MEND-style"}
    return SimpleNamespace(title="Figure 6: T5, zsRE", dataset=dataset, labels=labels, data="zsRE", which=which)


@pytest.mark.parametrize(("dataset", "which"), [("fever", "edited"), ("zsre", "unrelated")])
@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.name)
def test_captions_render_without_complaint(path: Path, dataset: str, which: str) -> None:
    snakemake = SimpleNamespace(config={"run": "demo"}, params=params(dataset, which))
    caption = path.read_text(encoding="utf-8") + "\n.. _lineage.html: where Snakemake puts it\n"
    text = Environment(undefined=StrictUndefined).from_string(caption).render(snakemake=snakemake)
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})["html_body"]
    assert "<em>demo</em>" in body


def test_every_result_has_a_caption() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in CAPTIONS[0].parents[1].glob("rules/*.smk"))
    used = set(re.findall(r"\.\./report/(\w+)\.rst", rules))
    assert used | {"workflow"} == {path.stem for path in CAPTIONS}


def test_the_caption_of_a_scaling_curve_has_its_title_and_speaks_of_its_data() -> None:
    text = Path(CAPTIONS[0].parent, "scaling.rst").read_text(encoding="utf-8")
    snakemake = SimpleNamespace(config={"run": "demo"}, params=params("zsre"))
    shown = Environment(undefined=StrictUndefined).from_string(text).render(snakemake=snakemake)
    assert "**Figure 6: T5, zsRE**" in shown
    assert "answer tokens" in shown and "reverses" not in shown
