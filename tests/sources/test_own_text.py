"""Text and conversations that a model writes itself, these in its own chat template."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.engine.datasets.chat.conversations import Frame, RenderedRow, read_rendered
from core.engine.datasets.chat.template import ChatTemplate, TemplateRenderer
from core.engine.datasets.chat.windows import Conversations
from core.engine.datasets.token_windows import calibration_windows, starts_with_bos
from core.engine.models.own_text import DocumentWriter
from core.pipeline.messages import ModelPlace
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.sources_spec import ChatShape, WriteSpec
from core.progress import Progress
from tests.chat import TEMPLATE
from tests.engine.watching import Watching
from tests.sources.conftest import write_wordy_model

SAMPLES, LENGTH = 12, 24
FRAME: Frame = TemplateRenderer(ChatTemplate(TEMPLATE)).frame()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wordy_model(tmp_path_factory.mktemp("own") / "model")


def run(
    folder: Path, work: Path, *, progress: Progress | None = None, seed: int = 3, previous: list[Path] | None = None
) -> list[RenderedRow]:
    spec = WriteSpec(
        device="cpu",
        threads=1,
        model=ModelPlace(path=folder),
        target=work.with_suffix(".jsonl"),
        samples=SAMPLES,
        sequence_length=LENGTH,
        seed=seed,
        chat=ChatShape(frame=FRAME, template="t"),
        work=work,
        previous=previous or [],
    )
    run_stage(spec, progress or Progress(), lambda: 0)
    return list(read_rendered(spec.target))


def test_the_model_asks_and_answers_enough_for_the_windows_it_writes_for(folder: Path, tmp_path: Path) -> None:
    rows = run(folder, tmp_path / "first")
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
    assert {row.text for row in rows}.isdisjoint(row.text for row in run(folder, tmp_path / "other", seed=4))


def test_after_a_kill_it_goes_on_after_the_last_batch_to_the_same_conversations(folder: Path, tmp_path: Path) -> None:
    class Killed(Progress):
        """Progress of a process that ends in its second batch."""

        def __init__(self) -> None:
            self.said: list[str] = []

        def log(self, message: str) -> None:
            self.said.append(message)
            if len(self.said) == 1:
                raise KeyboardInterrupt

    whole = run(folder, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "killed", progress=Killed())
    resumed = Watching()
    rows = run(folder, tmp_path / "resumed", progress=resumed, previous=[tmp_path / "killed"])
    assert rows == whole and any(said.startswith("continuing after ") for said in resumed.logs)


@torch.inference_mode()
def test_its_own_text_is_distributed_as_the_model_says(folder: Path) -> None:
    """By the chi-square statistic: first words are drawn evenly, and the others as the model says after those before
    them, the third because what comes after the second depends on the cache.
    """
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    documents = [
        [int(word[1:]) for word in document.split()]
        for document in DocumentWriter(model, tokenizer, length=3, seed=1).write(tokens=12_000, at_once=1024)
    ]
    begin = [model.config.bos_token_id] if starts_with_bos(tokenizer) else []
    even_V = torch.ones(model.config.vocab_size)
    even_V[tokenizer.all_special_ids] = 0
    assert _chi_square([words[0] for words in documents], even_V) < 1.5
    for place in (1, 2):
        longer = [words for words in documents if len(words) > place]
        before_NT = torch.tensor([[*begin, *words[:place]] for words in longer])
        expected_V = model(before_NT).logits[:, -1].softmax(-1).mean(0)
        assert len(longer) > 2000 and _chi_square([words[place] for words in longer], expected_V) < 1.5


def _chi_square(words: list[int], probability_V: torch.Tensor) -> float:
    """Per degree of freedom: about 1 where the words come from the distribution."""
    ends = {1, 2}  # of them no document is left
    expected = probability_V.clone()
    expected[list(ends)] = 0
    expected = expected / expected.sum() * len(words)
    observed = torch.bincount(torch.tensor(words), minlength=len(expected)).float()
    kept = expected > 5
    return float(((observed - expected)[kept] ** 2 / expected[kept]).sum() / (kept.sum() - 1))
