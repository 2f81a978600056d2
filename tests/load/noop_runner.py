"""Speaks the runner's protocol, notes each job it is asked to prune in `runs.log`, and does nothing.

`python -I -S noop_runner.py FOLDER`: only the standard library, so that it starts in a few milliseconds. FOLDER holds
`model.json`, the description of the one model there is, and may hold `seconds`, what a job takes.
"""

import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path


def main(folder: Path) -> None:
    spec = json.loads(sys.stdin.readline())
    match spec["task"]:
        case "prune":
            with open(os.open(folder / "runs.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT), "w") as runs:
                runs.write(f"{spec['job']} {spec['attempt']}\n")
            print(json.dumps({"type": "stage", "stage": "prune"}), flush=True)
            with contextlib.suppress(FileNotFoundError):
                time.sleep(float((folder / "seconds").read_text()))
            artifact = Path(spec["artifact"])
            artifact.mkdir()
            shutil.copy(Path(spec["model"]["path"], "config.json"), artifact)
            result = {"metrics": METRICS, "report": REPORT, "expected": str(artifact / "config.json")}
        case "measure":
            result = {"latency": {"dense_ms": 1, "pruned_ms": 1, "sequence_length": 1, "device": "cpu"}, "notes": []}
        case "verify":
            model = json.loads((folder / "model.json").read_text())
            result = {"model": model, "verification": {"maximum_difference": 0.0, "tolerance": 0.0}}
        case task:
            raise AssertionError(task)
    print(json.dumps({"type": "result", "result": result}), flush=True)


METRICS = {
    "perplexity": {},
    "sparsity": {"prunable": 0.5, "model": 0.5},
    "parameters": {"dense": 2, "nonzero": 1},
    "bytes": {"dense": 1, "artifact": 1},
    "peak_memory_bytes": 1,
}
REPORT = {"layers": [], "notes": [], "peak_memory": {"resident": 1}}

if __name__ == "__main__":
    main(Path(sys.argv[1]))
