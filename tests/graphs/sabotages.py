"""Mistakes in a traced graph: all have to be caught in the engine that runs it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import pytest
import torch
from transformers import DynamicLayer, PreTrainedModel

from core.engine.exporters import graph_files
from core.engine.models.folder import ModelFolder

Mistake = Callable[[pytest.MonkeyPatch, PreTrainedModel], None]


def _swap_projections(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    """Swap the gate and the channels of every layer."""
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


def _lose_the_rotary_base(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    """Turn by the library's usual base, not by the config's."""
    rotary = model.model.rotary_emb
    assert model.config.rope_parameters["rope_theta"] != 1e4
    size = 2 * len(rotary.inv_freq)
    rotary.inv_freq = 1e4 ** (-torch.arange(0, size, 2) / size)


def _keep_the_cache(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    """Attend to new keys and values, and give back those that were there before."""
    update = DynamicLayer.update

    def stale(self: Any, keys: torch.Tensor, values: torch.Tensor, *rest: Any, **named: Any) -> Any:
        if not self.is_initialized or not self.keys.shape[2]:
            return update(self, keys, values, *rest, **named)
        before = self.keys, self.values
        joined = update(self, keys, values, *rest, **named)
        self.keys, self.values = before
        return joined

    patch.setattr(DynamicLayer, "update", stale)


def _begin_again_at_position_0(patch: pytest.MonkeyPatch, model: PreTrainedModel) -> None:
    """Count the positions of the tokens that are read from 0, whatever was read before them."""
    forward = model.forward

    @wraps(forward)
    def wrong(**inputs: Any) -> Any:
        places = inputs["position_ids"]
        return forward(**inputs | {"position_ids": places - places[:, :1]})

    model.forward = wrong


SABOTAGES: Final[Mapping[str, Mistake]] = {
    "swapped projections": _swap_projections,
    "a missing rotary base": _lose_the_rotary_base,
    "a stale cache": _keep_the_cache,
    "a wrong position": _begin_again_at_position_0,
}
ONLY_DECODED: Final = ("a stale cache", "a wrong position")
"""Mistakes that a prompt alone does not show."""


@contextmanager
def done(mistake: Mistake) -> Iterator[None]:
    """Make a mistake in every graph that is traced inside the context."""
    with pytest.MonkeyPatch.context() as patch:
        decoder_of = graph_files.decoder_of

        def wrong(folder: ModelFolder) -> PreTrainedModel:
            model = decoder_of(folder)
            mistake(patch, model)
            return model

        patch.setattr(graph_files, "decoder_of", wrong)
        yield
