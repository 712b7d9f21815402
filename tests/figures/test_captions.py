import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, StrictUndefined

publish_parts = importlib.import_module("docutils.core").publish_parts  # it has no type hints

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.name)
def test_captions_render_without_complaint(path: Path) -> None:
    snakemake = SimpleNamespace(config={"profile": "demo"}, wildcards=SimpleNamespace(profile="demo"))
    text = (
        Environment(undefined=StrictUndefined).from_string(path.read_text(encoding="utf-8")).render(snakemake=snakemake)
    )
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})["html_body"]
    assert "<em>demo</em>" in body


def test_every_result_of_the_backbone_has_a_caption() -> None:
    assert {"figure4.rst", "figure5.rst", "workflow.rst", *(f"table{number}.rst" for number in range(1, 6))} <= {
        path.name for path in CAPTIONS
    }
