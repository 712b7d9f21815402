"""Translation and back-translation with a sequence-to-sequence model (MarianMT, such as the opus-mt models)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from malmen.config.translation import TranslationSettings
from malmen.errors import UserError, first_line
from malmen.models.length import length_limit
from malmen.runtime.progress import progress


@dataclass(frozen=True)
class Translator:
    """A translation model with its tokenizer; it uses beam search, which is deterministic.

    Attributes:
        module: the model.
        tokenizer: its tokenizer.
        settings: beams, translations per text, lengths and batch size.
    """

    module: Any
    tokenizer: Any
    settings: TranslationSettings

    def translate(self, texts: Sequence[str], what: str) -> list[list[str]]:
        """Return ``settings.translations`` translations of each text, the most probable first.

        Args:
            texts: the texts.
            what: name of the work in progress lines.
        """
        size = self.settings.batch_size
        # Sorted by length to save padding; the order affects rounding only.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        result: list[list[str]] = [[]] * len(texts)
        for chosen in progress(batches, len(batches), what):
            found = iter(self.translate_batch([texts[i] for i in chosen]))
            for i in chosen:
                result[i] = [next(found) for _ in range(self.settings.translations)]
        return result

    @torch.no_grad()
    def translate_batch(self, texts: list[str]) -> list[str]:
        """Return the translations of all texts in one list, text by text."""
        most = length_limit(self.module, self.tokenizer)
        limit = min(self.settings.max_tokens, most.tokens if most else self.settings.max_tokens)
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        tokens = self.module.generate(
            **inputs.to(self.module.device),
            num_beams=self.settings.beams,
            num_return_sequences=self.settings.translations,
            max_new_tokens=limit - 1,
            max_length=None,  # overrides the model's own configuration
            do_sample=False,
        )
        translations: list[str] = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return translations


def load_translator(directory: Path, settings: TranslationSettings, device: str) -> Translator:
    """Load a translation model from a local directory of safetensors.

    Raises:
        UserError: if the directory holds no such model, or a file is missing or broken.
    """
    try:
        with warnings.catch_warnings():
            # MarianTokenizer recommends this package, but does not use it to translate.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        module: Any = AutoModelForSeq2SeqLM.from_pretrained(
            directory, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        raise UserError(
            f"The translation model in {directory} cannot be loaded ({first_line(error)}); download it again."
        ) from None
    return Translator(module.to(device).eval(), tokenizer, settings)


def back_translate(texts: Sequence[str], forward: Translator, backward: Translator) -> list[list[str]]:
    """Return each text's candidate rephrasings: the back-translations of its translations, most probable first."""
    there = forward.translate(texts, "translating")
    back = iter(backward.translate([text for translations in there for text in translations], "translating back"))
    return [[text for _ in translations for text in next(back)] for translations in there]
