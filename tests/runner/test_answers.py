"""Answers of both models to the questions of a set, from the request to the report."""

from typing import Any

import pytest

from tests.chat import add_template, write_conversations, write_rows
from tests.runner.conftest import Work, give_text
from tests.runner.models import register_layers, write_model
from tests.worker.conftest import Queue


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    """A job on a model with a chat template, which answers prompts and the questions of conversations."""
    add_template(write_model(jobs.settings.models_root / "layered", 2))
    body = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=2)
    root = jobs.settings.datasets_root
    rows = [
        {"prompt": f"w{number} w{number + 1}", "check": "contains", "reference": f"w{number}"}
        for number in range(10, 20)
    ]
    for name, file in (
        ("prompts", write_rows(root / "prompts.jsonl", rows)),
        ("chats", write_conversations(root / "chats.jsonl", 8, turns=4)),
    ):
        give_text(jobs, name, file, "chat_jsonl")
    return body | {
        "evaluation": {
            "datasets": ["words"], "samples": 4, "sequence_length": 16,
            "answers": {"datasets": ["prompts", "chats", "words"], "samples": 6, "max_new_tokens": 8},
        }
    }  # fmt: skip


def test_a_job_compares_the_answers_of_both_models(jobs: Queue, body: dict[str, Any], work: Work) -> None:
    gates = {"max_answer_kl": 1e-9, "max_length_ratio": 100}
    job = jobs.submit(body | {"gates": gates})
    assert work().result(120) == "failed"
    answered = jobs.job(job)
    assert answered.error is not None and answered.error.code == "gate_missed", answered.error
    assert "the KL divergence of the answers on prompts is" in answered.error.message
    metrics, report = answered.metrics, jobs.report(job)
    assert metrics is not None
    for name, questions in (("prompts", 6), ("chats", 6), ("words", 6)):
        figures = metrics["answers"][name]
        assert figures["questions"] == len(report["answers"][name]) == questions, name
        assert figures["kl"] > 0 and figures["max_new_tokens"] == 8
        assert figures["greedy"]["length"]["ratio"] > 0
    assert metrics["answers"]["prompts"]["greedy"]["score"]["questions"] == 6
    assert metrics["answers"]["chats"]["greedy"]["score"] is None, "no check was named for the set's own answers"
    first = report["answers"]["prompts"][0]
    assert first["question"].startswith("w4 w10 w11 w2") and first["reference"] == "w10"
    assert report["answers"]["chats"][0]["question"].endswith(" w2 w5 "), "up to the words that ask for an answer"
    assert report["texts"]["answers"]["prompts"]["rendering"]["conversations"] == 10
    assert "The questions of words are from the text that was calibrated on, too." in report["notes"]
    verdict = answered.verdict
    assert verdict is not None and verdict.answers in ("still answers", "answers change", "no longer answers")
    assert verdict.words.startswith("the dense model is near chance"), "it was never trained"
