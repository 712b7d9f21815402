"""Write 200 facts and 200 unrelated questions of the demo's world into scratch/, for `malmen edit`."""

import json
import sys
from pathlib import Path

questions = Path("data/demo/world/zsre/validation.jsonl")
if not questions.is_file():
    sys.exit(f"There is no {questions}; run `make` first, and run this script in the project's folder.")
lines = questions.read_text(encoding="utf-8").splitlines()[:200]
folder = Path("scratch")  # git ignores it
folder.mkdir(exist_ok=True)
with (folder / "facts.jsonl").open("w") as facts, (folder / "unrelated.jsonl").open("w") as unrelated:
    for item in map(json.loads, lines):
        print(json.dumps({**item["edit"], "rephrasings": item["equivalent"], "subject": item["subject"]}), file=facts)
        print(json.dumps(item["unrelated"]), file=unrelated)
print(f"{folder}/facts.jsonl: {len(lines)} facts, each with its rephrasings")
print(f"{folder}/unrelated.jsonl: {len(lines)} unrelated questions")
