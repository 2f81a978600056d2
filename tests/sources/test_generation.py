"""Text a model writes itself."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from core.catalogue.model_folder import inspect_folder
from core.data import generation
from core.data.generation import generate_documents
from core.data.tokens import calibration_windows
from core.errors import NotFiniteWeights, OutOfMemory, UnusableModel
from core.models import decoding
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


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int = 0, at_once: int = 8) -> list[str]:
    tokens = SAMPLES * LENGTH
    return list(generate_documents(model, tokenizer, tokens=tokens, length=LENGTH, seed=seed, at_once=at_once))


def test_there_is_enough_for_the_windows_it_was_written_for(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    documents = write(model, tokenizer)
    windows = calibration_windows(documents, tokenizer, samples=SAMPLES, length=LENGTH, seed=0, name="self")
    assert windows.shape == (SAMPLES, LENGTH)
    assert len(documents) < 3 * SAMPLES  # not much more than was needed


def test_a_seed_repeats_it_and_another_writes_something_else(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    first = write(model, tokenizer)
    assert write(model, tokenizer) == first
    assert not set(write(model, tokenizer, seed=2**31)) & set(first)


@torch.inference_mode()
def test_it_is_distributed_as_the_model_says(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """First words against the model's own probabilities, by the chi-square statistic; and, since every further word
    depends on the cache, second words given the commonest first."""
    documents = [
        document.split()
        for document in generate_documents(model, tokenizer, tokens=12_000, length=2, seed=1, at_once=512)
    ]
    begin = torch.tensor([[model.config.bos_token_id]])
    firsts = [int(words[0][1:]) for words in documents]
    assert _chi_square(firsts, model(begin).logits[0, -1]) < 1.5
    commonest = max(set(firsts), key=firsts.count)
    seconds = [int(words[1][1:]) for words in documents if len(words) > 1 and words[0] == f"w{commonest}"]
    after = model(torch.tensor([[model.config.bos_token_id, commonest]])).logits[0, -1]
    assert len(seconds) > 100 and _chi_square(seconds, after) < 1.5


def _chi_square(words: list[int], logits_V: torch.Tensor) -> float:
    """Per degree of freedom: about 1 where the words come from the distribution."""
    ends = {1, 2}  # of them no document is left
    expected = logits_V.softmax(-1)
    expected[list(ends)] = 0
    expected = expected / expected.sum() * len(words)
    observed = torch.bincount(torch.tensor(words), minlength=len(expected)).float()
    kept = expected > 5
    return float(((observed - expected)[kept] ** 2 / expected[kept]).sum() / (kept.sum() - 1))


def test_a_model_that_ends_every_text_at_once_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    model.config.eos_token_id = list(range(96))
    with pytest.raises(UnusableModel, match="too little text"):
        write(model, tokenizer)


def test_a_model_without_sense_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    with torch.no_grad():
        model.get_output_embeddings().weight[5, 0] = torch.inf
    with pytest.raises(NotFiniteWeights):
        write(model, tokenizer)


def test_a_model_that_does_not_fit_in_memory_is_refused_with_the_figures(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    description = inspect_folder(folder)
    monkeypatch.setattr(decoding, "free_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemory, match="1000 are free on cpu") as caught:
        generation.sequences_at_once(description, 16, torch.device("cpu"))
    assert "Name a dataset instead" in caught.value.message
    monkeypatch.setattr(decoding, "free_bytes", lambda device: 2 * description.bytes)
    few = generation.sequences_at_once(description, 16, torch.device("cpu"))
    monkeypatch.undo()
    assert 0 < few < generation.sequences_at_once(description, 16, torch.device("cpu"))
