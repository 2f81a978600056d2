"""Jobs that remove tokens, with the real runner and a trained tokenizer: alone, beside others, killed, and refused."""

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from secateur_wire.errors import ApiError
from tests.engine.tiny import make_model
from tests.runner.conftest import Finish, Work, artifact, give_model, give_text
from tests.worker.conftest import Queue

TOKENS, ROW = 512, 32
LAYERS = 3
_SYLLABLES = {"garden": ("ro", "sa", "li", "fern", "moss", "ta"), "harbour": ("ke", "mu", "zo", "hul", "pir", "na")}


def words_of(kind: str) -> list[str]:
    generator = numpy.random.default_rng(1)
    return ["".join(generator.choice(_SYLLABLES[kind], generator.integers(2, 4))) for _ in range(150)]


def write_text(file: Path, kind: str, seed: int) -> Path:
    """Write passages of words of one kind."""
    generator, words = numpy.random.default_rng(seed), words_of(kind)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(" ".join(generator.choice(words, 60)) for _ in range(60)))
    return file


def write_trained(folder: Path, texts: list[Path]) -> Path:
    """Write a tiny Llama with a byte-level BPE that was trained on the texts."""
    make_model(folder, vocab_size=TOKENS, num_hidden_layers=LAYERS)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    trained.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    special = ["<pad>", "<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    trained.train([str(each) for each in texts], trainer)
    assert trained.get_vocab_size() == TOKENS
    PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    settings = jobs.settings
    texts = {
        name: write_text(settings.datasets_root / f"{name}.txt", name, seed)
        for seed, name in enumerate(("garden", "harbour"))
    }
    folder = write_trained(settings.models_root / "spoken", list(texts.values()))
    give_model(jobs, "spoken", folder)
    for name, file in texts.items():
        give_text(jobs, name, file)
    return {
        "model": "spoken",
        "method": "vocabulary",
        "calibration": {"dataset": "garden", "samples": 8, "sequence_length": 32},
        "evaluation": {
            "datasets": ["garden", "harbour"],
            "samples": 8,
            "sequence_length": 32,
            "prompts": ["rosa limoss"],
            "prompt_tokens": 4,
        },
    }


@pytest.fixture(scope="module")
def alone(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that removed the tokens that its text does not use."""
    return finish(body | {"parameters": {"round_to": 8}})


def opened(folder: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_text_of_the_same_words_is_read_and_predicted_as_before(jobs: Queue, alone: str, body: dict[str, Any]) -> None:
    job, report, folder = jobs.job(alone), jobs.report(alone), artifact(jobs, alone)
    vocabulary, metrics = report["vocabulary"], job.metrics
    assert metrics is not None and job.sparsity is None
    kept, gone = vocabulary["kept"], TOKENS - vocabulary["kept"]
    assert kept % 8 == 0 and vocabulary["least"] <= vocabulary["used"] + 260 and 0 < gone < TOKENS
    assert vocabulary["covered"] == 1.0 and vocabulary["coverage"][-1] == {"tokens": TOKENS, "share": 1.0}
    assert metrics["parameters"]["dense"] - metrics["parameters"]["nonzero"] == gone * ROW == vocabulary["parameters"]
    assert metrics["vocabulary"] == {"dense": TOKENS, "pruned": kept}
    garden, harbour = (metrics["perplexity"][name] for name in ("garden", "harbour"))
    assert vocabulary["texts"]["garden"]["dense"] == vocabulary["texts"]["garden"]["pruned"]
    assert garden["ratio"] < 1 and garden["bits_per_byte"]["ratio"] < 1, "no mass goes to tokens that are not there"
    longer = vocabulary["texts"]["harbour"]
    assert longer["pruned"] > longer["dense"] and harbour["ratio"] > garden["ratio"]
    words = longer["words"]
    assert len(words) == 20 and all(each["pruned"] > each["dense"] for each in words)
    costs = [(each["pruned"] - each["dense"]) * each["count"] for each in words]
    assert costs == sorted(costs, reverse=True)
    assert harbour["bits_per_byte"]["bytes"] and harbour["bits_per_byte"]["tokens"]
    assert "<svg" in (folder / "vocabulary.svg").read_text() and "Vocabulary: " in (folder / "README.md").read_text()

    (dense, before), (pruned, after) = opened(jobs.settings.models_root / "spoken"), opened(folder)
    assert len(after) == kept == pruned.config.vocab_size
    text = (jobs.settings.datasets_root / "garden.txt").read_text()[:2000]
    old, new = (each(text, return_tensors="pt")["input_ids"][:, :64] for each in (before, after))
    places = before.convert_tokens_to_ids(after.convert_ids_to_tokens(range(kept)))
    assert old.tolist() == [[places[each] for each in new[0].tolist()]]
    with torch.inference_mode():
        assert torch.allclose(dense(old).logits[..., places], pruned(new).logits, atol=1e-5)


def test_layers_go_beside_tokens_and_a_share_is_one_of_the_whole_model(
    jobs: Queue, body: dict[str, Any], finish: Finish, alone: str
) -> None:
    dense = jobs.report(alone)["metrics"]["parameters"]["dense"]
    layer = (dense - TOKENS * ROW - ROW) // LAYERS
    asked = body | {"method": "depth", "sparsity": layer / dense, "vocabulary": {"tokens": 400, "round_to": 8}}
    job_id = finish(asked)
    job, report = jobs.job(job_id), jobs.report(job_id)
    assert job.sparsity == pytest.approx(layer / dense)
    assert report["vocabulary"]["kept"] == 400
    assert job.metrics["parameters"]["nonzero"] == dense - layer - (TOKENS - 400) * ROW
    target = body | {"method": "depth", "target": {"parameters": dense - (TOKENS - 400) * ROW}}
    met = finish(target | {"vocabulary": {"tokens": 400, "round_to": 8}})
    assert jobs.job(met).metrics["parameters"]["nonzero"] == dense - (TOKENS - 400) * ROW, "the tokens were enough"


def test_requests_that_cannot_be_met_are_refused_with_what_would_be_right(
    jobs: Queue, body: dict[str, Any], work: Work
) -> None:
    for changes, words in (
        ({"parameters": {"tokens": 600}}, "parameters.tokens: 512 tokens would stay, and the model has 512"),
        ({"sparsity": 0.9}, "sparsity 0.9: the vocabulary has"),
        ({"parameters": {"tokens": 300}, "sparsity": 0.05}, "both say how much goes"),
        ({"vocabulary": "auto"}, "method vocabulary itself removes tokens"),
        ({"calibration": None}, "calibration is required: tokens are counted on text"),
    ):
        with pytest.raises(ApiError, match=words):
            jobs.submit(body | changes)
    job_id = jobs.submit(body | {"parameters": {"tokens": 64}})
    assert work().result(60) == "failed"
    error = jobs.job(job_id).error
    assert error is not None and "must stay" in error.message
    assert (error.code, error.param) == ("invalid_request", "parameters.tokens")
