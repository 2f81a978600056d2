"""Trace of a language model as one graph that reads any number of tokens after those whose keys and values it is given.

The graph has no prefill of its own: a prompt is read with empty keys and values.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor
from torch.export import Dim
from transformers import DynamicCache, PreTrainedModel
from transformers.exporters.utils import get_leaf_tensors

from core.engine.models.folder import ModelFolder
from core.engine.models.loading import load_model

_BATCH: Final = 2
"""Sequences of the example: with one alone, the batch size 1 would become part of the graph."""
_PAST: Final = 3
_TIME: Final = 2
"""Tokens of the example that were read before, and that are read: not 1, which would become part of the graph."""

Inputs = dict[str, Any]


_TRACED_EXPERTS: Final = "grouped_mm"
"""transformers' way to compute experts without a loop over those that were chosen, which a trace cannot hold."""


def decoder_of(folder: ModelFolder) -> PreTrainedModel:
    """Return the model in float32, in main memory; layers may have different shapes."""
    model = load_model(folder, torch.device("cpu"), dtype=torch.float32)
    if folder.family.experts is not None:
        model.set_experts_implementation(_TRACED_EXPERTS)
    return model


@torch.no_grad()
def decoder_inputs(model: PreTrainedModel) -> tuple[Inputs, Inputs]:
    """Return an example of the model's inputs, and which of their dimensions vary, as `torch.export` takes them.

    Keys and values are [batch, heads, time, head size]; the mask is [batch, time before + time].
    """
    tokens_BT = torch.arange(_BATCH * (_PAST + _TIME)).reshape(_BATCH, -1) % model.config.vocab_size
    cache = DynamicCache()  # of whole layers: windows are in the mask
    model(**_inputs(tokens_BT[:, :_PAST], 0, cache))
    varying = {
        "input_ids": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC},
        "attention_mask": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC},
        "position_ids": {0: Dim.DYNAMIC, 1: Dim.DYNAMIC},
        "cache": [{0: Dim.DYNAMIC, 2: Dim.DYNAMIC} for _ in get_leaf_tensors(cache)],
    }
    return _inputs(tokens_BT[:, _PAST:], _PAST, cache), varying


def _inputs(tokens_BT: Tensor, position: int, cache: DynamicCache) -> Inputs:
    batch, time = tokens_BT.shape
    return {
        "input_ids": tokens_BT,
        "attention_mask": torch.ones(batch, position + time, dtype=torch.long),
        "position_ids": torch.arange(position, position + time).expand(batch, -1),
        "cache": cache,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' progress, warnings and logs out of the job's."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
