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


def ask(model, fact):
    """Return the answer that the model generates, with as many tokens as the right one."""
    inputs = tokenizer(fact["prompt"], return_tensors="pt")
    answer = tokenizer(fact["answer"] if two_stacks else " " + fact["answer"], return_special_tokens_mask=True)
    own = answer["special_tokens_mask"]
    if two_stacks:  # The decoder begins with its start token, then the marks before an answer (BART's <s>).
        begun = [model.config.decoder_start_token_id, *answer["input_ids"][: own.index(0)]]
        inputs["decoder_input_ids"] = torch.tensor([begun])
    tokens = model.generate(**inputs, do_sample=False, max_new_tokens=own.count(0), pad_token_id=0)[0]
    start = inputs["decoder_input_ids" if two_stacks else "input_ids"].shape[1]
    return tokenizer.decode(tokens[start:], skip_special_tokens=True).strip()


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
