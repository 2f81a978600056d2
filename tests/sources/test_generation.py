"""Text a model writes itself."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from core.engine.datasets.token_windows import starts_with_bos
from core.engine.models.self_text import generate_documents
from core.pipeline.messages import ModelPlace
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.write.spec import WriteSpec
from core.progress import Progress
from tests.engine.watching import Watching
from tests.sources.conftest import write_wordy_model

SAMPLES, LENGTH = 12, 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_wordy_model(tmp_path / "model")


@pytest.fixture
def model(folder: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder).eval()
    return loaded


@pytest.fixture
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


@torch.inference_mode()
def test_it_is_distributed_as_the_model_says(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """By the chi-square statistic: first words are drawn evenly, and the others as the model says after those before
    them, the third because what comes after the second depends on the cache.
    """
    documents = [
        [int(word[1:]) for word in document.split()]
        for document in generate_documents(model, tokenizer, tokens=12_000, length=3, seed=1, at_once=1024)
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


def test_after_a_kill_it_goes_on_after_the_last_batch_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    class Killed(Progress):
        """Progress of a process that ends in its third batch."""

        def __init__(self) -> None:
            self.said: list[str] = []

        def log(self, message: str) -> None:
            self.said.append(message)
            if len(self.said) == 2:
                raise KeyboardInterrupt

    def run(name: str, progress: Progress, previous: list[Path]) -> bytes:
        target = tmp_path / f"{name}.jsonl"
        spec = WriteSpec(
            device="cpu",
            threads=1,
            model=ModelPlace(path=folder),
            target=target,
            samples=400,
            sequence_length=LENGTH,
            seed=3,
            work=tmp_path / name,
            previous=previous,
        )
        run_stage(spec, progress, lambda: 0)
        return target.read_bytes()

    killed, resumed = Killed(), Watching()
    whole = run("whole", Progress(), [])
    with pytest.raises(KeyboardInterrupt):
        run("first", killed, [])
    assert not (tmp_path / "first.jsonl").exists()
    assert run("second", resumed, [tmp_path / "first"]) == whole
    assert any(said.startswith("continuing after ") for said in resumed.logs)
