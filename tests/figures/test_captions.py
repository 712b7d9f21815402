import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, StrictUndefined

publish_parts = importlib.import_module("docutils.core").publish_parts  # it has no type hints

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


NOTE = "Tiny models, synthetic data: not the paper's setting."


def rendered(name: str, dataset: str, which: str = "edited", source: str = "world") -> str:
    """Return a caption of a made-up result; on any other source of data than the world, the setting is the paper's."""
    labels = {"separated": "MALMEN", "concatenated": "MEND-style"}
    data = {dataset: "zsRE"} if name == "ablation.rst" else "zsRE"
    setting = {"note": NOTE if source == "world" else ""}
    params = SimpleNamespace(
        title="Figure 6: T5, zsRE", dataset=dataset, labels=labels, data=data, which=which, setting=setting
    )
    model = {"scratch": {"layers": 2}} if source == "world" else {"pretrained": "t5"}
    config = {"run": "demo", "data": {"source": source}, "models": {"t5": model}}
    text = Path(CAPTIONS[0].parent, name).read_text(encoding="utf-8")
    snakemake = SimpleNamespace(config=config, params=params)
    return Environment(undefined=StrictUndefined).from_string(text).render(snakemake=snakemake)


@pytest.mark.parametrize(("dataset", "which"), [("fever", "edited"), ("zsre", "unrelated")])
@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.name)
def test_captions_render_without_complaint(path: Path, dataset: str, which: str) -> None:
    text = rendered(path.name, dataset, which) + "\n\n.. _lineage.html: where Snakemake puts it\n"
    body = publish_parts(text, writer="html", settings_overrides={"halt_level": 2, "report_level": 2})["html_body"]
    assert "<em>demo</em>" in body


def test_every_result_has_a_caption() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in CAPTIONS[0].parents[1].glob("rules/*.smk"))
    used = set(re.findall(r"\.\./report/(\w+)\.rst", rules))
    assert used | {"workflow"} == {path.stem for path in CAPTIONS}


def test_the_caption_of_a_scaling_curve_has_its_title_and_speaks_of_its_data() -> None:
    shown = rendered("scaling.rst", "zsre")
    assert "**Figure 6: T5, zsRE**" in shown
    assert "answer tokens" in shown and "reverses" not in shown


@pytest.mark.parametrize("path", [path for path in CAPTIONS if path.name != "lineage.rst"], ids=lambda path: path.name)
def test_captions_and_the_front_page_say_that_the_setting_is_not_the_papers(path: Path) -> None:
    assert "not the paper's setting" in rendered(path.name, "zsre")
    for source in ("realtext", "authors"):
        assert "synthetic" not in rendered(path.name, "zsre", source=source)
