"""Tiny models before training: their tokenizers and initial weights."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from malmen.config.base import Architecture
from malmen.config.scratch import ScratchSettings

MAX_LETTERS = 1000
"""Largest number of different letters in a WordPiece vocabulary."""

SENTINELS = tuple(f"<extra_id_{i}>" for i in range(16))
"""T5's tokens for hidden spans; 16 instead of 100 are enough for short lines."""


def train_tokenizer(text: Sequence[str], shape: ScratchSettings) -> PreTrainedTokenizerBase:
    """Train a tokenizer: lower-cased WordPiece for BERT, byte-level BPE for the others.

    T5's adds </s> after a text; BART's also adds <s> before it.
    """
    if shape.architecture == "bert":
        names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        return wrapped(train_word_pieces(text, shape.vocabulary), shape, mask_token="[MASK]", **names)
    if shape.architecture == "t5":
        # The padding comes first: a T5's decoder starts with token 0.
        pieces = train_byte_pairs(text, shape.vocabulary, ["<pad>", "</s>", *SENTINELS])
        frame(pieces, "$A </s>")
        return wrapped(pieces, shape, pad_token="<pad>", eos_token="</s>", extra_special_tokens=list(SENTINELS))
    if shape.architecture == "bart":
        pieces = train_byte_pairs(text, shape.vocabulary, ["<s>", "<pad>", "</s>", "<mask>"])
        frame(pieces, "<s> $A </s>")
        return wrapped(pieces, shape, bos_token="<s>", pad_token="<pad>", eos_token="</s>", mask_token="<mask>")
    end = "<|endoftext|>"
    pieces = train_byte_pairs(text, shape.vocabulary, [end])
    return wrapped(pieces, shape, bos_token=end, eos_token=end, pad_token=end)


def wrapped(
    pieces: BertWordPieceTokenizer | ByteLevelBPETokenizer, shape: ScratchSettings, **special: str | list[str]
) -> PreTrainedTokenizerBase:
    """Return a trained tokenizer as one of transformers; ``special`` names its special tokens."""
    return PreTrainedTokenizerFast(tokenizer_object=pieces._tokenizer, model_max_length=shape.max_length, **special)


def train_byte_pairs(text: Sequence[str], vocabulary: int, special_tokens: list[str]) -> ByteLevelBPETokenizer:
    """Train a byte-level BPE tokenizer whose vocabulary begins with the special tokens."""
    pieces = ByteLevelBPETokenizer()
    # A space before each line lets the trainer see its first word like any other.
    pieces.train_from_iterator(
        (f" {line}" for line in text),
        vocab_size=vocabulary,
        show_progress=False,
        special_tokens=special_tokens,
        min_frequency=1,
    )
    return pieces


def frame(pieces: ByteLevelBPETokenizer, template: str) -> None:
    """Make a tokenizer add special tokens around a text, and treat its first word like any other."""
    special = [(token, pieces.token_to_id(token)) for token in template.split() if token != "$A"]
    pieces._tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    pieces._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)


def train_word_pieces(text: Sequence[str], vocabulary: int) -> BertWordPieceTokenizer:
    """Train a lower-cased WordPiece tokenizer that adds [CLS] and [SEP] to a text; the result is deterministic.

    The trainer numbers the letters inside words ("##a") in the order of a hash table, which differs from run to run,
    and breaks ties by these numbers. Declaring them as special tokens fixes their numbers.
    """
    pieces = BertWordPieceTokenizer(lowercase=True)
    lines = map(pieces.normalize, text)
    words = [word for line in lines for word, _ in pieces._tokenizer.pre_tokenizer.pre_tokenize_str(line)]
    counts = Counter(letter for word in words for letter in word)
    letters = sorted(counts, key=lambda letter: (-counts[letter], letter))[:MAX_LETTERS]
    inner = sorted({f"##{letter}" for word in words for letter in word[1:]} & {f"##{letter}" for letter in letters})
    pieces.train_from_iterator(
        iter(text),
        vocab_size=vocabulary,
        show_progress=False,
        min_frequency=1,
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *inner],
    )
    # A new tokenizer from the vocabulary: in it, "##a" is not a special token.
    return BertWordPieceTokenizer(vocab=pieces.get_vocab(), lowercase=True)


def new_model(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a model of the given shape with random weights."""
    return MODELS[shape.architecture](shape, tokenizer)


def new_bert(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> BertForMaskedLM:
    """Return a BERT that fills in masked tokens."""
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden_size,
            num_attention_heads=shape.heads,
            intermediate_size=4 * shape.hidden_size,
            max_position_embeddings=shape.max_length,
        )
    )


def new_gpt(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel | GPTJForCausalLM:
    """Return a GPT-2, or a GPT-J: parallel attention and FFN, and rotary positions in a part of each head."""
    common = {
        "vocab_size": len(tokenizer),
        "n_layer": shape.layers,
        "n_embd": shape.hidden_size,
        "n_head": shape.heads,
        "n_positions": shape.max_length,
        # Their own activation function, as one fused operation.
        "activation_function": "gelu_pytorch_tanh",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if shape.architecture == "gpt2":
        return GPT2LMHeadModel(GPT2Config(**common))
    return GPTJForCausalLM(GPTJConfig(**common, rotary_dim=shape.head_size // 4 * 2))


def new_t5(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """Return a T5 of version 1.1, except that transformers ties its output head to the embedding.

    The initial embedding is 20 times smaller than T5's: Adam's steps, of one size for all weights, would hardly change
    a large one.
    """
    module = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            num_layers=shape.layers,
            d_model=shape.hidden_size,
            num_heads=shape.heads,
            d_kv=shape.head_size,
            d_ff=4 * shape.hidden_size,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,  # as version 1.1 is pretrained
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            # Version 1.1 does not scale the head's input.
            **{"decoder_start_token_id": tokenizer.pad_token_id, "tie_word_embeddings": False},
        )
    )
    with torch.no_grad():
        module.shared.weight.mul_(0.05)
    return module


def new_bart(shape: ScratchSettings, tokenizer: PreTrainedTokenizerBase) -> BartForConditionalGeneration:
    """Return a BART."""
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            encoder_layers=shape.layers,
            decoder_layers=shape.layers,
            d_model=shape.hidden_size,
            encoder_attention_heads=shape.heads,
            decoder_attention_heads=shape.heads,
            encoder_ffn_dim=4 * shape.hidden_size,
            decoder_ffn_dim=4 * shape.hidden_size,
            dropout=0.0,
            max_position_embeddings=shape.max_length,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.eos_token_id,
            forced_eos_token_id=None,
        )
    )


MODELS: dict[Architecture, Callable[[ScratchSettings, PreTrainedTokenizerBase], PreTrainedModel]] = {
    "bert": new_bert,
    "gpt2": new_gpt,
    "gptj": new_gpt,
    "t5": new_t5,
    "bart": new_bart,
}
