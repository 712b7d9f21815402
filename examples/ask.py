"""Ask a model before and after `malmen edit`, with nothing but transformers: python ask.py BEFORE AFTER FACTS."""

import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

before, after, path = sys.argv[1:]
facts = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
tokenizer = AutoTokenizer.from_pretrained(after)
models = [AutoModelForCausalLM.from_pretrained(directory) for directory in (before, after)]


def ask(model, fact):
    """Return what the model says by itself, in as many tokens as the answer has."""
    prompt = tokenizer(fact["prompt"], return_tensors="pt")
    length = len(tokenizer(" " + fact["answer"])["input_ids"])
    tokens = model.generate(**prompt, do_sample=False, max_new_tokens=length, pad_token_id=0)[0]
    return tokenizer.decode(tokens[prompt["input_ids"].shape[1] :]).strip()


answers = [[ask(model, fact) for model in models] for fact in facts]
for fact, (old, new) in list(zip(facts, answers, strict=True))[:8]:
    print(f"{fact['prompt']}  {old} -> {new} (edited in: {fact['answer']})")
for name, given in zip(("before", "after"), zip(*answers, strict=True), strict=True):
    right = sum(answer == fact["answer"] for answer, fact in zip(given, facts, strict=True))
    print(f"{name}: {right} of {len(facts)} right")
