"""The RO-Crate of the finished run: the profile's validator accepts it, and it answers the profile's questions.

The questions are the competency questions of Workflow Run RO-Crate, CQ1 to CQ11, and who ran it.
"""

import json
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from rdflib import Graph
from rocrate_validator.models import Severity
from rocrate_validator.services import ValidationSettings, validate
from rocrate_validator.utils.http import HttpRequester
from workflow_project import Finished

from malmen.provenance.records import Record, read_records

BASE = "http://crate.test/"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
JOB = "train_editor/gpt2.malmen.16.0"
PREFIXES = f"""
BASE <{BASE}>
PREFIX s: <http://schema.org/>
PREFIX bio: <https://bioschemas.org/>
PREFIX cw: <https://bioschemas.org/ComputationalWorkflow#>
PREFIX run: <https://w3id.org/ro/terms/workflow-run#>
PREFIX codemeta: <https://codemeta.github.io/terms/>
"""


def context() -> dict[str, Any]:
    """Return the terms of RO-Crate 1.1, which the tests must not fetch: those of the library, which knows a later one.

    The later version has renamed four terms.
    """
    content = json.loads(files("rocrate.data").joinpath("ro-crate.jsonld").read_text(encoding="utf-8"))
    terms: dict[str, Any] = content["@context"]
    workflow = "https://bioschemas.org/ComputationalWorkflow"
    terms |= {"ComputationalWorkflow": workflow, "input": f"{workflow}#input", "output": f"{workflow}#output"}
    return terms | {"FormalParameter": "https://bioschemas.org/FormalParameter"}


