"""Small stand-ins for published models: their classes and the files of their repositories, with random weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer
from transformers import (
    BertConfig,
    BertForPreTraining,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

SIZE = 600
"""Entries of a vocabulary."""


def write_bert(folder: Path, lines: Sequence[str]) -> None:
    """Write a BERT of four blocks as its authors published theirs: with ``vocab.txt`` alone for a tokenizer."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(lines, WordPieceTrainer(vocab_size=SIZE, special_tokens=special))
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    }
    BertForPreTraining(BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(folder)
    tokenizer.model.save(str(folder))


def write_gpt2(folder: Path, lines: Sequence[str]) -> None:
    """Write a GPT-2 of six blocks as it was published: with ``vocab.json`` and ``merges.txt``."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(lines, vocab_size=SIZE, special_tokens=["<|endoftext|>"])
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), n_embd=32, n_layer=6, n_head=2)
    config.bos_token_id = config.eos_token_id = tokenizer.token_to_id("<|endoftext|>")
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_model(str(folder))


def write_t5(folder: Path, lines: Sequence[str]) -> None:
    """Write a gated T5 of eight blocks as it was published: with ``spiece.model``."""
    import sentencepiece  # noqa: PLC0415 (without types, and needed here alone)

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 8,
        "num_heads": 2,
        "tie_word_embeddings": False,
    }
    config = T5Config(vocab_size=SIZE + 100, feed_forward_proj="gated-gelu", **sizes)
    config.decoder_start_token_id = 0
    T5ForConditionalGeneration(config).save_pretrained(folder)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "spiece"),
        vocab_size=SIZE,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()


WRITERS = {"bert": write_bert, "gpt2": write_gpt2, "t5": write_t5}
