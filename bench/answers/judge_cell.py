"""Answers of a model, and what a pruned model makes of the dense model's answers, in float32 on the processor."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.conversations import Conversation
from core.engine.datasets.chat.template import TemplateRenderer, read_template
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import load_model
from core.engine.models.turn_ends import TurnEnds
from secateur_wire.base import JsonObject

_AT_ONCE = 16


def answer(spec: dict[str, Any]) -> dict[str, Any]:
    """Answer the spec's requests `prompts` greedily with its `model`, in at most `tokens` new tokens.

    `template` is the folder whose chat template asks them. Returns the ids of the `answers`, and whether each `ended`.
    """
    folder = open_model(Path(spec["model"]), own_artifact=True)
    model, tokenizer = _loaded(folder), folder.tokenizer()
    renderer = _renderer(spec["template"])
    prompts = _rendered(renderer, tokenizer, [[{"role": "user", "content": each}] for each in spec["prompts"]])
    ends = TurnEnds(folder.config, tokenizer, renderer.frame()).tokens
    return _greedy(model, ends, prompts, spec["tokens"])


def compare(spec: dict[str, Any]) -> dict[str, Any]:
    """Return what `answer` does for the spec's `pruned` model, and how far it is from the dense `model`.

    Along the dense model's `dense_answers` to the prompts, `divergences` are the sums of KL(dense‖pruned) in nats of
    each, `predictions` their numbers, and `same` how many of the likeliest tokens are equal.
    """
    dense, pruned = (open_model(Path(spec[name]), own_artifact=True) for name in ("model", "pruned"))
    tokenizer = dense.tokenizer()
    renderer = _renderer(spec["template"])
    prompts = _rendered(renderer, tokenizer, [[{"role": "user", "content": each}] for each in spec["prompts"]])
    models = [_loaded(folder) for folder in (dense, pruned)]
    along = [_along(models, *pair) for pair in zip(prompts, spec["dense_answers"], strict=True)]
    del models
    return {
        "divergences": [each[0] for each in along],
        "predictions": [len(each) for each in spec["dense_answers"]],
        "same": [each[1] for each in along],
        **answer(spec | {"model": spec["pruned"]}),
    }


def _loaded(folder: ModelFolder) -> Any:
    return load_model(folder, torch.device("cpu"), dtype=torch.float32)


def _renderer(place: str) -> TemplateRenderer:
    """Return the renderer of a folder's chat template."""
    template = read_template(Path(place))
    assert template is not None, place
    return TemplateRenderer(template)


def _rendered(
    renderer: TemplateRenderer, tokenizer: PreTrainedTokenizerBase, conversations: list[list[JsonObject]]
) -> list[list[int]]:
    """Return the ids of the text that asks for the answer to the last question."""
    texts = [renderer.question(Conversation(number, turns)) for number, turns in enumerate(conversations, 1)]
    return [list(tokenizer(text, add_special_tokens=False).input_ids) for text in texts]


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
