"""Pruned language models opened as their users open them, in a process that did not prune them."""

import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from core.engine.evaluation.reload_check import reload_check


def reload(artifact: Path, expected: Path) -> None:
    """Fail unless `from_pretrained` gives the logits it must give."""
    torch.set_num_threads(1)
    reload_check(artifact, expected, device=torch.device("cpu"))


def reload_with_code(made: list[tuple[Path, Path]]) -> None:
    """Fail unless each of the folders opens by its own modelling file, if it has one, generates with and without its
    cache, runs with another attention, and is saved and opened again by transformers alone.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)
    for artifact, expected in made:
        figures = reload_check(artifact, expected, device=torch.device("cpu"))
        assert figures["trust_remote_code"] == (artifact / "modeling_secateur.py").exists()
        model = _open(artifact)
        asked = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        tokens = torch.arange(4, 16)[None]
        assert torch.equal(model.generate(tokens, **asked), model.generate(tokens, use_cache=False, **asked)), artifact
        logits = model(input_ids=tokens).logits
        model.set_attn_implementation("eager")
        assert torch.allclose(model(input_ids=tokens).logits, logits, atol=1e-5)
        again = artifact.with_name("again")
        model.save_pretrained(again)
        assert torch.allclose(_open(again)(input_ids=tokens).logits, logits, atol=1e-5)


def _open(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    return model
