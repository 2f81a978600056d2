"""Answers of a model, and what a pruned model makes of the dense model's answers, in float32 on the processor."""

from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.conversations import Conversation
from core.engine.datasets.chat.template import TemplateRenderer, read_template
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.generation import TurnEnds
from core.engine.models.loading import load_model

_AT_ONCE = 16

_TOPICS: Final = (
    "the moon", "bread", "rain", "a bicycle", "sleep", "a library", "salt", "the heart", "a bridge", "honey",
    "electricity", "a garden", "money", "music", "the sea",
)  # fmt: skip
_ACTIVITIES: Final = (
    "learning a language", "saving money", "cooking rice", "packing a suitcase", "falling asleep", "writing a letter",
    "cleaning a kitchen", "growing tomatoes", "reading more books", "preparing for an exam", "running in winter",
    "meeting new people", "repairing a shirt", "planning a birthday", "travelling by train",
)  # fmt: skip
_FORMS: Final = (
    ("Explain in two sentences what {} is.", _TOPICS),
    ("Why is {} important to people?", _TOPICS),
    ("Write a short poem about {}.", _TOPICS),
    ("Tell a child something surprising about {}.", _TOPICS),
    ("Name three words that go with {}, and say why.", _TOPICS),
    ("Give me three tips for {}.", _ACTIVITIES),
    ("What do I need for {}?", _ACTIVITIES),
    ("Describe the first step of {}.", _ACTIVITIES),
    ("Write a friendly message to someone who finds {} hard.", _ACTIVITIES),
    ("What is a common mistake in {}?", _ACTIVITIES),
)


def draw_prompts(count: int, seed: int = 0) -> list[str]:
    """Return so many different requests in an order by the seed; of 150, forms take turns as chance has it."""
    every = [form.format(subject) for form, subjects in _FORMS for subject in subjects]
    Random(seed).shuffle(every)
    return every[:count]


def answer(spec: dict[str, Any]) -> dict[str, Any]:
    """Answer so many `prompts` greedily with the spec's `model`, in at most `tokens` new tokens, asked as it is asked.

    Returns the ids of the `answers`, and whether each `ended`.
    """
    return _answers(open_model(Path(spec["model"])), spec)


def compare(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what `answer` does for the spec's `pruned` model, and how far it is from the dense `model`.

    Along the dense model's answers to the prompts, `divergences` are the sums of KL(dense‖pruned) in nats of each,
    `predictions` their numbers, and `same` how many of the likeliest tokens are equal. `lengths` are the tokens of the
    answers, and `dense_lengths` those of the dense model's.
    """
    dense_answers = spec["beside"]["dense"]["answers"]
    dense, pruned = open_model(Path(spec["model"])), open_model(Path(spec["pruned"]), own_artifact=True)
    prompts = _rendered(_renderer(spec["model"]), dense.tokenizer(), draw_prompts(spec["prompts"]))
    models = [_loaded(folder) for folder in (dense, pruned)]
    along = [_along(models, *pair) for pair in zip(prompts, dense_answers, strict=True)]
    del models
    own = _answers(pruned, spec)
    return {
        "kl": sum(each[0] for each in along) / sum(map(len, dense_answers)),
        "divergences": [each[0] for each in along],
        "predictions": [len(each) for each in dense_answers],
        "same": [each[1] for each in along],
        "lengths": [len(each) for each in own["answers"]],
        "dense_lengths": [len(each) for each in dense_answers],
        **own,
    }


def _answers(folder: ModelFolder, spec: dict[str, Any]) -> dict[str, Any]:
    model, tokenizer, renderer = _loaded(folder), folder.tokenizer(), _renderer(spec["model"])
    ends = TurnEnds(folder.config, tokenizer, renderer.frame()).tokens
    return _greedy(model, ends, _rendered(renderer, tokenizer, draw_prompts(spec["prompts"])), spec["tokens"])


def _loaded(folder: ModelFolder) -> Any:
    return load_model(folder, torch.device("cpu"), dtype=torch.float32)


def _renderer(place: str) -> TemplateRenderer:
    """Return the renderer of a folder's chat template."""
    template = read_template(Path(place))
    assert template is not None, place
    return TemplateRenderer(template)


def _rendered(renderer: TemplateRenderer, tokenizer: PreTrainedTokenizerBase, questions: list[str]) -> list[list[int]]:
    """Return the ids of the text that asks for the answer to each question."""
    asked = [Conversation(number, [{"role": "user", "content": each}]) for number, each in enumerate(questions, 1)]
    return [list(tokenizer(renderer.question(each), add_special_tokens=False).input_ids) for each in asked]


@torch.inference_mode()
def _greedy(model: Any, ends: set[int], prompts: list[list[int]], tokens: int) -> dict[str, Any]:
    """Return the answers with the token of `ends` that ended them, if any; the shortest prompts are read together."""
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), _AT_ONCE):
        numbers = order[start : start + _AT_ONCE]
        longest = max(len(prompts[number]) for number in numbers)
        padded = [[min(ends)] * (longest - len(prompts[each])) + prompts[each] for each in numbers]
        mask = [[0] * (longest - len(prompts[each])) + [1] * len(prompts[each]) for each in numbers]
        output = model.generate(
            torch.tensor(padded),
            attention_mask=torch.tensor(mask),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=min(ends),
        )
        for number, row in zip(numbers, output[:, longest:].tolist(), strict=True):
            end = next((place for place, token in enumerate(row) if token in ends), None)
            answers[number] = row if end is None else row[: end + 1]
    return {"answers": answers, "ended": [bool(each) and each[-1] in ends for each in answers]}


@torch.inference_mode()
def _along(models: list[Any], prompt: list[int], answer: list[int]) -> tuple[float, int]:
    """Return Σ KL(dense‖pruned) along an answer, in nats, and how many likeliest tokens are the same."""
    dense_TV, pruned_TV = (_log_probabilities(model, prompt, answer) for model in models)
    divergence = torch.nn.functional.kl_div(pruned_TV, dense_TV, reduction="sum", log_target=True)
    return float(divergence), int((dense_TV.argmax(-1) == pruned_TV.argmax(-1)).sum())


def _log_probabilities(model: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """Return the logarithms of the probabilities [answer, V] with which each token of an answer is predicted."""
    logits_TV: Tensor = model(torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits_TV.double().log_softmax(dim=-1)
