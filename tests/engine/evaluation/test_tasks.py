"""Zero-shot accuracy by the harness, on tiny models and questions: what it counts, and what it refuses."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.models.folder import open_model
from secateur_wire.errors import UnusableDataset
from tests.sources.conftest import write_wordy_model
from tests.task_questions import questions, write_questions


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordy_model(tmp_path_factory.mktemp("models") / "wordy")


def measure(
    model: Path, files: Mapping[str, Path], work: Path, on_progress: Callable[[float], None] = lambda done: None
) -> dict[str, dict[str, float]]:
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to load, and for this alone

    return measure_tasks(
        open_model(model), files, limit=None, work=work, device=torch.device("cpu"), on_progress=on_progress, examples=0
    )


def test_all_seven_tasks_are_the_harness_s_own_and_give_the_same_each_time(model: Path, tmp_path: Path) -> None:
    files = {task: write_questions(tmp_path / "tasks", task) for task in TASKS}
    heard: list[float] = []
    found = measure(model, files, tmp_path, on_progress=heard.append)
    assert list(found) == list(TASKS)
    for task, figures in found.items():
        assert figures["samples"] == 12 and figures["version"] >= 1, task
        metrics = {name for name in figures if name.startswith("acc") and not name.endswith("stderr")}
        assert TASKS[task].metric in metrics <= {"acc", "acc_norm"}
        for metric in metrics:
            share = figures[metric]
            assert figures[f"{metric}_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 11))
    assert heard == sorted(heard) and heard[-1] == 1.0
    assert measure(model, files, tmp_path) == found


def test_an_answer_counts_by_its_log_likelihood_after_the_question(model: Path, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)

    @torch.inference_mode()
    def log_likelihood(question: str, answer: str) -> float:
        start, whole = (tokenizer(text, return_tensors="pt").input_ids for text in (question, f"{question} {answer}"))
        scores_TV = network(whole).logits[0].log_softmax(-1)
        return sum(float(scores_TV[at - 1, whole[0, at]]) for at in range(start.shape[1], whole.shape[1]))

    right = {"acc": 0, "acc_norm": 0}
    for asked in questions("piqa"):
        answers = (asked["sol1"], asked["sol2"])
        scores = [log_likelihood(f"Question: {asked['goal']}\nAnswer:", answer) for answer in answers]
        by_length = [score / len(answer) for score, answer in zip(scores, answers, strict=True)]
        right["acc"] += (scores[1] > scores[0]) == asked["label"]
        right["acc_norm"] += (by_length[1] > by_length[0]) == asked["label"]
    found = measure(model, {"piqa": write_questions(tmp_path / "tasks", "piqa")}, tmp_path)["piqa"]
    assert {metric: found[metric] for metric in right} == {metric: count / 12 for metric, count in right.items()}
    assert right["acc"] != right["acc_norm"], "questions that tell the two apart"


def test_examples_are_other_questions_with_their_answers_and_the_same_each_time(tmp_path: Path) -> None:
    from core.engine.evaluation.zero_shot import open_task

    file = write_questions(tmp_path / "tasks", "piqa")
    prompts = []
    for number in range(2):
        task = open_task("piqa", file, tmp_path / str(number), 3)
        task.build_all_requests(limit=5)
        prompts.append([each.args[0] for each in task.instances if each.idx == 0])
    assert prompts[0] == prompts[1] and len(prompts[0]) == 5
    solved = {each["goal"]: each[f"sol{each['label'] + 1}"] for each in questions("piqa")}
    for asked, prompt in zip(questions("piqa"), prompts[0], strict=False):
        *before, last = prompt.split("\n\n")
        assert last == f"Question: {asked['goal']}\nAnswer:"
        goals = [example.removeprefix("Question: ").partition("\nAnswer: ") for example in before]
        assert len({goal for goal, _, _ in goals}) == 3 and asked["goal"] not in {goal for goal, _, _ in goals}
        assert all(solved[goal] == answer for goal, _, answer in goals)


def test_a_file_that_is_not_the_task_s_is_refused(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "validation.jsonl"
    for content, said in (
        ('{"goal": "g", "sol1": "a", "label": 0}\n' * 2, "sol2"),
        ('{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}', "fewer than two"),
        ("[" * 20_000 + "]" * 20_000, "line 1"),
    ):
        file.write_text(content)
        with pytest.raises(UnusableDataset, match=said):
            measure(model, {"piqa": file}, tmp_path / "work")
