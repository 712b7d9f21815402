"""Subjects that no tuple states are guessed, and how often the guess is right on real questions."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from malmen.data.matching import find
from malmen.editing.memit.guessing import guess_subject

MIRROR = os.environ.get("MALMEN_MIRROR")
HOST = "raw.githubusercontent.com"
KNOWEDIT = f"{HOST}/YJiangcm/LTE/b8fb59b90d54e5e77095dc06f0b5e0da9a2d5340/SeqEdit/data/knowedit/ZsRE/ZsRE-test-all.json"
LOCFT = f"{HOST}/ICT-STAR/LocFT/51db7854feb3596085051e45bf8b3147bfb0ccb1/data/zsre/zsre_3k.json"


@pytest.mark.parametrize(
    "prompt, rephrased, subject",
    [
        ("What is the birthplace of Li Na?", "What is the city in which Li Na was born?", "Li Na"),
        ("Where was Ada Lund born?", "The birthplace of Ada Lund is", "Ada Lund"),
        ("Ada Lund was born where?", "Where was Ada Lund born?", "Ada Lund"),  # a name may begin the sentence
        ("Osmium was found by whom?", "Who found Osmium?", "Osmium"),
        ("Player Ada Lund is in which team?", "Which team has Ada Lund?", "Player Ada Lund"),
        ("Who made Zoë’s Café?", "Zoe\u0308's Cafe\u0301 was made by whom?", "Zoë’s Café"),
        ("Where did Dov van der Meer sing?", "Dov van der Meer sang where?", "Dov van der Meer"),
        ("Who is Charlotte of Wied's mother?", "Charlotte of Wied had which mother?", "Charlotte of Wied"),
        ("Who led Norway in 1994?", "Norway's leader of 1994 was who?", "Norway"),
        ("Who sang Love in the Dark?", "Love in the Dark is sung by whom?", "Love in the Dark"),
        ("Who built USS Wren (DD-568)?", "USS Wren (DD-568), built by whom?", "USS Wren (DD-568)"),
        ("Who edited Keystones!?", "Keystones! was edited by whom?", "Keystones!"),
        ("When did JS 7.62 enter service?", "JS 7.62 entered service when?", "JS 7.62"),
        ('Who wrote "the sound of rain" in May?', "The sound of rain is whose song?", "the sound of rain"),
        ("where was ada lund born?", "the birthplace of ada lund is", "ada lund"),  # no capital letters
        ("what is the birthplace of li na?", "what is the city in which li na was born?", "li na"),
        ("is ann or bo here?", "bo and ann", "ann"),  # of what is shared, the longest
        ("is bo or ed here?", "ed and bo", "ed"),  # of equally long runs, the last
        ("where was bo?", "she came from there", None),
        ("???", "!!!", None),
    ],
)
def test_the_subject_is_a_name_or_else_what_prompts_share(prompt: str, rephrased: str, subject: str | None) -> None:
    guess = guess_subject(prompt, (rephrased,))
    assert (prompt[guess.start : guess.end] if guess else None) == subject


@pytest.mark.parametrize(
    "prompt, rephrased, certain",
    [
        ("Where was Ada Lund born?", "The birthplace of Ada Lund is", True),
        ("Where was Ada Lund born?", "Where was Ada Lund born, and when?", True),  # behind "was", a verb
        ("What is the status of Bali myna?", "The status of Bali myna is what?", False),  # "Bali" is not all of it
        ("What is the status of Bali myna?", "The status of Bali is what?", True),
        ("Where was Ada Lund born?", "Where was she born?", False),
        ("Did Ada come before Bram?", "Ada came before Bram", False),  # two names
        ("where was ada lund born?", "the birthplace of ada lund is", False),
    ],
)
def test_a_guess_is_certain_if_nothing_speaks_against_it(prompt: str, rephrased: str, certain: bool) -> None:
    guess = guess_subject(prompt, (rephrased,))
    assert guess is not None
    assert guess.certain is certain


def test_a_word_behind_a_name_belongs_to_it_if_several_equivalents_repeat_it() -> None:
    prompt = "Where does Tahon kodon live?"
    guess = guess_subject(prompt, ("What is the home of Tahon kodon?", "Tahon kodon is found where?"))
    assert guess is not None
    assert prompt[guess.start : guess.end] == "Tahon kodon"
    assert guess.certain


class Question(NamedTuple):
    prompt: str
    rephrased: str
    end: int


def questions(path: Path) -> Iterator[Question]:
    """Yield the different questions of a file whose subject is known, with the place where it ends."""
    seen = set()
    for record in json.loads(path.read_text(encoding="utf-8")):
        prompt = " ".join((record.get("prompt") or record["src"]).split())
        rephrased = " ".join((record.get("rephrase_prompt") or record["rephrase"]).split())
        known = find(record["subject"], prompt)
        if known and prompt.casefold() not in seen:
            seen.add(prompt.casefold())
            yield Question(prompt, rephrased or prompt, known[1])


@pytest.mark.skipif(not MIRROR, reason="MALMEN_MIRROR is not set: real questions are there")
@pytest.mark.parametrize(
    "file, number, floor, certain_floor, lower_case_floor",
    [(KNOWEDIT, 1286, 0.925, 0.965, 0.70), (LOCFT, 3000, 0.96, 0.98, 0.77)],
    ids=["KnowEdit", "LocFT"],
)
def test_guesses_end_where_the_subjects_of_real_questions_end(
    file: str, number: int, floor: float, certain_floor: float, lower_case_floor: float
) -> None:
    asked = list(questions(Path(str(MIRROR), file)))
    assert len(asked) == number
    guesses = [guess_subject(question.prompt, (question.rephrased,)) for question in asked]
    lower = [guess_subject(question.prompt.lower(), (question.rephrased.lower(),)) for question in asked]
    right = [guess is not None and guess.end == question.end for guess, question in zip(guesses, asked, strict=True)]
    certain = [hit for guess, hit in zip(guesses, right, strict=True) if guess and guess.certain]
    assert sum(right) / number >= floor
    assert len(certain) / number >= 0.85
    assert sum(certain) / len(certain) >= certain_floor
    in_lower_case = [
        guess is not None and guess.end == question.end for guess, question in zip(lower, asked, strict=True)
    ]
    assert sum(in_lower_case) / number >= lower_case_floor
