"""Speaks the runner's protocol and prunes nothing: `python -m tests.worker.stand_in_runner BEHAVIOUR`.

BEHAVIOUR is a JSON object: `hang_in` (a task: say `pid N` in the log, then sleep), `ignore_signals`, `fail_in` (tasks)
with `code` and `retryable`, `crash` (text written to stderr before exit code 1), `nonsense`, `ratio` (of perplexities),
`ratios` (the same by sparsity), `latency` (ratio, whose spread is 0.05), `blocks` (that take `block_seconds` each;
SIGTERM ends it after the one it is in), `doing` (what it says it is at while it
prunes), `from` (a file with more of this, read anew by every task).
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

from core.artifacts.packed import pack_folder
from core.catalogue.model_folder import inspect_folder
from worker.protocol import (
    AliveMessage,
    ErrorMessage,
    GenerateTextSpec,
    LogMessage,
    MeasureSpec,
    PackSpec,
    ProgressMessage,
    PruneSpec,
    ResultMessage,
    SearchSpec,
    StageMessage,
    VerifySpec,
    spec_adapter,
)


def send(message: Any) -> None:
    print(message.model_dump_json(), flush=True)


def main(behaviour: dict[str, Any]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as the runner does: a shell's background ignores it
    if "from" in behaviour:
        behaviour = behaviour | json.loads(Path(behaviour["from"]).read_text())
    spec = spec_adapter.validate_json(sys.stdin.buffer.read())
    assert not any(name.startswith("SECATEUR_") for name in os.environ), "credentials reach the runner"
    if isinstance(spec, PruneSpec):
        send(StageMessage(stage="open"))
        send(LogMessage(level="info", message=f"previous {spec.previous.name if spec.previous else None}"))
        send(StageMessage(stage="prune"))
        send(ProgressMessage(progress=0.5, block=1, blocks=2))
        for words in behaviour.get("doing", ()):
            send(AliveMessage(doing=words))
        if "TRACEPARENT" in os.environ:
            send(LogMessage(level="info", message=f"traceparent {os.environ['TRACEPARENT']}"))
        if "blocks" in behaviour:
            prune_blocks(spec, behaviour["blocks"], behaviour["block_seconds"])
        else:
            save_boundary(spec, 1)
    misbehave(spec.task, behaviour)
    match spec:
        case SearchSpec():
            send(LogMessage(level="info", message=f"search after {[folder.name for folder in spec.previous]}"))
            step = {"sparsity": 0.25, "ratio": spec.recipe["target"]["latency_ratio"]}
            result = {"sparsity": 0.25, "spread": 0.05, "steps": [step], "peak_memory": {"resident": 2**20}}
        case PruneSpec():
            send(ProgressMessage(progress=1.0, block=2, blocks=2))
            shutil.copytree(spec.model.path, spec.artifact)
            expected = spec.work / "expected"
            expected.write_text("logits")
            ratio = behaviour.get("ratios", {}).get(str(spec.recipe["sparsity"]), behaviour.get("ratio", 2.0))
            perplexity = {"dense": 10.0, "pruned": 10.0 * ratio, "ratio": ratio, "sequence_length": 32}
            metrics = {
                "perplexity": dict.fromkeys(spec.recipe["evaluation"]["datasets"] or ["numbers"], perplexity),
                "sparsity": {"prunable": 0.5, "model": 0.4},
                "parameters": {"dense": 2, "nonzero": 1},
                "bytes": dict.fromkeys(("dense", "artifact"), sum(map(weight_bytes, spec.artifact.iterdir()))),
                "seconds": {"prune": 0.1},
                "peak_memory_bytes": 1,
            }
            report = {
                "layers": [], "notes": [], "peak_memory": {"resident": 100 * 2**20}, "told": spec.recipe["sparsity"],
            }  # fmt: skip
            result = {"metrics": metrics, "report": report, "expected": str(expected)}
        case MeasureSpec():
            result = {
                "latency": {
                    "dense_ms": 1.0,
                    "pruned_ms": behaviour.get("latency", 1.0),
                    "spread": 0.05,
                    "sequence_length": 32,
                    "device": "cpu",
                },
                "notes": [],
            }
        case VerifySpec():
            assert spec.expected.read_text() == "logits"
            model = inspect_folder(spec.artifact).model_dump(mode="json")
            result = {"maximum_difference": 0.0, "tolerance": 1e-4, "model": model}
        case PackSpec():
            result = pack_folder(spec.artifact)
        case GenerateTextSpec():
            send(LogMessage(level="info", message="the model has written text"))
            spec.target.write_text(json.dumps({"text": f"as with seed {spec.seed}"}) + "\n")
            result = {"documents": 1, "characters": 20, "tokens": spec.samples * spec.sequence_length}
        case _:
            raise AssertionError(spec.task)
    send(ResultMessage(result=result))
    return 0


def weight_bytes(file: Path) -> int:
    return file.stat().st_size if file.suffix == ".safetensors" else 0


def prune_blocks(spec: PruneSpec, blocks: int, seconds: float) -> None:
    """As the runner does: from the newest boundary of the attempt before on, a boundary after each."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    before = [] if spec.previous is None else [int(folder.name[-5:]) for folder in spec.previous.glob("boundary-*")]
    done = max(before, default=0)
    send(LogMessage(level="info", message=f"continuing after block {done}"))
    for block in range(done + 1, blocks + 1):
        send(LogMessage(level="info", message=f"in block {block}"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        save_boundary(spec, block)
        if stop.is_set():
            sys.exit(75)


def save_boundary(spec: PruneSpec, done: int) -> None:
    folder = spec.work / f"boundary-{done:05d}"
    folder.mkdir(exist_ok=True)
    (folder / "state.json").write_text("{}")


def misbehave(task: str, behaviour: dict[str, Any]) -> None:
    if behaviour.get("ignore_signals"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if behaviour.get("hang_in") == task:
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        send(LogMessage(level="info", message=f"pids {os.getpid()} {helper.pid}"))
        time.sleep(behaviour.get("seconds", 600))
        helper.kill()
        helper.wait()
    if task in behaviour.get("fail_in", "").split():
        send(
            ErrorMessage(
                code=behaviour["code"],
                message="as told",
                param=behaviour.get("param"),
                retryable=behaviour["retryable"],
            )
        )
        sys.exit(1)
    if "nonsense" in behaviour:
        print(behaviour["nonsense"], flush=True)
        time.sleep(600)
    if "crash" in behaviour:
        print(behaviour["crash"], file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
