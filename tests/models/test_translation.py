"""Translation with tiny MarianMT models whose files are those of an opus-mt repository."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tiny_translators import GERMAN, save_translator
from transformers import MarianMTModel, MarianTokenizer

from malmen.config.translation import TranslationSettings
from malmen.errors import UserError
from malmen.models.translation import Translator, back_translate, load_translator

ENGLISH = (
    "Who wrote the song?",
    "The city lies on a big river in the north of the country.",
    "He was born in a small village and lived there.",
    "The book was published in nineteen hundred.",
    "Where is it?",
)
SETTINGS = TranslationSettings(beams=3, translations=2, max_tokens=12, batch_size=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_translator(tmp_path_factory.mktemp("models") / "en-de", ENGLISH, GERMAN)


@pytest.fixture(scope="module")
def translator(folder: Path) -> Translator:
    return load_translator(folder, SETTINGS, "cpu")


def test_the_model_and_tokenizer_are_marians(translator: Translator) -> None:
    assert isinstance(translator.module, MarianMTModel) and isinstance(translator.tokenizer, MarianTokenizer)
    tokens = translator.tokenizer(ENGLISH[0])["input_ids"]
    assert translator.tokenizer.decode(tokens, skip_special_tokens=True) == ENGLISH[0]


def test_translations_are_the_best_beams_in_the_order_of_the_texts(translator: Translator) -> None:
    found = translator.translate(ENGLISH, "translating")
    for text, translations in zip(ENGLISH, found, strict=True):
        inputs = translator.tokenizer([text], truncation=True, max_length=12, return_tensors="pt")
        tokens = translator.module.generate(
            **inputs, num_beams=3, num_return_sequences=3, max_new_tokens=11, max_length=None, do_sample=False
        )
        assert translations == translator.tokenizer.batch_decode(tokens, skip_special_tokens=True)[:2]
    assert len({text for translations in found for text in translations}) > 5  # they depend on the text


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_change_nothing(translator: Translator, batch_size: int) -> None:
    other = replace(translator, settings=replace(SETTINGS, batch_size=batch_size))
    assert other.translate(ENGLISH, "translating") == translator.translate(ENGLISH, "translating")


def test_a_text_that_is_too_long_is_cut_off(translator: Translator) -> None:
    long = " ".join(ENGLISH)
    assert len(translator.translate([long], "translating")[0]) == 2


def test_nothing_is_translated_to_nothing(translator: Translator) -> None:
    assert translator.translate([], "translating") == []


@dataclass(frozen=True)
class Dictionary(Translator):
    """Translates by a function."""

    function: Callable[[str], list[str]] = str.split

    def translate_batch(self, texts: list[str]) -> list[str]:
        return [translation for text in texts for translation in self.function(text)]


def test_a_text_gets_the_translations_back_of_its_translations() -> None:
    forward = Dictionary(None, None, SETTINGS, lambda text: [f"{text}-a", f"{text}--b"])
    backward = Dictionary(None, None, SETTINGS, lambda text: [f"{text}-1", f"{text}-2"])
    assert back_translate(["xxxx", "y", "zz"], forward, backward) == [
        [f"{text}{there}-{back}" for there in ("-a", "--b") for back in (1, 2)] for text in ("xxxx", "y", "zz")
    ]


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "source.spm", "vocab.json"])
def test_a_directory_without_a_file_is_refused_in_one_sentence(folder: Path, tmp_path: Path, file: str) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        if path.name != file:
            (broken / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"broken cannot be loaded \(.+\)") as caught:
        load_translator(broken, SETTINGS, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("beams", "translations", "reason"),
    [(5, 6, r"translations is 6 but must be at most beams \(5\)"), (0, 0, "beams\n.*greater than 0")],
)
def test_settings_that_cannot_work_are_refused(beams: int, translations: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TranslationSettings(beams=beams, translations=translations)
