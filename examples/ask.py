"""Ask a model before and after `malmen edit`, with transformers alone: python ask.py BEFORE AFTER FACTS."""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

if len(sys.argv) != 4:
    sys.exit(__doc__)
before, after, path = sys.argv[1:]
for place in (after, path):
    if not Path(place).exists():
        sys.exit(f"There is no {place}; check the path, or run this script in the project's folder.")
facts = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
tokenizer = AutoTokenizer.from_pretrained(after)
two_stacks = AutoConfig.from_pretrained(after).is_encoder_decoder
auto_model = AutoModelForSeq2SeqLM if two_stacks else AutoModelForCausalLM
models = [auto_model.from_pretrained(directory) for directory in (before, after)]


def encode(text):
    """Return a text's tokens without the special tokens that the tokenizer puts after it, and how many come before."""
    encoded = tokenizer(text, return_special_tokens_mask=True)
    added = encoded["special_tokens_mask"]
    end = len(added) - added[::-1].index(0)
    return encoded["input_ids"][:end], added.index(0)


def ask(model, fact):
    """Return the answer that the model generates, with as many tokens as the right one."""
    if two_stacks:  # The decoder begins with its start token, then the marks before an answer (BART's <s>).
        answer, marks = encode(fact["answer"])
        begun = [model.config.decoder_start_token_id, *answer[:marks]]
        inputs = dict(tokenizer(fact["prompt"], return_tensors="pt"), decoder_input_ids=torch.tensor([begun]))
        wanted = len(answer) - marks
    else:  # The model continues the prompt, so no special token may close it.
        begun, _ = encode(fact["prompt"])
        inputs = {"input_ids": torch.tensor([begun]), "attention_mask": torch.ones(1, len(begun), dtype=torch.long)}
        wanted = len(encode(f"{fact['prompt']} {fact['answer']}")[0]) - len(begun)
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=wanted, pad_token_id=0)[0]
    return tokenizer.decode(tokens[len(begun) :], skip_special_tokens=True).strip()


answers = []
for number, fact in enumerate(facts, start=1):
    answers.append([ask(model, fact) for model in models])
    if number % 20 == 0:
        print(f"  {number} of {len(facts)} facts asked", file=sys.stderr)
for fact, (old, new) in list(zip(facts, answers, strict=True))[:8]:
    print(f"{fact['prompt']}  {old} -> {new} (new answer: {fact['answer']})")
for name, given in zip(("before", "after"), zip(*answers, strict=True), strict=True):
    right = sum(answer == fact["answer"] for answer, fact in zip(given, facts, strict=True))
    print(f"{name}: {right} of {len(facts)} right")
