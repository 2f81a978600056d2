"""Perplexity and bits per byte of the tokens that count; other tokens are neither measured nor trained."""

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from core.engine.datasets.counted_tokens import with_counted
from core.engine.datasets.token_windows import evaluation_set
from core.engine.evaluation.perplexity_ratio import bits_per_byte, bits_ratio_stderr
from core.engine.models.folder import open_model
from core.engine.pruning.streams.measure import measure
from core.engine.recovery.distill import distillation_loss
from core.engine.recovery.losses import Loss, next_token_loss
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import OpenedModel, Teacher
from secateur_wire.metrics import Perplexity
from tests.engine.tiny import make_model

WINDOWS, LENGTH = 6, 20


def windows() -> tuple[Tensor, Tensor]:
    """Return token ids of windows, and which of them count: another number in each, among them the token 0."""
    generator = torch.Generator().manual_seed(0)
    ids_NT = torch.randint(96, (WINDOWS, LENGTH), generator=generator)
    ids_NT[0, 5] = 0
    counted_NT = torch.rand((WINDOWS, LENGTH), generator=generator) < torch.linspace(0.2, 0.9, WINDOWS)[:, None]
    counted_NT[:, 3] = True
    return ids_NT, counted_NT


@torch.inference_mode()
def losses(model: nn.Module, ids_NT: Tensor) -> Tensor:
    """Return the loss of the prediction of each token but each first, [windows, time - 1]."""
    logits_NTV = model(ids_NT).logits[:, :-1].double()
    return nn.functional.cross_entropy(logits_NTV.transpose(1, 2), ids_NT[:, 1:], reduction="none")


def test_perplexity_is_that_of_the_tokens_that_count(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", num_hidden_layers=2)
    ids_NT, counted_NT = windows()
    texts = {"all": ids_NT, "some": with_counted(ids_NT, counted_NT)}
    measured = measure(
        open_model(folder), texts, work=tmp_path, device=torch.device("cpu"), activation_budget_bytes=2**20
    )
    each_NT = losses(AutoModelForCausalLM.from_pretrained(folder).eval(), ids_NT)
    some = each_NT[counted_NT[:, 1:]].mean()
    assert math.log(measured.perplexity["all"]) == pytest.approx(float(each_NT.mean()), rel=1e-6)
    assert math.log(measured.perplexity["some"]) == pytest.approx(float(some), rel=1e-6)
    by_window = measured.window_losses["some"]
    assert sum(by_window) / WINDOWS == pytest.approx(float(some), rel=1e-6)
    assert measured.window_losses["all"] == pytest.approx(each_NT.mean(1).tolist(), rel=1e-6)


@pytest.fixture
def model(tmp_path: Path) -> nn.Module:
    loaded: nn.Module = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "model", num_hidden_layers=1))
    return loaded


def test_training_predicts_the_tokens_that_count(model: nn.Module) -> None:
    ids_NT, counted_NT = windows()
    with torch.no_grad():
        given = next_token_loss(model, with_counted(ids_NT, counted_NT))
    assert float(given) == pytest.approx(float(losses(model, ids_NT)[counted_NT[:, 1:]].mean()), rel=1e-5)


def test_distillation_compares_the_predictions_of_tokens_that_count(model: nn.Module, tmp_path: Path) -> None:
    teacher = open_model(make_model(tmp_path / "teacher", seed=1, num_hidden_layers=1))
    recovery = Recovery.model_validate(
        {"method": "distill", "steps": 1, "batch_size": WINDOWS, "temperature": 1.0, "label_weight": 0.25,
         "hidden_states": 0.0, "lora": None}
    )  # fmt: skip
    opened = OpenedModel(
        open_model(tmp_path / "model"), model, recovery, [], Teacher(teacher, "r"), torch.device("cpu"), torch.float32
    )  # fmt: skip
    loss: Loss = distillation_loss(opened)
    ids_NT, counted_NT = windows()
    with torch.no_grad():
        wanted = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher")(ids_NT).logits[:, :-1].log_softmax(-1)
        own = model(ids_NT).logits[:, :-1].log_softmax(-1)
        rows = counted_NT[:, 1:]
        divergence = (wanted.exp() * (wanted - own)).sum(-1)[rows].mean()
        expected = 0.75 * divergence + 0.25 * losses(model, ids_NT)[rows].mean()
        given = loss(model, with_counted(ids_NT, counted_NT))
    assert float(given) == pytest.approx(float(expected), rel=1e-5)


def test_the_figure_is_that_of_the_whole_model_on_the_text_by_hand(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    backend = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    words = [f"w{number * 37 % 92 + 4}" for number in range(60)]
    text = evaluation_set([" ".join(words)], tokenizer, samples=None, length=20, name="words")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    nats, size = 0.0, 0
    for start in range(0, 60, 20):
        window = words[start : start + 20]
        ids = torch.tensor([[int(word[1:]) for word in window]])
        with torch.inference_mode():
            chances = model(ids).logits[0].double().log_softmax(-1)
        nats -= sum(float(chances[place, ids[0, place + 1]]) for place in range(19))
        size += sum(len(f" {word}") for word in window[1:])
    size += len("\n\n")  # which ends the document, and which no token follows
    measured = measure(
        open_model(folder), {"words": text.windows}, work=tmp_path / "work", device=torch.device("cpu"),
        activation_budget_bytes=2**20,
    )  # fmt: skip
    figures = Perplexity(dense=measured.perplexity["words"], pruned=2 * measured.perplexity["words"])
    bits = bits_per_byte(figures, tokens=text.predicted, text_bytes=text.text_bytes, stderr=None)
    assert (bits.tokens, bits.bytes) == (57, size)
    assert bits.dense == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert bits.pruned == pytest.approx(bits.dense + 57 / size), "a bit more for each token"
    assert bits.ratio == pytest.approx(bits.pruned / bits.dense)


def test_what_is_no_number_has_no_bits() -> None:
    for pruned in (math.nan, math.inf, None):
        bits = bits_per_byte(Perplexity(dense=10.0, pruned=pruned), tokens=9, text_bytes=30, stderr=None)
        assert bits.pruned is None and bits.ratio is None and bits.dense == pytest.approx(0.3 * math.log2(10))


def test_the_error_of_a_ratio_is_that_of_its_windows_in_pairs() -> None:
    dense = [2.0, 3.0, 2.5, 4.0]
    assert bits_ratio_stderr(dense, [1.5 * loss for loss in dense]) == pytest.approx(0.0), "every window says the same"
    pruned = [2.2, 3.1, 2.9, 4.0]
    ratio = sum(pruned) / sum(dense)
    squares = sum((after - ratio * before) ** 2 for before, after in zip(dense, pruned, strict=True))
    assert bits_ratio_stderr(dense, pruned) == pytest.approx(math.sqrt(squares / 3) / 2 / (sum(dense) / 4))
    for other in (pruned[:3], [], [*pruned[:3], math.inf]):
        assert bits_ratio_stderr(dense, other) is None and bits_ratio_stderr(dense[:3], pruned[:3]) is None
