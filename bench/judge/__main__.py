"""Make the judge: `SECATEUR_HOME=.cache/samples python -m bench.judge [--minutes 55] [--write docs/judge.md]`.

The sample model is reshaped, and then distilled from the sample by a job of the service. The result is registered in
the home. What was made is kept: the command goes on where it was ended.
"""

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.cells import CACHE, Cell, Figures, Program, Runner, cell_key, own_release, run
from bench.judge import JUDGE
from bench.judge.texts import CODE, TRAINING, add_texts
from bench.judging_texts import positive
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from bench.service import DOCUMENTATION, Service, sample_service, service_key
from bench.windows import Windows, model_hash
from core.service.registry.schemas import ModelBody
from worker.embedded.register import add_model, register_folder
from worker.samples.language import EVALUATION, MODEL

SECTION: Final = "bench-judge"
_SOURCE: Final = f"{MODEL}, python -m bench.judge"
_VERSION: Final = 2
"""Number of the way to make it; a changed way needs a new number, so that homes make the model again."""
_HIDDEN, _HEADS = 512, 8
_SAMPLES, _LENGTH = 24, 512
TEXTS: Final = (EVALUATION, CODE, DOCUMENTATION)
"""Texts that nothing is trained or fitted on."""
_EVALUATION: Final = {"datasets": list(TEXTS), "samples": 8, "sequence_length": 256}


def reshaping(service: Service, threads: int) -> Cell:
    """Return the cell of the reshaped model, whose folder is in `.cache/bench/judge` under its key."""
    program = _program("work")
    model, text = (service.settings.models_root / MODEL).absolute(), service.settings.datasets_root
    windows = Windows(model, text / f"{TRAINING}.jsonl", "calibration", _SAMPLES, _LENGTH)
    spec = {"hidden": _HIDDEN, "heads": _HEADS, "threads": threads}
    key = cell_key(program, spec | {"model": model_hash(model), "tokens": windows.file.parent.name}, "")

    def work() -> Figures:
        unfinished = reshaped_folder(key).with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        inputs = {"model": str(model), "tokens": str(windows.written(threads)), "output": str(unfinished)}
        measured = run(program, spec | inputs, key)
        shutil.rmtree(reshaped_folder(key), ignore_errors=True)
        unfinished.rename(reshaped_folder(key))
        return measured.result | {"seconds": measured.seconds}

    return Cell("the reshaped model", key, work)


def reshaped_folder(key: str) -> Path:
    """Return where the reshaped model of a cell lies."""
    return (CACHE / "judge" / key).absolute()


def rounded(service: Service, job: str, threads: int) -> Path:
    """Return the folder of a job's artifact with values of bfloat16."""
    folder = (CACHE / "judge" / job).absolute()
    output = folder.with_suffix(".rounded")
    if not output.exists():
        service.client.download(job, folder)
        unfinished = folder.with_suffix(".partial")
        shutil.rmtree(unfinished, ignore_errors=True)
        spec = {"model": str(folder), "output": str(unfinished), "threads": threads}
        run(_program("round_values"), spec, f"judge-{job}")
        unfinished.rename(output)
    return output


def _program(work: str) -> Program:
    arguments = (sys.executable, "-m", "bench.cell", f"bench.judge.reshape_cell:{work}")
    return Program(arguments, f"{own_release()} {_VERSION}")


def measuring() -> dict[str, Any]:
    """Return the job that measures the sample; it has to store something, and stores it in bfloat16."""
    return {"model": MODEL, "method": "none", "evaluation": dict(_EVALUATION), "output": {"dtype": "bfloat16"}}


def distilling(model: str, minutes: float, learning_rate: float) -> dict[str, Any]:
    """Return the job that trains the reshaped model on the sample's predictions and on the text."""
    return {
        "model": model,
        "method": "recover",
        "evaluation": dict(_EVALUATION),
        "recovery": {
            "method": "distill",
            "teacher": MODEL,
            "dataset": TRAINING,
            "minutes": minutes,
            "learning_rate": learning_rate,
            "label_weight": 0.3,
            "batch_size": 4,
            "sequence_length": 256,
            "lora": None,
            "train_embeddings": True,
            "own_text": 0,
        },
    }


