"""Mean squares of the inputs of a model's linear layers, from one pass of tokens that changes nothing."""

from pathlib import Path

import torch
from torch import Tensor

from core.engine.models.folder import ModelFolder
from core.engine.models.precision import fast_arithmetic
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.plan import MICRO_BATCH_TOKENS
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.propagation import BlockPropagation, input_groups
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.store import ResumeStore


@torch.inference_mode()
def mean_squares(
    folder: ModelFolder, tokens_NT: Tensor, *, work: Path, device: torch.device, activation_budget_bytes: int
) -> dict[str, Tensor]:
    """Return the mean of x² of each input of the blocks' linear layers, float32 [in_features], by the layer's name.

    It is diag(XᵀX) / n over the n tokens of `tokens_NT` [sequences, time] that count; inputs that are zero in all get a
    small share of the others' mean. Layers of experts are left out, as each reads some of the tokens. `work` is a
    folder for activations beyond the budget.
    """
    work.mkdir(parents=True, exist_ok=True)
    names = {each.name for each in folder.description.linears if each.experts is None}
    averages: dict[str, Tensor] = {}
    with fast_arithmetic(device):
        dtype = DTYPES[folder.description.dtype]
        streamed = StreamedModel(folder, dtype=dtype, device=device)
        stream = Stream(
            "calibration",
            tokens_NT,
            streamed,
            ResumeStore(work, ""),
            ActivationBudget(activation_budget_bytes),
            dtype=dtype,
            micro_batch=max(1, MICRO_BATCH_TOKENS // tokens_NT.shape[1]),
            resumable=False,
        )
        stream.start()
        for index, block in streamed.filled_blocks(range(len(streamed)), "measuring inputs by blocks", dtype):
            prefix = f"{streamed.block_prefix(index)}."
            groups = input_groups(folder.family.inputs, names, prefix)
            propagation = BlockPropagation(
                block, index, stream, groups, lambda: InputStatistic(Statistic.NORMS, sample_stride=tokens_NT.numel())
            )
            for group, statistic in propagation.collect(advances=True).items():
                statistic.fill_unseen_inputs()
                average_I = (statistic.norms_I.square() / statistic.tokens).cpu()
                averages |= {f"{prefix}{name}": average_I for name in group.linears}
        stream.close()
    return averages
