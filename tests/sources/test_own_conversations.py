"""Conversations that a model writes itself, in its own chat template."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.engine.datasets.chat.rendered import Frame, RenderedRow, read_rendered
from core.engine.datasets.chat.template import ChatTemplate, TemplateRenderer
from core.engine.datasets.chat.windows import Conversations
from core.engine.datasets.token_windows import calibration_windows
from core.engine.models.self_chat import ConversationWriter
from core.pipeline.messages import ModelPlace
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.write.spec import ChatShape, WriteSpec, WrittenOutput
from core.progress import Progress
from secateur_wire.errors import UnusableDataset
from tests.chat import TEMPLATE
from tests.engine.watching import Watching
from tests.sources.conftest import write_wordy_model

SAMPLES, LENGTH = 12, 24
FRAME: Frame = TemplateRenderer(ChatTemplate(TEMPLATE)).frame()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordy_model(tmp_path_factory.mktemp("own") / "model")


def run(
    folder: Path, work: Path, *, questions: Path | None = None, progress: Progress | None = None, seed: int = 3,
    previous: list[Path] | None = None,
) -> tuple[WrittenOutput, list[RenderedRow]]:  # fmt: skip
    spec = WriteSpec(
        device="cpu",
        threads=1,
        model=ModelPlace(path=folder),
        target=work.with_suffix(".jsonl"),
        samples=SAMPLES,
        sequence_length=LENGTH,
        seed=seed,
        chat=ChatShape(frame=FRAME, template="t", questions=questions),
        work=work,
        previous=previous or [],
    )
    output = run_stage(spec, progress or Progress(), lambda: 0)
    assert isinstance(output, WrittenOutput)
    return output, list(read_rendered(spec.target))


def test_the_model_asks_and_answers_enough_for_the_windows_it_writes_for(folder: Path, tmp_path: Path) -> None:
    _, rows = run(folder, tmp_path / "first")
    for row in rows:
        ((start, end),) = row.spans or ()
        question, answer = row.text[:start], row.text[start:end]
        assert question.startswith("w4 ") and question.endswith(" w2 w5 ") and len(question.split()) > 3
        assert answer.strip() and row.text[end:].strip() == ""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats = Conversations("self", rows)
    windows = calibration_windows(chats, tokenizer, samples=SAMPLES, length=LENGTH, seed=0, name="self")
    assert windows.shape == (SAMPLES, LENGTH)
    assert any(row.text.endswith(" w2 ") for row in rows), "an answer that came to its end"
    assert {row.text for row in rows}.isdisjoint(row.text for row in run(folder, tmp_path / "other", seed=4)[1])


def test_the_model_answers_the_questions_of_a_set(folder: Path, tmp_path: Path) -> None:
    asked = [f"w4 w{10 + number} w2 w5 " for number in range(20)]
    questions = [RenderedRow(line=number, text=text, spans=[]) for number, text in enumerate(asked, 1)]
    questions.append(RenderedRow(line=21, text="w4 " + "w9 " * LENGTH, spans=[]))
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(row.model_dump_json() + "\n" for row in questions))
    output, rows = run(folder, tmp_path / "first", questions=file)
    assert {row.text[: (row.spans or [])[0][0]] for row in rows} == set(asked)
    assert [(each.reason, each.rows, each.first_line) for each in output.left_out] == [
        ("a question of more than 12 tokens", 1, 21)
    ]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with pytest.raises(UnusableDataset, match="every question has more than 12 tokens"):
        ConversationWriter(model, tokenizer, FRAME, length=LENGTH, seed=0, questions=questions[-1:])


def test_after_a_kill_it_goes_on_after_the_last_batch_to_the_same_conversations(folder: Path, tmp_path: Path) -> None:
    class Killed(Progress):
        """Progress of a process that ends in its second batch."""

        def __init__(self) -> None:
            self.said: list[str] = []

        def log(self, message: str) -> None:
            self.said.append(message)
            if len(self.said) == 1:
                raise KeyboardInterrupt

    _, whole = run(folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "killed", progress=Killed())
    resumed = Watching()
    _, rows = run(folder, tmp_path / "resumed", progress=resumed, previous=[tmp_path / "killed"])
    assert rows == whole and any(said.startswith("continuing after ") for said in resumed.logs)
