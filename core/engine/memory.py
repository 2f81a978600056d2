"""Bounds of the memory that a job takes, from the model's shapes and the recipe alone; without torch.

The upper bound orders workers, and warns. It refuses nothing: a pass that runs out of memory halves its micro-batches
(`core.engine.models.micro_batches`), and a job that ran out is tried where more memory is. The lower bound counts only
weights that are in memory at once; a worker without room for them cannot run the job. All results are in bytes.
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from core.engine.architectures.description import ClassifierDescription, ModelDescription
from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.evaluation.zero_shot_tasks import batch_size
from core.engine.recovery.request import RECOVERIES, Recovery, kept_activation_bytes, sequences_at_once

Holds = Literal["block", "model"]
"""Weights that a method holds at once: one block's, or the entire model's."""

_LOGIT_POSITIONS = 256  # whose logits are computed at a time
_LOGIT_COPIES = 4  # in training: the output, its float32 cast, their gradient, and those of the loss
_MICRO_BATCH_TOKENS = 4096
_FLOAT = 4
_MATRICES = 5  # as large as XᵀX, that a solver holds: the sum, its factor, the inverse, and workspace
_SOLVED = 2  # matrices of weights that are solved together, such as the two inputs of a gated FFN
_TRAINED = 19
"""Bytes of a trained parameter: itself, its gradient and two moments in float32, a 16-bit cast, and a mask of zeros."""
_SOLVED_BYTES = 16
"""Bytes of a weight while it is pruned: itself, its score, its result and what these are made from, in float32."""


@dataclass(frozen=True)
class Pass:
    """Pass over a language model: what it `holds` and reads, and the numbers of its tokens.

    `value_bytes` is the size of a value in forwards. `lanes` models run side by side. `waits`: all tokens wait in front
    of a layer until it is pruned. `budget_bytes` is the most that the hidden states between blocks may take.
    """

    holds: Holds
    reads_gram: bool
    takes_gradients: bool
    lanes: int
    waits: bool
    value_bytes: int
    calibration: int
    evaluation: int
    window: int
    budget_bytes: int


def pass_bytes(model: ModelDescription, work: Pass) -> int:
    """Return the upper bound of a pass: weights, statistics, waiting tokens, hidden states and one micro-batch."""
    block, stored = largest_block(model), WEIGHT_BYTES[model.dtype]
    sizes = [each.numel for each in block]
    widest, broadest = max(each.in_features for each in block), max(each.out_features for each in block)
    solved = sum(sizes) if work.takes_gradients else _SOLVED * max(each.numel // (each.experts or 1) for each in block)
    weights = model.outer_bytes + sum(sizes) * (stored + work.lanes * work.value_bytes) + _SOLVED_BYTES * solved
    if work.holds == "model":
        weights += model.prunable_parameters * work.value_bytes
    statistics = _MATRICES * _FLOAT * widest**2 * work.reads_gram
    waiting = work.lanes * work.calibration * (widest + 2 * model.hidden_size) * work.value_bytes * work.waits
    states = work.lanes * work.calibration * (model.layers if work.takes_gradients else 1) + 2 * work.evaluation
    streams = min(states * model.hidden_size * _FLOAT, work.budget_bytes)
    tokens = min(max(work.calibration, work.evaluation, work.window), _MICRO_BATCH_TOKENS)
    batch = tokens * work.value_bytes * (3 * model.hidden_size + 2 * broadest)
    logits = 3 * _FLOAT * min(_LOGIT_POSITIONS, work.evaluation) * model.vocabulary_size
    return weights + statistics + waiting + streams + max(batch, logits)


def training_bytes(model: ModelDescription, recovery: Recovery, *, frozen_bytes: int, budget_bytes: int) -> int:
    """Return the upper bound of training: weights, what trains, a teacher, activations and logits.

    `frozen_bytes` is the size of a weight that is not trained. All activations are kept where they fit `budget_bytes`;
    else the inputs of all blocks are, and one block's activations.
    """
    tokens = sequences_at_once(recovery) * (recovery.sequence_length or 0)
    trained = trained_parameters(model, recovery)
    frozen = model.parameters if recovery.lora is not None else max(0, model.parameters - trained)
    weights = frozen_bytes * frozen + _TRAINED * trained
    if RECOVERIES[recovery.method].learns_from_model:
        matched = tokens * model.hidden_size * model.layers * 2 * _FLOAT if recovery.hidden_states else 0
        weights += frozen_bytes * model.parameters + matched
    block = largest_block(model)
    inside = 6 * model.hidden_size + 3 * max(each.out_features for each in block)
    activations = _FLOAT * tokens * (model.layers * model.hidden_size + 2 * inside)
    if recovery.lora is not None:  # the block's weights, and their update, in float32
        weights += 3 * _FLOAT * sum(each.numel for each in block)
    elif (every := kept_activation_bytes(model, recovery)) <= budget_bytes:
        activations = max(activations, every)
    return weights + activations + _FLOAT * _LOGIT_COPIES * tokens * model.vocabulary_size


def trained_parameters(model: ModelDescription, recovery: Recovery) -> int:
    """Return the number of parameters that training changes; experts are left as they are."""
    linears = [each for each in model.linears if each.experts is None]
    if recovery.lora is not None:
        adapted = (each for each in linears if each.matches(recovery.lora.targets or ["*"]))
        return recovery.lora.r * sum(each.in_features + each.out_features for each in adapted)
    ends = model.vocabulary_size * model.hidden_size * (1 if model.tied_embeddings else 2)
    frozen = model.prunable_parameters - sum(each.numel for each in linears) + model.other_module_parameters
    return max(0, model.parameters - frozen - (0 if recovery.train_embeddings else ends))


def scoring_bytes(model: ModelDescription, longest: int, logits_bytes: int) -> int:
    """Return the upper bound of scoring questions of at most `longest` tokens: the model, and three batches' logits."""
    longest = min(longest, model.context_length)
    tokens = longest * batch_size(longest, model.vocabulary_size, logits_bytes)
    widest = max(each.out_features for each in model.linears)
    values = 3 * model.vocabulary_size + 6 * model.hidden_size + 3 * widest
    return model.bytes + tokens * values * WEIGHT_BYTES[model.dtype]


def least_bytes(model: ModelDescription, holds: Holds) -> int:
    """Return the lower bound: stored weights that are in memory at once, embeddings and head with one block or all."""
    if holds == "model":
        return model.parameters * WEIGHT_BYTES[model.dtype]
    return model.outer_bytes + sum(each.numel for each in largest_block(model)) * WEIGHT_BYTES[model.dtype]


def classifier_bytes(model: ClassifierDescription, images: int, *, trains: bool, reads_gram: bool) -> int:
    """Return the upper bound of a job on an image classifier: weights, what trains, and activations of `images`.

    The activations are those that a worker found; until one did, they are taken to be three times the weights.
    """
    weights = _FLOAT * model.parameters
    statistics = _MATRICES * _FLOAT * max(each.in_features for each in model.linears) ** 2 * reads_gram
    fixed = 3 * weights + statistics + (_TRAINED * model.parameters if trains else 0)
    if model.passes is None:
        return fixed + 3 * weights
    return fixed + images * (model.passes.training_bytes if trains else model.passes.evaluation_bytes)


def largest_block(model: ModelDescription) -> list[LinearShape]:
    """Return the linear layers of the block with the most weights; blocks may differ."""
    blocks: dict[int, list[LinearShape]] = defaultdict(list)
    for linear in model.linears:
        blocks[linear.layer].append(linear)
    return max(blocks.values(), key=lambda block: sum(each.numel for each in block))
