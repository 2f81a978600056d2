"""Timing of models in PyTorch, in this process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from core.engine.exporters.engine import Seconds
from core.engine.exporters.engine_process import PromptAndDecoding, SpeedTrial, timed_rounds, timed_steps
from core.engine.latency.costs import Workload
from core.engine.latency.small_models import random_model
from core.engine.latency.timing import EngineTiming, Timer
from core.engine.latency.variants import ModelShape
from core.engine.models.folder import ModelFolder
from core.engine.models.generation import cache_name
from core.engine.models.tensors import DTYPES


class TransformersTiming(EngineTiming):
    """Timing of models in main memory."""

    @contextmanager
    def prepared(
        self, folder: ModelFolder, shapes: Sequence[ModelShape], workload: Workload, place: Path
    ) -> Iterator[Timer]:
        models: list[PreTrainedModel] = []
        for shape in shapes:
            models.append(random_model(folder, shape, DTYPES[workload.type]))
            _share_weights(models[-1], models[0])

        def time(trial: SpeedTrial) -> Seconds:
            before = torch.get_num_threads()
            torch.set_num_threads(workload.used_threads)
            try:
                return timed_rounds([partial(_timed, model, trial) for model in models], trial)
            finally:
                torch.set_num_threads(before)

        yield time


def _share_weights(model: PreTrainedModel, first: PreTrainedModel) -> None:
    """Have a model use the first one's weights where they have the same name and shape, so that all fit in memory."""
    known = dict(first.named_parameters())
    for name, module in model.named_modules():
        for own, parameter in list(module.named_parameters(name, recurse=False)):
            other = known.get(own)
            if other is not None and other.shape == parameter.shape:
                setattr(module, own.rpartition(".")[2], other)


@torch.inference_mode()
def _timed(model: PreTrainedModel, trial: SpeedTrial) -> PromptAndDecoding:
    name, vocabulary = cache_name(model), int(model.config.get_text_config().vocab_size)
    tokens_1T = torch.tensor([trial.token_ids(vocabulary)])
    cache: dict[str, Any] = {}

    def step(begin: int, count: int) -> None:
        ids = tokens_1T[:, begin : begin + count]
        cache[name] = model(input_ids=ids, use_cache=True, logits_to_keep=1, **cache)[name]

    return timed_steps(step, trial)
