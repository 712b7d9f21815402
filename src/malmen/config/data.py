"""The data sections: where edit tuples come from, and how they are split."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from malmen.config.base import Answers, Corpus, Dataset, Name, Section
from malmen.config.translation import TranslationSettings
from malmen.config.upstream_files import upstream_files
from malmen.config.world import WorldSettings

TUPLE_FILES: Mapping[str, Mapping[Dataset, tuple[str, str]]] = {
    "authors": {
        "fever": ("authors_fever_train", "authors_fever_eval"),
        "zsre": ("authors_zsre_train", "authors_zsre_eval"),
        "zsre_alternative": ("authors_zsre_train", "authors_zsre_eval"),
    },
    "mend": {
        "zsre": ("mend_zsre_train", "mend_zsre_eval"),
        "zsre_alternative": ("mend_zsre_train", "mend_zsre_eval"),
    },
}
"""The files of finished tuples by source and data set: for training and for evaluation, by name in the registry."""

DATASETS: Mapping[str, Sequence[Dataset]] = {
    "world": ("fever", "zsre", "zsre_alternative"),
    "realtext": ("fever", "zsre", "zsre_alternative", "counterfact", "wikibigedit"),
    "rebuild": ("fever", "zsre", "zsre_alternative"),
    **{source: tuple(files) for source, files in TUPLE_FILES.items()},
    "files": ("own",),
}
"""The data sets of each source."""

SharedUnrelated = Literal["keep", "replace"]


class Split(Section):
    """How tuples are split into those for training, for tuning and for the reported results."""

    seed: int = 0
    """Seed of the split."""
    train: PositiveInt = 60
    """Share of the tuples on which editors are trained; the shares are relative to one another."""
    tune: PositiveInt = 10
    """Share held out from training, on which hyper-parameters are chosen (target ``tuning``)."""
    validation: PositiveInt = 30
    """Share on which results are reported; it must hold at least one group of the largest m."""

    @property
    def shares(self) -> dict[str, int]:
        """The shares by split."""
        return {"train": self.train, "tune": self.tune, "validation": self.validation}


def check_files(names: Sequence[str], kind: str, key: str) -> None:
    """Raise ``ValueError`` unless all names are those of upstream files of one kind, by what their names begin with."""
    known = [name for name in upstream_files() if name.startswith(kind)]
    for name in names:
        if name not in known:
            raise ValueError(f"{key} names the unknown file {name!r}; known are {', '.join(known)}")


class RealText(Section):
    """The upstream files of the real data sets, by their names in ``src/malmen/config/upstream_files.yaml``."""

    seed: int = 0
    """Seed of rephrasings and of the pairing with unrelated tuples."""
    n_equivalent: Annotated[int, Field(ge=1, le=10)] = 3
    """Rephrasings per FEVER claim, made by sentence frames (zsRE has real ones)."""
    fever_edits: list[str] = ["fever_paper_dev", "fever_paper_test"]
    """Files of FEVER claims that are edited."""
    fever_unrelated: list[str] = ["fever2_fixers_dev"]
    """Files of FEVER 2.0 claims, the unrelated tuples of FEVER."""
    zsre_edits: list[str] = ["zsre_knowedit_test"]
    """Files of zsRE questions that are edited: "zsre_knowedit_test" (1,304 records), "zsre_locft" (3,000), or both."""
    zsre_unrelated: list[str] = ["nq_open_dev", "nq_efficientqa_dev"]
    """Files of Natural Questions, the unrelated tuples of zsRE."""
    counterfact_edits: list[str] = ["counterfact_recipe_train"]
    """Files of CounterFact, whose records hold an edit and its unrelated tuple: "counterfact_recipe_train" (10,000
    records), "counterfact_locft" (3,000, of which the former has 1,383), "counterfact_rledit_train" or
    "counterfact_rledit_eval"."""
    wikibigedit_edits: list[str] = ["wikibigedit_locft"]
    """Files of WikiBigEdit, whose records hold an edit and its unrelated tuple."""

    @model_validator(mode="after")
    def _check_sources(self) -> "RealText":
        for key, kind in (
            ("fever_edits", "fever"),
            ("fever_unrelated", "fever"),
            ("zsre_edits", "zsre"),
            ("zsre_unrelated", "nq"),
            ("counterfact_edits", "counterfact"),
            ("wikibigedit_edits", "wikibigedit"),
        ):
            check_files(getattr(self, key), kind, key)
        return self

    def sources(self, dataset: Dataset, part: Literal["edits", "unrelated"]) -> list[str]:
        """Return the files that a data set's edits, or its unrelated tuples, are made from."""
        if part == "unrelated" and dataset in ("zsre_alternative", "counterfact", "wikibigedit"):
            return []  # They are in the same files.
        names: list[str] = getattr(self, f"{dataset.removesuffix('_alternative')}_{part}")
        return names


