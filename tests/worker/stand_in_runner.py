"""Speaks the runner's protocol and prunes nothing: `python -m tests.worker.stand_in_runner BEHAVIOUR`.

BEHAVIOUR is a JSON object: `hang_in` (a task: say `pid N` in the log, then wait `until` a file is there, or for ever),
`ignore_signals`, `fail_in` (tasks) with `code` and `retryable`, `crash` (text written to stderr before exit code 1),
`nonsense`, `ratio` (of perplexities), `ratios` (the same by sparsity), `latency` (ratio, whose spread is 0.05),
`blocks` (that take `block_seconds` each; SIGTERM ends it after the one it is in, which then takes `last_seconds` more),
`doing` (texts it says it is at while it prunes), `from` (a file with more of this, read anew by every task).
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from core.engine.resume.kinds import BLOCK, FOLDER, STATE

Spec = dict[str, Any]
"""A task as it is written to a runner. Loading the runner's types would take longer than all that is done here; whoever
started this reads what it writes into them."""


def send(type: str, **fields: Any) -> None:
    print(json.dumps({"type": type, **fields}), flush=True)


def say(message: str) -> None:
    send("log", level="info", message=message)


def names(folders: list[str]) -> list[str]:
    return [Path(folder).name for folder in folders]


def main(behaviour: dict[str, Any]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the runner does: a shell's background ignores it
    if "from" in behaviour:
        behaviour = behaviour | json.loads(Path(behaviour["from"]).read_text())
    spec = json.load(sys.stdin)
    assert not any(name.startswith("SECATEUR_") for name in os.environ), "credentials reach the runner"
    if spec["task"] == "prune":
        send("stage", stage="open")
        say(f"previous {' '.join(names(spec['previous']))}")
        send("stage", stage="prune")
        send("progress", progress=0.5, block=1, blocks=2)
        for words in behaviour.get("doing", ()):
            send("alive", doing=words)
        if "TRACEPARENT" in os.environ:
            say(f"traceparent {os.environ['TRACEPARENT']}")
        if "blocks" in behaviour:
            prune_blocks(spec, behaviour)
        else:
            save_block(spec, 1)
    misbehave(spec["task"], behaviour)
    send("result", result=result_of(spec, behaviour))
    return 0


def result_of(spec: Spec, behaviour: dict[str, Any]) -> dict[str, Any]:
    match spec["task"]:
        case "search":
            say(f"search after {names(spec['previous'])}")
            step = {"sparsity": 0.25, "ratio": spec["recipe"]["target"]["latency_ratio"]}
            search = {"sparsity": 0.25, "spread": 0.05, "steps": [step]}
            return {"search": search, "peak_memory": {"resident": 2**20}}
        case "prune":
            return pruned(spec, behaviour)
        case "measure":
            latency = {
                "dense_ms": 1.0,
                "pruned_ms": behaviour.get("latency", 1.0),
                "spread": 0.05,
                "sequence_length": 32,
                "device": "cpu",
            }
            return {"latency": latency, "notes": []}
        case "verify":
            from core.engine.architectures.describe import inspect_folder

            assert Path(spec["expected"]).read_text() == "logits"
            model = inspect_folder(Path(spec["artifact"]["path"])).model_dump(mode="json")
            return {"model": model, "verification": {"maximum_difference": 0.0, "tolerance": 1e-4}}
        case "export":
            from core.engine.exporters.implementations import folder_exporter

            return {"exported": folder_exporter(spec["form"]).export(Path(spec["artifact"]), spec["section"])}
        case "write":
            say("the model has written text")
            Path(spec["target"]).write_text(json.dumps({"text": f"as with seed {spec['seed']}"}) + "\n")
            return {"documents": 1, "characters": 20, "tokens": spec["samples"] * spec["sequence_length"]}
        case other:
            raise AssertionError(other)


def pruned(spec: Spec, behaviour: dict[str, Any]) -> dict[str, Any]:
    """The model as it was, called half pruned."""
    send("progress", progress=1.0, block=2, blocks=2)
    recipe, artifact = spec["recipe"], Path(spec["artifact"])
    shutil.copytree(spec["model"]["path"], artifact)
    expected = Path(spec["work"], "expected")
    expected.write_text("logits")
    ratio = behaviour.get("ratios", {}).get(str(recipe["sparsity"]), behaviour.get("ratio", 2.0))
    perplexity = {"dense": 10.0, "pruned": 10.0 * ratio, "ratio": ratio, "sequence_length": 32}
    metrics = {
        "perplexity": dict.fromkeys(recipe["evaluation"]["datasets"] or ["numbers"], perplexity),
        "sparsity": {"prunable": 0.5, "model": 0.4},
        "parameters": {"dense": 2, "nonzero": 1},
        "bytes": dict.fromkeys(("dense", "artifact"), sum(map(weight_bytes, artifact.iterdir()))),
        "seconds": {"prune": 0.1},
        "peak_memory_bytes": 1,
    }
    report = {"layers": [], "notes": [], "peak_memory": {"resident": 100 * 2**20}, "told": recipe["sparsity"]}
    return {"metrics": metrics, "report": report, "expected": str(expected)}


def weight_bytes(file: Path) -> int:
    return file.stat().st_size if file.suffix == ".safetensors" else 0


def prune_blocks(spec: Spec, behaviour: dict[str, Any]) -> None:
    """Go on from the newest block that earlier attempts saved, as the runner does, and save each."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    saved = (file for folder in spec["previous"] for file in Path(folder).glob(BLOCK.pattern))
    done = max((int(file.parent.name) for file in saved), default=0)
    say(f"continuing after block {done}")
    for block in range(done + 1, behaviour["blocks"] + 1):
        say(f"in block {block}")
        end = time.monotonic() + behaviour["block_seconds"]
        while time.monotonic() < end and not stop.is_set():
            time.sleep(0.01)
        if stop.is_set():
            time.sleep(behaviour.get("last_seconds", 600))
        save_block(spec, block)
        if stop.is_set():
            sys.exit(75)


def save_block(spec: Spec, done: int) -> None:
    folder = Path(spec["work"], FOLDER, BLOCK.name, str(done))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STATE).write_text("{}")


def misbehave(task: str, behaviour: dict[str, Any]) -> None:
    if behaviour.get("ignore_signals"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if behaviour.get("hang_in") == task:
        helper = subprocess.Popen(["sleep", "600"])
        say(f"pids {os.getpid()} {helper.pid}")
        while not Path(behaviour.get("until", "never")).exists():
            time.sleep(0.01)
        helper.kill()
        helper.wait()
    if task in behaviour.get("fail_in", "").split():
        told = {name: behaviour.get(name) for name in ("code", "param", "retryable")}
        send("error", message="as told", **told)
        sys.exit(1)
    if "nonsense" in behaviour:
        print(behaviour["nonsense"], flush=True)
        time.sleep(600)
    if "crash" in behaviour:
        print(behaviour["crash"], file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
