import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, StrictUndefined

publish_parts = importlib.import_module("docutils.core").publish_parts  # it has no type hints

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


@pytest.mark.parametrize("dataset", ["fever", "zsre"])
@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.name)
def test_captions_render_without_complaint(path: Path, dataset: str) -> None:
    params = SimpleNamespace(title="T5", dataset=dataset, labels={"separated": "MALMEN", "concatenated": "MEND-style"})
    wildcards = SimpleNamespace(figure="figure6")
    snakemake = SimpleNamespace(config={"run": "demo"}, wildcards=wildcards, params=params)
    caption = path.read_text(encoding="utf-8") + "\n.. _chains.html: where Snakemake puts it\n"
    text = Environment(undefined=StrictUndefined).from_string(caption).render(snakemake=snakemake)
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})["html_body"]
    assert "<em>demo</em>" in body


def test_every_result_has_a_caption() -> None:
    names = {
        "scaling",
        "residual",
        "memory",
        "compute",
        "summary",
        "chains",
        "workflow",
        *(f"table{i}" for i in range(1, 6)),
    }
    assert names <= {path.stem for path in CAPTIONS}


def test_the_caption_of_a_scaling_curve_names_figure_model_and_data() -> None:
    text = Path(CAPTIONS[0].parent, "scaling.rst").read_text(encoding="utf-8")
    params = SimpleNamespace(title="T5-XL", dataset="zsre")
    snakemake = SimpleNamespace(config={"run": "demo"}, wildcards=SimpleNamespace(figure="figure6"), params=params)
    shown = Environment(undefined=StrictUndefined).from_string(text).render(snakemake=snakemake)
    assert "**Scaling curve of T5-XL** (the paper's Figure 6)" in shown
    assert "answer tokens" in shown and "opposite" not in shown