class Rebuild(Section):
    """How the paper's data are rebuilt from public files, named as in ``src/malmen/config/upstream_files.yaml``."""

    seed: int = 0
    """Seed of wrong answers and of the pairing with unrelated tuples."""
    fever_train: Annotated[list[str], Field(min_length=1)] = ["kilt_fever_train"]
    """KILT's files of FEVER claims, which are split into training and tuning."""
    fever_validation: list[str] = ["kilt_fever_dev"]
    """Files that are the whole validation split; without any, it is a share of the files above."""
    fever_unrelated: Annotated[list[str], Field(min_length=1)] = ["fever2_fixers_dev"]
    """Files of FEVER 2.0 claims, the unrelated tuples of FEVER."""
    zsre_train: Annotated[list[str], Field(min_length=1)] = ["kilt_zsre_train", "kilt_zsre_dev"]
    """KILT's files of zsRE questions, which are split in the same way."""
    zsre_validation: list[str] = []
    """Files that are the whole validation split; KILT's (3,724 records) is too small for the paper's m."""
    zsre_unrelated: Annotated[list[str], Field(min_length=1)] = ["nq_open_train", "nq_open_dev"]
    """Files of NQ-open, the unrelated tuples of zsRE."""
    parts: PositiveInt = 32
    """Number of translation jobs, and of filtering jobs, per corpus; changes time, and results by rounding only."""
    translation: TranslationSettings = TranslationSettings()
    """How texts are rephrased."""
    filter: dict[Corpus, Name] = {}
    """Which of ``models`` filters the rephrasings, after its fine-tuning on the correct answers: for "fever" a model
    with dataset "fever", for "zsre" one with dataset "zsre_alternative"; without a model all rephrasings stay."""
    filter_batch_size: PositiveInt = 64
    """Prompts run through the filtering model at once; changes time and memory, and results by rounding only."""

    @model_validator(mode="after")
    def _check_sources(self) -> "Rebuild":
        for corpus, unrelated in (("fever", "fever2"), ("zsre", "nq")):
            for part in ("train", "validation"):
                check_files(getattr(self, f"{corpus}_{part}"), f"kilt_{corpus}", f"{corpus}_{part}")
            check_files(getattr(self, f"{corpus}_unrelated"), unrelated, f"{corpus}_unrelated")
        return self

    def sources(self, dataset: Dataset, part: Literal["train", "validation", "unrelated"]) -> list[str]:
        """Return the files that play a part in making a data set."""
        if dataset == "zsre_alternative" and part == "unrelated":  # They are questions of the same files.
            return []
        names: list[str] = getattr(self, f"{'fever' if dataset == 'fever' else 'zsre'}_{part}")
        return names


