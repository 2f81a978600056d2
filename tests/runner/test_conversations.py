"""Conversations as the text of a job: rendered, pruned on, trained on, measured, answered by both models, and written
by the model itself.
"""

import json
import re
from typing import Any

import pytest

from tests.chat import add_template, conversation, write_conversations, write_rows
from tests.runner.conftest import Finish, Work, give_model, give_text
from tests.runner.models import register_layers, write_model
from tests.worker.conftest import Queue

LENGTH = 32


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    """A job on a model with a chat template, whose texts are conversations."""
    add_template(write_model(jobs.settings.models_root / "layered", 2))
    body = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=2)
    root = jobs.settings.datasets_root
    give_text(jobs, "chats", write_conversations(root / "chats.jsonl", turns=4), "chat_jsonl")
    rows = json.loads("[" + ",".join((root / "chats.jsonl").read_text().splitlines()) + "]")
    refused = conversation("w20 w21", "w22")
    refused["messages"].insert(0, {"role": "narrator", "content": "w30"})
    sets = {
        "mixed": [conversation(" ", "w7"), refused, *rows[:30]],
        "prompts": [{"prompt": f"w{n} w{n + 1}"} for n in range(10, 50)],
    }
    for name, each in sets.items():
        give_text(jobs, name, write_rows(root / f"{name}.jsonl", each), "chat_jsonl")
    texts = {"samples": 8, "sequence_length": LENGTH}
    return body | {
        "calibration": {"dataset": "chats", **texts},
        "evaluation": {"datasets": ["chats", "mixed", "words"], **texts},
    }


def test_a_job_prunes_trains_and_measures_on_conversations(jobs: Queue, body: dict[str, Any], finish: Finish) -> None:
    recovery = {"method": "finetune", "steps": 2, "batch_size": 2, "counted_tokens": "assistant"}
    calibration = body["calibration"] | {"counted_tokens": "assistant"}
    job = finish(body | {"recovery": recovery, "calibration": calibration})
    report, figures = jobs.report(job), jobs.job(job).metrics["perplexity"]  # type: ignore[index]
    assert report["tokens"]["counted_tokens"] == {"chats": "assistant", "mixed": "assistant"}
    places = report["tokens"]["calibration_places"]
    assert 0 < places < 0.7 * 8 * LENGTH
    assert f"Calibrated where the assistant's words are predicted: on {places:,} of 256 tokens" in " ".join(
        report["notes"]
    )
    for name in ("chats", "mixed", "words"):
        assert figures[name]["dense"] > 1 and figures[name]["pruned"] > 1, name
    predicted = {name: figures[name]["bits_per_byte"]["tokens"] for name in figures}
    assert predicted["words"] == 8 * (LENGTH - 1) and predicted["chats"] < 0.7 * predicted["words"]
    rendering = report["texts"]["evaluation"]["mixed"]["rendering"]
    assert rendering["conversations"] == 30 and [each["first_line"] for each in rendering["left_out"]] == [1, 2]
    assert "1 row with turns that the template refuses: no role narrator (first: line 2)" in " ".join(report["notes"])


def test_the_model_writes_the_conversations_itself(jobs: Queue, body: dict[str, Any], finish: Finish) -> None:
    asked = {"dataset": "self", "shape": "chat", "samples": 4, "sequence_length": LENGTH}
    answered = {"dataset": "prompts", "answers": "self", "samples": 4, "sequence_length": LENGTH}
    for text in (asked, answered):
        evaluation = {"datasets": ["words"], "samples": 4}
        training = {"method": "distill", "steps": 2, "batch_size": 2, "counted_tokens": "assistant", **text}
        calibration = text | {"counted_tokens": "assistant"}
        job = finish(body | {"calibration": calibration, "evaluation": evaluation, "recovery": training})
        assert 0 < jobs.report(job)["tokens"]["calibration_places"] < 4 * LENGTH
        (trained,) = jobs.report(job)["recovery"]["texts"]
        assert (trained["kind"], trained["shape"], "questions" in trained) == ("self", "chat", "answers" in text)
        text = jobs.report(job)["texts"]["calibration"]
        assert (text["kind"], text["shape"]) == ("self", "chat")
        assert ("questions" in text) == ("answers" in calibration)


def test_a_template_that_fails_ends_the_job_and_says_where(jobs: Queue, body: dict[str, Any], work: Work) -> None:
    folder = write_model(jobs.settings.models_root / "failing", 1)
    give_model(jobs, "failing", add_template(folder, "\n{{ messages[0].nothing.more }}"))
    evaluation = {"datasets": ["mixed"]}
    asked = {"model": "failing", "method": "magnitude", "calibration": None, "evaluation": evaluation}
    job = jobs.submit(body | asked)
    assert work().result(120) == "failed"
    error = jobs.job(job).error
    assert error is not None and re.search(r"UndefinedError.*line 2 of the template.*line 2 of mixed", error.message)


def test_a_job_compares_the_answers_of_both_models(jobs: Queue, body: dict[str, Any], work: Work) -> None:
    rows = [{"prompt": f"w{n} w{n + 1}", "check": "contains", "reference": f"w{n}"} for n in range(10, 20)]
    give_text(jobs, "checked", write_rows(jobs.settings.datasets_root / "checked.jsonl", rows), "chat_jsonl")
    answers = {"datasets": ["checked", "chats", "words"], "samples": 6, "max_new_tokens": 8}
    evaluation = {"datasets": ["words"], "samples": 4, "sequence_length": 16, "answers": answers}
    calibration = body["calibration"] | {"dataset": "words"}
    gates = {"max_answer_kl": 1e-9, "max_length_ratio": 100}
    job = jobs.submit(body | {"gates": gates, "evaluation": evaluation, "calibration": calibration})
    assert work().result(120) == "failed"
    answered = jobs.job(job)
    assert answered.error is not None and answered.error.code == "gate_missed", answered.error
    assert "the KL divergence of the answers on checked is" in answered.error.message
    metrics, report = answered.metrics, jobs.report(job)
    assert metrics is not None
    for name, questions in (("checked", 6), ("chats", 6), ("words", 6)):
        figures = metrics["answers"][name]
        assert figures["questions"] == len(report["answers"][name]) == questions, name
        assert figures["kl"] > 0 and figures["max_new_tokens"] == 8
        assert figures["greedy"]["length"]["ratio"] > 0
    assert metrics["answers"]["checked"]["greedy"]["score"]["questions"] == 6
    assert metrics["answers"]["chats"]["greedy"]["score"] is None, "no check was named for the set's own answers"
    first = report["answers"]["checked"][0]
    assert first["question"].startswith("w4 w10 w11 w2") and first["reference"] == "w10"
    assert report["answers"]["chats"][0]["question"].endswith(" w2 w5 "), "up to the words that ask for an answer"
    assert report["texts"]["answers"]["checked"]["rendering"]["conversations"] == 10
    assert "The questions of words are from the text that was calibrated on, too." in report["notes"]
    assert answered.verdict is not None and answered.verdict.words.startswith("the dense model is near chance")
