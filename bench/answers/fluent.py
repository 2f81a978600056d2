"""Model that goes on with a text fluently and no longer answers: `SECATEUR_HOME=.cache/samples python -m
bench.answers.fluent [--write docs/answers-bench.md]`.

A job of the service removes layers from the sample model, and trains what is left on encyclopedia articles as running
text. That brings back the perplexity on such text, and nothing of what a chat model is for. 0 if the verdict on the
model is "no longer answers" while its perplexity is at most 1.5 times the dense one's. Loads no torch.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from bench.answers.prompts import draw_prompts
from bench.cells import CACHE, own_release
from bench.judging_texts import positive
from bench.machine import describe_machine
from bench.page import show, table
from bench.service import Service, sample_service
from core.engine.architectures.describe import describe_folder
from secateur_wire.answers import AnswerFigures, ComparedAnswer
from worker.embedded.register import add_dataset
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION: Final = "bench-fluent"
_MOST_RATIO: Final = 1.5
_REQUESTS: Final = "everyday-requests"
_SHOWN: Final = 3
"""Requests whose answers are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the model, and show how it writes and answers."""
    given = _parser().parse_args(arguments)
    with sample_service() as service:
        _register_requests(service)
        description = describe_folder(service.settings.models_root / MODEL)
        share = given.layers / description.layers * description.prunable_parameters / description.parameters
        job = service.client.wait(service.client.submit(model=MODEL, **_body(given, round(share, 4))).id)
        ended = job.raise_for_status()
        report = service.client.report(ended.id)
    verdict, metrics = ended.verdict, ended.metrics
    assert verdict is not None and metrics is not None and metrics.seconds is not None
    ratio = metrics.perplexity[EVALUATION].ratio
    command = f"python -m bench.answers.fluent {shlex.join(sys.argv[1:] if arguments is None else arguments)}".strip()
    facts = (
        f"`{command}`, on {describe_machine()}; {own_release()}. {MODEL} without {given.layers} of its "
        f"{description.layers} layers, then {given.steps} steps of `finetune` on {given.length} tokens of "
        f"`{CALIBRATION}` each, in {metrics.seconds.total:.0f} s. First line of its page: *{verdict.words}*."
    )
    rows = [("perplexity of running text ÷ dense", f"{ratio:.2f}"), *_rows(metrics.answers)]
    answers = [_quoted(each) for each in report.answers[_REQUESTS][:_SHOWN]]
    show("\n\n".join([facts, table(("figure", "pruned"), rows, text_columns=1), *answers]), SECTION, given.write)
    return int(verdict.answers != "no longer answers" or ratio is None or ratio > _MOST_RATIO)


def _register_requests(service: Service) -> None:
    file = CACHE / f"{_REQUESTS}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in draw_prompts(150)))
    add_dataset(service.home, _REQUESTS, file, file_format="chat_jsonl", source="bench")


def _body(given: argparse.Namespace, sparsity: float) -> dict[str, Any]:
    """Return the job's body without the model."""
    return {
        "method": "depth",
        "sparsity": sparsity,
        "parameters": {"criterion": "block_influence"},
        "calibration": {"dataset": CALIBRATION, "samples": 4, "sequence_length": given.length},
        "recovery": {
            "method": "finetune",
            "dataset": CALIBRATION,
            "steps": given.steps,
            "batch_size": 1,
            "sequence_length": given.length,
            "learning_rate": given.learning_rate,
        },
        "evaluation": {
            "datasets": [EVALUATION],
            "samples": given.windows,
            "sequence_length": given.length,
            "answers": {
                "datasets": [_REQUESTS],
                "samples": given.questions,
                "max_new_tokens": given.tokens,
            },
        },
    }


def _rows(answers: dict[str, AnswerFigures]) -> Iterator[tuple[str, str]]:
    for name, figures in answers.items():
        if figures.kl is not None:
            yield f"KL a token along the dense answers, {name}", f"{figures.kl:.2f} ± {figures.kl_stderr or 0:.2f}"
        yield f"the same likeliest token, {name}", f"{figures.top_1 or 0:.0%}"
        yield f"length of answers ÷ dense, {name}", f"{figures.length.ratio or 0:.2f}"
        if figures.score is not None:
            yield f"right answers, {name}", f"{figures.score.dense:.0%} → {figures.score.pruned:.0%}"


def _quoted(pair: ComparedAnswer) -> str:
    question = pair.question.rpartition("user\n")[2].partition("<|")[0].strip()
    return "\n".join(
        f"> {who}: {' '.join(text.split())}  "
        for who, text in (("**Asked**", question), ("Dense", pair.dense.text), ("Pruned", pair.pruned.text))
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.answers.fluent", description="Makes a fluent useless model.")
    parser.add_argument("--layers", type=positive, default=2, help="layers that go (default 2)")
    parser.add_argument("--steps", type=positive, default=80, help="steps of training (default 80)")
    parser.add_argument("--length", type=positive, default=256, help="tokens of a sequence (default 256)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="of the training (default 3e-4)")
    parser.add_argument("--windows", type=positive, default=16, help="sequences to measure perplexity on (default 16)")
    parser.add_argument("--questions", type=positive, default=24, help="questions of each set (default 24)")
    parser.add_argument("--tokens", type=positive, default=48, help="tokens of an answer at most (default 48)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