class OwnFiles(Section):
    """The user's own files, in any format that ``docs/editing-your-own-facts.md`` lists."""

    facts: str | None = None
    """The file of facts; source "files" needs it."""
    unrelated: str | None = None
    """A file of unrelated questions, for facts whose records have none."""
    answers: Answers = "new"
    """Which answer is taken where a record has two: "new", the one that an edit demands; "true", the right one."""
    skip_bad: bool = False
    """Whether records that do not fit, or contradict an earlier one, are left out and counted, or else are errors."""
    seed: int = 0
    """Seed of the pairing with unrelated questions."""


class Data(Section):
    """Where edit tuples come from."""

    source: Literal["world", "realtext", "authors", "mend", "rebuild", "files"] = "world"
    """"world": a synthetic world, generated from a seed; "realtext": public files of FEVER, zsRE, NQ, CounterFact and
    WikiBigEdit; "authors": the tuples of the paper's authors; "mend": zsRE as MEND's and MEMIT's authors use it;
    "rebuild": FEVER and zsRE made again from KILT's files by back-translation; "files": your own files. Evaluation
    files are the validation split, whatever its share."""
    mirror: str | None = None
    """A directory or http(s) root laid out as <host>/<path>, tried before the upstream places; if null, the environment
    variable MALMEN_MIRROR."""
    shared_unrelated: SharedUnrelated = "keep"
    """What becomes of an unrelated prompt that both training and validation use (sources "authors", "mend" and "files",
    whose records pair them): "keep" it, as the paper does; "replace" it in training, by one that validation does not
    use."""
    split: Split = Split()
    """How tuples are split into training, tuning and validation."""
    world: WorldSettings = WorldSettings()
    """The synthetic world."""
    realtext: RealText = RealText()
    """The real files."""
    rebuild: Rebuild = Rebuild()
    """How the paper's data are made again."""
    files: OwnFiles = OwnFiles()
    """Your own files."""

    @model_validator(mode="after")
    def _check_files(self) -> "Data":
        if self.source == "files" and not self.files.facts:
            raise ValueError("source is 'files', but files.facts is not set; name the file of facts")
        return self

    def edits(self, dataset: Dataset) -> tuple[list[str], list[str]]:
        """Return the upstream files whose edits are dealt into splits, and those that are the validation split whole.

        Raises:
            ValueError: if the source has none for the data set.
        """
        if dataset not in DATASETS[self.source]:
            raise ValueError(f"data.source is {self.source!r}, which has no data set {dataset!r}; choose another")
        if self.source in ("world", "files"):
            return [], []
        if self.source == "realtext":
            return self.realtext.sources(dataset, "edits"), []
        if self.source == "rebuild":
            return self.rebuild.sources(dataset, "train"), self.rebuild.sources(dataset, "validation")
        train, evaluation = TUPLE_FILES[self.source][dataset]
        return [train], [evaluation]

    def upstream(self, dataset: Dataset) -> list[str]:
        """Return all upstream files that a data set is made from (raises as :meth:`edits`)."""
        dealt, validation = self.edits(dataset)
        unrelated: list[str] = []
        if self.source == "realtext":
            unrelated = self.realtext.sources(dataset, "unrelated")
        if self.source == "rebuild":
            unrelated = self.rebuild.sources(dataset, "unrelated")
        return [*dealt, *validation, *unrelated]

    def at_most(self, dataset: Dataset, split: str) -> int | None:
        """Return how many tuples a split holds at most, as far as is known before the data are there."""
        shares = self.split.shares
        if self.source == "world":
            return -(-self.world.edits[dataset] * shares[split] // sum(shares.values()))
        if self.source == "files":
            return None
        if self.source == "rebuild" and dataset != "fever":  # A record of KILT's zsRE asks several questions.
            return None
        names, validation = self.edits(dataset)
        if validation and split == "validation":
            names, shares = validation, {split: 1}
        elif validation:
            shares = {**shares, "validation": 0}
        records = [upstream_files()[name].records for name in names]
        if None in records:
            return None
        return -(-sum(filter(None, records)) * shares[split] // sum(shares.values()))