def run_job(service: Service, body: Mapping[str, Any]) -> Figures:
    """Run a job to its end; return its id, what it measured, and the training where there was one."""
    ended = service.client.wait(service.client.submit(**body).id)
    ended.raise_for_status()
    assert ended.metrics is not None and ended.metrics.seconds is not None
    report = service.client.report(ended.id).document()
    return {
        "job": ended.id,
        "seconds": ended.metrics.seconds.document(),
        "perplexity": {name: [each.dense, each.pruned] for name, each in ended.metrics.perplexity.items()},
        "bits_per_byte": {
            name: each.bits_per_byte.document() for name, each in ended.metrics.perplexity.items() if each.bits_per_byte
        },
        "recovery": report.get("recovery"),
    }


def page(reshaped: Figures, distilled: Figures, sample: Figures) -> str:
    """Return the tables of the judge: how it was made, and how it compares with the sample."""
    training = distilled["recovery"]
    rows = [
        ["variance of the stream kept", f"{reshaped['variance']:.2%}"],
        ["parameters, sample and judge", " and ".join(f"{each:,}" for each in reshaped["parameters"])],
        ["perplexity on windows of the training text held back, sample and reshaped",
         f"{reshaped['dense_perplexity']:.2f} and {reshaped['perplexity']:.2f}"],
        ["seconds to reshape", f"{reshaped['seconds']:.0f}"],
        ["steps and tokens of training", f"{training['steps']:,} and {training['tokens']:,}"],
        ["seconds of training", f"{training['loss_seconds'][-1]:.0f}"],
    ]  # fmt: skip
    compared = []
    for name in TEXTS:
        perplexities = [sample["perplexity"][name][0], *distilled["perplexity"][name]]
        before, after = (distilled["bits_per_byte"][name][each] for each in ("dense", "pruned"))
        bits = [sample["bits_per_byte"][name]["dense"], before, after]
        compared.append([name, *(f"{each:.2f}" for each in perplexities), *(f"{each:.3f}" for each in bits)])
    models = ("sample", "reshaped", "judge")
    header = ["text", *(f"{kind}, {model}" for kind in ("perplexity", "bits per byte") for model in models)]
    return "\n\n".join([table(["what", "figure"], rows, text_columns=1), table(header, compared, text_columns=1)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, and print what it is; 1 where something is not there."""
    given = _parser().parse_args(arguments)
    runner = Runner.of(given)
    with sample_service() as service:
        add_texts(service.home)
        folder = (service.settings.models_root / JUDGE).absolute()
        if is_there := folder.exists():
            register_folder(service.home, ModelBody(name=JUDGE, path=str(folder), source=_SOURCE))
            print(f"{folder} is there, and is not made again", flush=True)
            runner.runs = False
        cell = reshaping(service, given.threads)
        making = runner if reshaped_folder(cell.key).exists() else Runner(runner.runs, is_fresh=True)
        reshaped = making.figures({None: cell}, lambda told: f"perplexity {told['perplexity']:.2f}")
        name = f"{JUDGE}-{cell.key[:6]}"
        if reshaped and runner.runs:
            add_model(service.home, name, reshaped_folder(cell.key), source=_SOURCE, say=print)
        jobs = {"judge": distilling(name, given.minutes, given.learning_rate), "sample": measuring()}
        cells = {
            title: Cell(title, f"judge-{service_key(body)}", partial(run_job, service, body))
            for title, body in jobs.items()
        }
        found = runner.figures(cells, lambda told: f"{told['job']}, {told['perplexity']}") if reshaped else {}
        if len(found) < len(cells):
            return int(not is_there)
        if not is_there and runner.runs:
            judge = rounded(service, found["judge"]["job"], given.threads)
            add_model(service.home, JUDGE, judge, source=_SOURCE, say=print)
    command = f"python -m bench.judge {shlex.join(sys.argv[1:] if arguments is None else arguments)}".strip()
    facts = f"Written by `{command}`, on {describe_machine()}; {own_release()}."
    show("\n\n".join([facts, page(reshaped[None], found["judge"], found["sample"])]), SECTION, given.write)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=55, help="minutes of training (default 55)")
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="peak learning rate (default 2e-4)")
    parser.add_argument("--threads", type=positive, default=threads_available(), help="threads (default: cores)")
    parser.add_argument("--recall", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
