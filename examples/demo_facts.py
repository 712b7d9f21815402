"""Write 200 facts of the demo's world, and 200 unrelated questions, as `malmen edit` reads them."""

import json
from pathlib import Path

lines = Path("data/demo/world/zsre/validation.jsonl").read_text(encoding="utf-8").splitlines()[:200]
with Path("facts.jsonl").open("w") as facts, Path("unrelated.jsonl").open("w") as unrelated:
    for item in map(json.loads, lines):
        print(json.dumps({**item["edit"], "rephrasings": item["equivalent"], "subject": item["subject"]}), file=facts)
        print(json.dumps(item["unrelated"]), file=unrelated)
