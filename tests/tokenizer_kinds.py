"""Tokenizers of many kinds, trained on a few facts, and a tiny model for each, saved as a user has them."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BertJapaneseTokenizer,
    ByT5Tokenizer,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from malmen.own_facts.facts import Fact

SIZE = 400
FACTS = [
    Fact("Who directed Lost Harbour?", "Ana Brandt"),
    Fact("Where was Otto Lind born?", "South Vale"),
    Fact("The mother tongue of Mira Holm is", "Danish"),
    Fact("Which club does Jon Ek play for?", "Northfield Rovers"),
]
CHINESE = [
    Fact("失落的港口的导演是谁？", "安娜布兰特"),
    Fact("奥托林德出生在哪里？", "南谷"),
    Fact("米拉霍尔姆的母语是", "丹麦语"),
    Fact("乔恩埃克为哪家俱乐部踢球？", "北野流浪者"),
]
ACCENTED = [Fact("Où est né Élie Noël ?", "À Orléans"), Fact("Die Hauptstadt von Österreich ist", "Überwald")]

BEGIN_END = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CLS_SEP = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


def texts(facts: Sequence[Fact]) -> list[str]:
    return [f"{fact.prompt} {fact.answer}" for fact in facts]


def trained(
    pieces: Tokenizer, trainer: Any, facts: Sequence[Fact], names: dict[str, str], template: str = "$A"
) -> PreTrainedTokenizerFast:
    """Train a tokenizer; ``template`` says which special tokens it puts around a text, ``$A``."""
    pieces.train_from_iterator(texts(facts), trainer)
    special = [(token, pieces.token_to_id(token)) for token in template.split() if token != "$A"]
    if special:
        pieces.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


def byte_level(
    template: str = "$A",
    facts: Sequence[Fact] = FACTS,
    space_first: bool = False,
    across_words: bool = False,
    padding: bool = True,
) -> PreTrainedTokenizerFast:
    """Byte-level BPE, as GPT-2's; Llama 3's adds a beginning. ``across_words`` lets tokens reach over spaces."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space_first, use_regex=not across_words)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(BEGIN_END.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    names = {name: token for name, token in BEGIN_END.items() if padding or name != "pad_token"}
    return trained(pieces, trainer, facts, names, template)


def prepending(facts: Sequence[Fact] = FACTS, template: str = "<s> $A") -> PreTrainedTokenizerFast:
    """Byte-fallback BPE that puts a space before every text by its normaliser, as Llama 2's old tokenizer.json."""
    pieces = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pieces.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = trained(pieces, trainer, facts, names, template)
    content = json.loads(tokenizer.backend_tokenizer.to_str()) | {"pre_tokenizer": None}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **names)


def unigram(
    scheme: str, facts: Sequence[Fact] = FACTS, normalizer: Any = None, template: str = "$A </s>"
) -> PreTrainedTokenizerFast:
    """Unigram with Metaspace, as T5's and XLM-R's, which puts a space before every text or every word."""
    pieces = Tokenizer(models.Unigram())
    if normalizer is not None:
        pieces.normalizer = normalizer
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    pieces.decoder = decoders.Metaspace(prepend_scheme=scheme)
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False, max_piece_length=6
    )
    return trained(pieces, trainer, facts, {**BEGIN_END, "unk_token": "<unk>"}, template)


def word_piece(facts: Sequence[Fact], lowercase: bool) -> PreTrainedTokenizerFast:
    """BERT's WordPiece, which closes every text by [SEP], as Chinese GPT-2s have it; it may drop case and accents."""
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.decoder = decoders.WordPiece()
    special = list(CLS_SEP.values())
    trainer = trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=special, show_progress=False)
    return trained(pieces, trainer, facts, CLS_SEP, "[CLS] $A [SEP]")


def in_python(facts: Sequence[Fact]) -> BertJapaneseTokenizer:
    """A tokenizer without offsets, which closes every text by [SEP]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        vocabulary = word_piece(facts, lowercase=False).get_vocab()
        path.write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)), encoding="utf-8")
        return BertJapaneseTokenizer(str(path), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece")


KINDS: dict[str, tuple[Callable[[], PreTrainedTokenizerBase], list[Fact]]] = {
    "byte-level": (byte_level, FACTS),
    "adds a beginning": (lambda: byte_level("<s> $A"), FACTS),
    "adds an end": (lambda: byte_level("$A </s>"), FACTS),
    "adds both": (lambda: byte_level("<s> $A </s>"), FACTS),
    "byte-level with a space first": (lambda: byte_level("<s> $A", space_first=True), FACTS),
    "byte-level Chinese": (lambda: byte_level(facts=CHINESE), CHINESE),
    "prepends a space": (prepending, FACTS),
    "unigram": (lambda: unigram("always"), FACTS),
    "unigram, a space before the first word only": (lambda: unigram("first"), FACTS),
    "unigram without accents": (
        lambda: unigram(
            "always",
            ACCENTED,
            normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
        ),
        ACCENTED,
    ),
    "WordPiece": (lambda: word_piece(FACTS, lowercase=False), FACTS),
    "WordPiece in lower case": (lambda: word_piece(ACCENTED, lowercase=True), ACCENTED),
    "WordPiece Chinese": (lambda: word_piece(CHINESE, lowercase=True), CHINESE),
    "WordPiece, written in Python": (lambda: in_python(FACTS), FACTS),
    "bytes, written in Python": (ByT5Tokenizer, FACTS),
}
"""By name a tokenizer and the facts that it was trained on."""


EVERYTHING = (r".*layers\.\d+\..*proj|.*block\.\d+\..*\.(q|k|v|o|wi|wo)|.*layers\.\d+\.fc\d",)
"""The layers of all blocks, for fine-tuning."""


def small(tokenizer: PreTrainedTokenizerBase, **more: Any) -> dict[str, Any]:
    """Return the size of a tiny model for a tokenizer, as most configurations call it."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }  # None where the tokenizer has none
    return {"vocab_size": len(tokenizer), **sizes, **special, **more}


def llama(tokenizer: PreTrainedTokenizerBase, **more: Any) -> LlamaConfig:
    return LlamaConfig(**small(tokenizer, num_key_value_heads=2, max_position_embeddings=128, **more))


def save(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Save a model with random weights and a tokenizer as an ordinary directory."""
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