@pytest.fixture(scope="module")
def crate(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the crate."""
    folder = tmp_path_factory.mktemp("crate")
    run = finished.run(f"malmen crate {folder} --agent 'A. Tester' --orcid https://orcid.org/0000-0002-1825-0097")
    assert run.status == 0, run.output
    return folder


@pytest.fixture(scope="module")
def records(finished: Finished) -> dict[str, Record]:
    """The records of the run, by name."""
    return {record.name: record for record in read_records("test", finished.folder)}


Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def ask(crate: Path) -> Ask:
    """Asks the crate a question in SPARQL; answers with the last parts of identifiers."""
    content = json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    content["@context"] = [context(), content["@context"][1]]
    graph = Graph().parse(data=json.dumps(content), format="json-ld", publicID=BASE)
    return lambda question: [
        tuple(str(value).removeprefix(BASE) for value in row)  # type: ignore[union-attr]
        for row in graph.query(PREFIXES + question)
    ]


def metadata(crate: Path) -> Any:
    return json.loads((crate / "ro-crate-metadata.json").read_text(encoding="utf-8"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the validator have the terms, and nothing else from the network."""

    class Answer:
        status_code, headers = 200, {"Content-Type": "application/ld+json"}
        text = json.dumps({"@context": context()})

        def json(self) -> Any:
            return json.loads(self.text)

    def get(_: HttpRequester, url: str, **__: Any) -> Answer:
        assert url == CONTEXT
        return Answer()

    monkeypatch.setattr(HttpRequester, "get", get, raising=False)


def issues(folder: Path) -> list[str]:
    """Return what the validator finds to be against the profile's requirements."""
    settings = ValidationSettings(
        rocrate_uri=str(folder),
        profile_identifier="provenance-run-crate-0.5",
        requirement_severity=Severity.REQUIRED,
        metadata_only=True,
    )
    return [issue.message or "" for issue in validate(settings).get_issues()]


@pytest.mark.usefixtures("offline")
def test_the_crate_is_valid(crate: Path) -> None:
    assert issues(crate) == []


@pytest.mark.usefixtures("offline")
def test_a_crate_with_something_missing_is_not(crate: Path, tmp_path: Path) -> None:
    content = metadata(crate)
    for entity in content["@graph"]:
        if entity["@id"] == f"#job/{JOB}":
            del entity["instrument"]
        if entity["@id"] == "#step/train_editor":
            del entity["workExample"]
    (tmp_path / "ro-crate-metadata.json").write_text(json.dumps(content))
    found = issues(tmp_path)
    assert any("instrument property that references the executed tool" in issue for issue in found)
    assert any("HowToStep must refer to its corresponding tool" in issue for issue in found)


def test_the_same_records_give_the_same_bytes(finished: Finished, crate: Path, tmp_path: Path) -> None:
    agent = "--agent 'A. Tester' --orcid https://orcid.org/0000-0002-1825-0097"
    assert finished.run(f"malmen crate {tmp_path} {agent}").status == 0
    names = [path.name for path in crate.iterdir()]
    assert names == ["ro-crate-metadata.json"]
    assert (tmp_path / names[0]).read_bytes() == (crate / names[0]).read_bytes()


def test_nothing_is_referred_to_that_is_not_described(crate: Path) -> None:
    entities = metadata(crate)["@graph"]
    known = {entity["@id"] for entity in entities}
    assert len(known) == len(entities)
    wanted = {part["@id"] for entity in entities for value in entity.values() for part in parts(value)}
    allowed = ("https://w3id.org/ro/crate/1.1", "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE")
    assert wanted - known <= set(allowed)


def parts(value: Any) -> list[dict[str, str]]:
    """Return the references in a property."""
    return [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]


def test_who_ran_it(ask: Ask, records: dict[str, Record]) -> None:
    answers = ask("SELECT ?action ?agent ?name { ?action a s:CreateAction; s:agent ?agent. ?agent s:name ?name }")
    assert len(answers) == len(records) + 1
    assert {answer[1:] for answer in answers} == {("https://orcid.org/0000-0002-1825-0097", "A. Tester")}


def test_cq1_no_containers_were_used(ask: Ask) -> None:
    assert not ask("SELECT ?image { { ?action run:containerImage ?image } UNION { ?image a run:ContainerImage } }")


def test_cq2_how_much_memory_and_time_was_used(finished: Finished, ask: Ask, records: dict[str, Record]) -> None:
    question = """SELECT ?job ?quantity ?unit ?value
    { ?job run:resourceUsage [s:propertyID ?quantity; s:unitCode ?unit; s:value ?value] }"""
    answers = ask(question)
    assert {job for job, *_ in answers} == {f"#job/{name}" for name in records}
    mine = [answer[1:] for answer in answers if JOB in answer[0]]
    used = {quantity.rpartition("#")[2]: (unit.rpartition("/")[2], value) for quantity, unit, value in mine}
    cost = records[JOB].circumstances
    assert used["peakRSS"] == ("BYTE", str(cost.peak_bytes))
    assert used["realTime"] == ("MilliSEC", str(round(1000 * cost.seconds)))
    assert used["/$defs/Circumstances/properties/cpu_seconds"] == ("SEC", str(cost.cpu_seconds))
    schema = json.loads((finished.folder / "workflow/schemas/record.schema.json").read_text(encoding="utf-8"))
    assert "cpu_seconds" in schema["$defs"]["Circumstances"]["properties"]
    assert any(quantity.startswith("https://www.wikidata.org/") for _, quantity, _, _ in answers)


def test_cq3_which_configuration_files_were_used(ask: Ask) -> None:
    question = """SELECT ?file { ?run a s:CreateAction; s:instrument <Snakefile>; s:object ?file.
    ?file s:exampleOfWork [s:name ?name] FILTER(?name IN ("configuration", "engine_settings")) }"""
    assert {file for (file,) in ask(question)} == {"config/demo.yaml", "profiles/default/config.yaml"}


def test_cq4_in_which_environment_a_step_was_executed(ask: Ask) -> None:
    question = "SELECT ?file { ?workflow a bio:ComputationalWorkflow; codemeta:buildInstructions ?file }"
    assert {file for (file,) in ask(question)} == {"environment.yml", "requirements.lock"}
    question = f"""SELECT ?name ?version {{ <#job/{JOB}> s:instrument ?tool.
    ?tool s:softwareRequirements [s:name ?name; s:version ?version] }}"""
    packages = dict(ask(question))
    for name in ("torch", "transformers", "snakemake"):
        assert packages[name] == version(name)


def test_cq5_and_6_how_long_steps_and_workflow_took(ask: Ask, records: dict[str, Record]) -> None:
    question = "SELECT ?tool ?job ?start ?end { ?job s:instrument ?tool; s:startTime ?start; s:endTime ?end }"
    times = {job: (datetime.fromisoformat(start), datetime.fromisoformat(end)) for _, job, start, end in ask(question)}
    for name, record in records.items():
        start, end = times[f"#job/{name}"]
        assert (end - start).total_seconds() == pytest.approx(record.circumstances.seconds, abs=0.002)
    assert times["#run"] == (min(start for start, _ in times.values()), max(end for _, end in times.values()))


def test_cq7_the_execution_was_successful(ask: Ask, records: dict[str, Record]) -> None:
    answers = ask("SELECT ?action ?status { ?action a s:CreateAction; s:actionStatus ?status }")
    assert len(answers) == len(records) + 1
    assert {status for _, status in answers} == {"http://schema.org/CompletedActionStatus"}


def test_cq8_what_went_into_the_workflow_and_came_out(ask: Ask, records: dict[str, Record]) -> None:
    inputs = {file for (file,) in ask("SELECT ?file { <#run> s:object ?file }")}
    assert {"data/published/table1.csv", "data/published/claims.yaml", "config/demo.yaml"} <= inputs
    outputs = {file for (file,) in ask("SELECT ?file { <#run> s:result ?file }")}
    made = [file for record in records.values() for file in record.outputs]
    drawn = {file.path for file in made if Path(file.path).parts[2] in ("figures", "tables")}
    assert drawn <= outputs and len(drawn) > 30
    digests = dict(ask("SELECT ?file ?digest { ?file run:sha256 ?digest }"))
    assert {file.path: file.sha256 for file in made if file.files is None}.items() <= digests.items()


def test_cq9_which_version_of_the_code_a_step_ran(ask: Ask, records: dict[str, Record]) -> None:
    question = """SELECT ?step ?version { ?control s:instrument ?step; s:object [s:instrument ?tool].
    ?step s:workExample ?tool. ?tool s:softwareVersion ?version }"""
    versions = dict(ask(question))
    assert set(versions) == {f"#step/{record.rule}" for record in records.values()}
    assert len(set(versions.values())) > 8  # Tables of one kind share their code.


def test_cq10_which_script_wraps_the_software(ask: Ask, records: dict[str, Record]) -> None:
    question = "SELECT ?name ?script { ?step s:workExample ?tool. ?tool s:name ?name; s:mainEntity ?script }"
    scripts = dict(ask(question))
    assert scripts == {record.rule: record.script for record in records.values()}


def test_cq11_how_parameters_were_used(ask: Ask, records: dict[str, Record]) -> None:
    question = f"""SELECT ?workflow ?value {{ <Snakefile> cw:input ?workflow; s:step <#step/train_editor>.
    <#step/train_editor> run:connection [run:sourceParameter ?workflow; run:targetParameter ?parameter].
    ?parameter s:name "settings". <#job/{JOB}> s:object [s:exampleOfWork ?parameter; s:value ?value] }}"""
    ((source, value),) = ask(question)
    assert source == "#parameter/workflow/configuration"
    assert json.loads(value) == records[JOB].settings["settings"]
    question = """SELECT ?source { ?step run:connection [run:sourceParameter ?source; run:targetParameter ?target].
    ?target s:name "trained" FILTER(CONTAINS(str(?target), "evaluate_editor")) }"""
    assert ask(question) == [("#parameter/train_editor/trained",)]


def test_a_figure_leads_back_to_the_first_job(ask: Ask) -> None:
    question = "SELECT ?job { <results/test/figures/figure5.png> (^s:result/s:object)*/^s:result ?job }"
    jobs = {job for (job,) in ask(question)}
    assert {"#job/generate_world", "#job/pretrain_model/gpt2", "#job/finetune_model/gpt2", f"#job/{JOB}"} <= jobs
    assert "#job/finetune_model/bert" not in jobs
