"""LoRAShear's recovery in two stages against one, at equal steps: `python -m bench.stages`.

Each is a `lorashear` job; they differ in recovery alone. Text in place of a pre-training corpus is the calibration
text; in place of instructions, PIQA's goals, each with the solution that is right. Figures are cached by the hash of
the body and of the releases, so that the command goes on where it was ended.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.cells import Cell, CellFailed, Runner, own_release
from bench.machine import describe_machine
from bench.page import show, table
from bench.service import sample_service, service_key
from core.engine.evaluation.zero_shot_tasks import TASKS, local_copy
from core.settings import Settings
from secateur import Client
from worker.embedded.instance import EmbeddedInstance
from worker.embedded.register import add_dataset
from worker.samples.language import CALIBRATION, EVALUATION, MODEL
from worker.samples.zero_shot import add_task_samples

SECTION = "bench-stages"
SPARSITY = 0.2
TRAINING, HELD = "piqa-solutions-training", "piqa-solutions-held"
_TRAINED_SHARE = 0.8


def add_instructions(home: EmbeddedInstance) -> None:
    """Register PIQA's goals and right solutions: the first four fifths to train on, the rest to measure on."""
    questions = local_copy(home.settings.local_tasks, TASKS["piqa"])
    assert questions is not None
    texts = []
    for line in questions.read_text("utf-8").splitlines():
        row = json.loads(line)
        texts.append(f"Goal: {row['goal']}\nSolution: {row['sol2' if row['label'] else 'sol1']}")
    split = int(len(texts) * _TRAINED_SHARE)
    with tempfile.TemporaryDirectory() as temporary:
        for name, part in ((TRAINING, texts[:split]), (HELD, texts[split:])):
            file = Path(temporary, f"{name}.jsonl")
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in part), "utf-8")
            add_dataset(home, name, file, source="piqa, validation")


def recoveries(steps: int) -> dict[str, dict[str, Any]]:
    """What the jobs say of recovery, by title; each takes `steps` steps at most."""
    half = steps // 2
    both = [CALIBRATION, TRAINING]
    return {
        "two stages": {"stages": [{"datasets": [CALIBRATION], "steps": half}, {"datasets": [TRAINING], "steps": half}]},
        "one stage, both texts": {"stages": [{"datasets": both, "steps": steps}]},
        "one stage, pre-training text": {"stages": [{"datasets": [CALIBRATION], "steps": steps}]},
    }


def body(stages: dict[str, Any], round_steps: int) -> dict[str, Any]:
    """A job that prunes, and then trains in these stages."""
    return {
        "model": MODEL,
        "method": "lorashear",
        "output": {},
        "sparsity": SPARSITY,
        "parameters": {"budget": "quick"},
        "calibration": {"dataset": CALIBRATION, "samples": 64, "sequence_length": 128, "seed": 0},
        "evaluation": {"datasets": [EVALUATION, HELD], "samples": 8, "sequence_length": 256},
        "recovery": {"method": "lora", "batch_size": 4, "sequence_length": 64, "learning_rate": 5e-4}
        | stages
        | {"resample_every": round_steps},
    }


def cell_of(client: Client, title: str, job_body: dict[str, Any]) -> Cell:
    """Return the cell of a job, whose figures are its metrics."""

    def work() -> dict[str, Any]:
        job = client.wait(client.submit(**job_body).id)
        if job.status != "succeeded" or job.metrics is None:
            raise CellFailed(f"{job.status}: {job.error.message if job.error else 'no figures'}")
        return {"job": job.id, **job.metrics.model_dump(mode="json")}

    return Cell(title, service_key(job_body, None), work)


def page(found: dict[str, dict[str, Any] | None], steps: int, command: str) -> str:
    """The table: perplexity on text of either kind that nothing was trained on."""
    texts = (EVALUATION, HELD)
    measured = next(each["perplexity"] for each in found.values() if each)
    rows = [
        (title, "", *(f"{measured[text][kind]:.2f}" for text in texts))
        for title, kind in (("dense", "dense"), ("pruned, not recovered", "before_recovery"))
    ]
    for title, came_out in found.items():
        shown = ["failed"] * 2
        if came_out is not None:
            shown = [f"{came_out['perplexity'][text]['pruned']:.2f}" for text in texts]
        rows.append((title, f"{steps}", *shown))
    return f"""{table(("recovery", "steps at most", *texts), rows)}

{describe_machine()}; {own_release()}. `{command}`

The table has the perplexity of SmolLM2-135M after `lorashear` at {SPARSITY:.0%} (budget `quick`), recovered with LoRA.
If a stage has several texts, the pruned model is compared with the dense one on each text. Texts on which it is worse
are used more, in proportion to the difference. The stage ends early if a round of {steps // 4} steps has won nothing
back."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--steps", type=int, default=48, help="of recovery, all stages together")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    options = parser.parse_args(arguments)
    runner, titles = Runner.of(options), recoveries(options.steps)
    add_task_samples(Settings(), print)
    with sample_service() as service:
        add_instructions(service.home)
        cells = {
            title: cell_of(service.client, title, body(stages, options.steps // 4)) for title, stages in titles.items()
        }
        kept = runner.figures(cells, lambda figures: str(figures["job"]))
    if not kept:
        return 1
    found = {title: kept.get(title) for title in titles if title in kept or title in runner.failures}
    command = " ".join(["python -m bench.stages", *(arguments if arguments is not None else sys.argv[1:])])
    show(page(found, options.steps, command), SECTION, options.write)
    return int(any(figures is None for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
