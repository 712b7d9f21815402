"""Tiny MarianMT models with random weights and tokenizers of the real kind, trained on a few sentences."""

import json
from collections.abc import Sequence
from pathlib import Path

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel

GERMAN = (
    "Wer hat das Lied geschrieben?",
    "Die Stadt liegt an einem großen Fluss im Norden.",
    "Er wurde in einem kleinen Dorf geboren und lebte dort.",
    "Das Buch ist im Jahr neunzehnhundert erschienen.",
)


def save_translator(folder: Path, source: Sequence[str], target: Sequence[str], seed: int = 0) -> Path:
    """Write a model that translates between the languages of these sentences, to nothing that makes sense.

    The files are those of an opus-mt repository: config.json, model.safetensors, source.spm, target.spm, vocab.json.
    """
    folder.mkdir(parents=True)
    pieces = {"</s>": 0, "<unk>": 1}
    for name, text in (("source", source), ("target", target)):
        model = train_pieces(folder / f"{name}.spm", text)
        for i in range(model.get_piece_size()):
            pieces.setdefault(model.id_to_piece(i), len(pieces))
    pieces["<pad>"] = len(pieces)
    (folder / "vocab.json").write_text(json.dumps(pieces), encoding="utf-8")
    settings = {"tokenizer_class": "MarianTokenizer", "model_max_length": 32, "separate_vocabs": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    new_model(len(pieces), seed).save_pretrained(folder)
    return folder


def train_pieces(path: Path, text: Sequence[str]) -> sentencepiece.SentencePieceProcessor:
    """Train a SentencePiece model on a text, write it, and return it."""
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text),
            model_writer=stream,
            vocab_size=80,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def new_model(vocabulary: int, seed: int) -> MarianMTModel:
    """Return a model of one layer, whose output depends on what it reads."""
    config = MarianConfig(
        vocab_size=vocabulary,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        pad_token_id=vocabulary - 1,
        decoder_start_token_id=vocabulary - 1,
        eos_token_id=0,
        forced_eos_token_id=0,
    )
    torch.manual_seed(seed)
    model = MarianMTModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name and parameter.dim() > 1:
                parameter.normal_(std=0.7)
    model.generation_config.bad_words_ids = [[vocabulary - 1]]
    return model
