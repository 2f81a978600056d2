"""Account of the bytes that a device of its own memory holds at the peak of each stage of a job on a language model.

It follows the engine, allocation by allocation: a stage holds some tensors throughout and others in turn, and its peak
is the most that there is at a time. Widths are those of the largest block, so that nothing grows with depth but what
loads whole models. What the libraries beneath torch take for themselves, the fragments of the allocator and the
device's context are not in it.

Letters: D is the hidden size, I the inputs of a linear layer, V the vocabulary, w the bytes of a stored weight, f those
of a value in the calibration forward.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES
from core.engine.options.compensation import Compensation, Refit
from core.engine.options.propagation import PropagationOptions
from core.methods.cost import Cost, CostFacts

_FLOAT = 4
_MICRO_BATCH_TOKENS = 4096
_LOGIT_POSITIONS = 256
_VERIFIED_POSITIONS = 64
_SAMPLED_TOKENS = 1024
"""Tokens by whose inputs reconstruction errors are measured, about."""
_ROTARY_FEATURES = 256
"""Cosines and sines of a position, of the widest heads."""
_SMALL_TENSORS = 1.02
"""All there is, to what is counted: biases, norms, indices, sums, and what an allocator rounds up."""


class Ledger:
    """Bytes held, and the most that were."""

    def __init__(self) -> None:
        self.held = 0
        self.peak = 0

    def reach(self, nbytes: float) -> None:
        """Note that so many bytes are taken beside what is held, and given back."""
        self.peak = max(self.peak, self.held + ceil(nbytes))

    def take(self, nbytes: float) -> None:
        """Hold so many bytes more."""
        self.held += ceil(nbytes)
        self.peak = max(self.peak, self.held)

    @contextmanager
    def holding(self, nbytes: float) -> Iterator[None]:
        """Hold so many bytes inside the context, and at its end what was held at its beginning."""
        before = self.held
        self.take(nbytes)
        try:
            yield
        finally:
            self.held = before


@dataclass(frozen=True)
class InputGroup:
    """Linear layers that read one tensor of `inputs` features, of so many weights each.

    `waiting` are the values of each token that a forward holds while it waits before them, beside the block's input;
    `arriving` the most on the way there from the group before. `is_added`: what they give goes to the residual stream.
    """

    inputs: int
    sizes: tuple[int, ...]
    waiting: int
    arriving: int
    is_added: bool

    @property
    def weights(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class BlockShape:
    """Largest decoder block of a model: its weights, and its groups in the order in which tokens come to them."""

    weights: int
    hidden_size: int
    groups: tuple[InputGroup, ...]

    @classmethod
    def of(cls, description: ModelDescription) -> "BlockShape":
        blocks: dict[int, list[LinearShape]] = defaultdict(list)
        for linear in description.linears:
            blocks[linear.layer].append(linear)
        largest = max(blocks.values(), key=lambda block: sum(linear.numel for linear in block))
        return cls(
            weights=sum(linear.numel for linear in largest),
            hidden_size=description.hidden_size,
            groups=tuple(_groups(description, largest)),
        )

    @property
    def passing(self) -> int:
        """Values of each token at the most while a micro-batch goes through the block, its input among them."""
        return self.hidden_size + max(each.arriving for each in self.groups)


def _groups(description: ModelDescription, linears: Sequence[LinearShape]) -> Iterator[InputGroup]:
    """Yield the groups of a block, sublayer by sublayer.

    A sublayer holds the residual stream, if that is not the block's input, and its normed input. Before attention's
    output there are queries, keys and values beside what it reads; on the way rotated copies of them. Before that of an
    FFN there is its input alone; on the way two more as wide.
    """
    family, hidden = description.known_as, description.hidden_size
    by_name = {linear.name.partition(f"{family.blocks}.{linear.layer}.")[2]: linear for linear in linears}
    for place, sublayer in enumerate(family.sublayers):
        residual = hidden if place == 0 else 2 * hidden
        before: list[LinearShape] = []
        for names in sublayer.groups:
            group = [by_name[name] for name in names if name in by_name]
            if not group:
                continue
            inputs, given = group[0].in_features, sum(each.out_features for each in before)
            is_attention = "channels" not in sublayer.units
            waiting, arriving = residual, residual + 2 * hidden
            if before and is_attention:
                waiting, arriving = residual + given + inputs, residual + given + 3 * inputs
            elif before:
                waiting, arriving = residual + inputs, residual + 3 * inputs
            sizes = tuple(each.numel // (each.experts or 1) for each in group)
            yield InputGroup(inputs, sizes, waiting, arriving, names[-1] == sublayer.output)
            before = group


@dataclass(frozen=True)
class PassFacts:
    """Facts of a pass over the blocks, which all its stages share.

    `forward_bytes` are those of a value in the calibration forward; `lanes` are the models that calibration tokens go
    through side by side.
    """

    facts: CostFacts
    cost: Cost
    reads: str
    compensation: Refit | None
    forward_bytes: int
    activation_budget_bytes: int

    @property
    def description(self) -> ModelDescription:
        return self.facts.description

    @property
    def weight_bytes(self) -> int:
        return WEIGHT_BYTES[self.description.dtype]

    @property
    def lanes(self) -> int:
        return 2 if self.compensation is not None and self.compensation.refits else 1

    @property
    def micro_batch(self) -> int:
        """Tokens of a forward."""
        window = max(1, self.facts.tokens.window)
        options = self.facts.parameters
        chosen = options.micro_batch if isinstance(options, PropagationOptions) else None
        return window * (chosen or max(1, _MICRO_BATCH_TOKENS // window))

    @property
    def outer_bytes(self) -> int:
        """Bytes of embeddings, final norm and head."""
        description = self.description
        outer = description.parameters - description.prunable_parameters - description.other_module_parameters
        rotary = 4 * _ROTARY_FEATURES * self.facts.tokens.window * self.weight_bytes
        return max(outer, 0) * self.weight_bytes + rotary

    def kept_bytes(self, streams: Sequence[tuple[int, int]]) -> int:
        """Return the bytes of hidden states that stay, of streams each of so many tokens and bytes of a value.

        They are kept micro-batch by micro-batch, as long as the next one fits the budget.
        """
        used = 0
        for tokens, width in streams:
            left = tokens
            while left > 0:
                nbytes = min(left, self.micro_batch) * self.description.hidden_size * width
                if used + nbytes <= self.activation_budget_bytes:
                    used += nbytes
                left -= self.micro_batch
        return used


def layerwise_bytes(given: PassFacts) -> int:
    """Return the peak of a pass that sets weights to zero, block by block."""
    ledger, block = Ledger(), BlockShape.of(given.description)
    tokens, w, f = given.facts.tokens, given.weight_bytes, given.forward_bytes
    evaluated = [(tokens.evaluation, w)] * 2
    with ledger.holding(given.outer_bytes):
        calibrated = [(tokens.calibration, f)] * given.lanes
        _measure(ledger, given, [*calibrated, *evaluated])
        with ledger.holding(given.kept_bytes([*calibrated, *evaluated])):
            _forward(ledger, given, block, min(given.micro_batch, tokens.evaluation), w)
        # All calibration tokens are in the block at once, whether they fit the budget or not.
        used = given.kept_bytes([*calibrated, *evaluated]) - given.kept_bytes(calibrated)
        if tokens.calibration:
            with ledger.holding(used + given.lanes * tokens.calibration * block.hidden_size * f):
                _prune_block(ledger, given, block)
    return ceil(ledger.peak * _SMALL_TENSORS)


def _prune_block(ledger: Ledger, given: PassFacts, block: BlockShape) -> None:
    """Account for a block that is pruned: in flight all tokens wait in front of each group, else none does."""
    tokens, w, f = given.facts.tokens.calibration, given.weight_bytes, given.forward_bytes
    options = given.facts.parameters
    waits = not isinstance(options, PropagationOptions) or options.propagation == "in_flight"
    batch = min(given.micro_batch, tokens)
    with ledger.holding(given.lanes * block.weights * f):
        if not waits:
            ledger.take(sum(_statistic(given, group) for group in block.groups))
        before = 0
        for group in block.groups:
            arrived = _forward_bytes(given, group, f) * batch
            others = max(before, group.waiting) * (tokens - batch) if waits else 0
            with ledger.holding(_statistic(given, group) if waits else 0):
                ledger.reach(given.lanes * f * others + arrived + given.lanes * f * batch * group.waiting * (waits and given.lanes > 1))
                with ledger.holding(_waiting(given, group) if waits else 0):
                    _prune_group(ledger, given, group)
            if w != f:  # else the block has the pruned weights themselves
                ledger.take(group.weights * w)
            before = group.waiting


def _waiting(given: PassFacts, group: InputGroup) -> int:
    """Return the bytes of all tokens that wait before a group; in the dense model they have passed an added one."""
    passed = block_outputs(given, group) if given.lanes > 1 and group.is_added else 0
    values = given.lanes * group.waiting + passed
    return given.forward_bytes * given.facts.tokens.calibration * values


def block_outputs(given: PassFacts, group: InputGroup) -> int:
    return given.description.hidden_size if group.is_added else 0


def _forward_bytes(given: PassFacts, group: InputGroup, f: int) -> int:
    """Return the most bytes of a token on its way to a group, beside the block's input: there its statistic is taken.

    That reads inputs in float32: those of 16 bits, and the dense model's, are copied.
    """
    statistic = _FLOAT * group.inputs * (f < _FLOAT) * (given.reads != "none" or given.lanes > 1)
    if given.lanes > 1 and group.is_added:  # both streams, their difference and the target
        statistic += 4 * _FLOAT * given.description.hidden_size
    elif given.lanes > 1:
        statistic += _FLOAT * group.inputs * (f < _FLOAT)
    return max(f * group.arriving, f * group.waiting + statistic)


def _statistic(given: PassFacts, group: InputGroup) -> int:
    """Return the bytes of the statistic of a group's inputs."""
    tokens = given.facts.tokens.calibration
    if given.compensation is None and given.reads != "gram":
        stride = max(1, tokens // _SAMPLED_TOKENS)
        return _FLOAT * group.inputs * (1 + ceil(tokens / stride))
    gram = _FLOAT * group.inputs**2
    if given.lanes > 1:
        gram += _FLOAT * group.inputs * (given.description.hidden_size if group.is_added else group.inputs)
    chooses = given.compensation is not None and given.compensation.chooses
    return gram * (2 if chooses else 1)  # of the tokens that are held out as well


def _prune_group(ledger: Ledger, given: PassFacts, group: InputGroup) -> None:
    """Account for linear layers of one input that are pruned, fitted, rounded and measured."""
    w, weights, largest = given.weight_bytes, _FLOAT * group.weights, _FLOAT * max(group.sizes)
    squares = _FLOAT * group.inputs**2
    with ledger.holding(weights):
        solver = given.cost.solver_bytes(given.facts, group.inputs, group.sizes)
        compensation = given.compensation
        if compensation is None:
            ledger.reach(solver)
        else:
            if compensation.refits:  # a factor, DᵀX − XᵀX, what is missing; the directions, and what is moved by them
                ledger.reach(max(2 * squares + weights + largest, 2 * weights + largest))
            with ledger.holding(weights if compensation.refits else 0):
                ledger.reach(solver)
                if isinstance(compensation, Compensation) and compensation.conjugate_gradient:
                    # The pruned weights; the mask, residual, its scaled copy, search, image, and the fit before and now.
                    done = weights - largest
                    ledger.reach(weights + done + largest * 25 // 4)
        rounded = 0 if w == _FLOAT else w * group.weights + largest
        if given.reads == "gram" or compensation is not None:
            measured = 2 * largest  # (W − Ŵ)XᵀX, and that times W − Ŵ
        else:
            sample = _FLOAT * min(given.facts.tokens.calibration, 2 * _SAMPLED_TOKENS)
            measured = sample * (group.inputs + 2 * max(group.sizes) // group.inputs)
        ledger.reach(weights + rounded + largest + measured)


def _forward(ledger: Ledger, given: PassFacts, block: BlockShape, batch: int, width: int) -> None:
    """Account for a micro-batch that goes through a block as it is."""
    with ledger.holding(block.weights * width):
        ledger.reach(batch * block.passing * width)


def _measure(ledger: Ledger, given: PassFacts, streams: Sequence[tuple[int, int]]) -> None:
    """Account for perplexity, from the last block's outputs of one window and a few positions at a time."""
    tokens, w = given.facts.tokens, given.weight_bytes
    if not tokens.evaluation:
        return
    description = given.description
    positions = min(_LOGIT_POSITIONS, tokens.window - 1)
    normed = min(tokens.window, tokens.evaluation) * description.hidden_size * (w + 2 * _FLOAT)
    logits = positions * description.vocabulary_size
    with ledger.holding(given.kept_bytes(streams)):
        ledger.reach(normed + logits * max(w + (_FLOAT if w < _FLOAT else 0), 2 * _FLOAT))


def unit_removal_bytes(given: PassFacts) -> int:
    """Return the peak of a pass that removes units which were chosen before it, by what was on the CPU alone."""
    ledger, block = Ledger(), BlockShape.of(given.description)
    tokens, w, f = given.facts.tokens, given.weight_bytes, given.forward_bytes
    evaluated = [(tokens.evaluation, w)] * 2
    calibrated = [(tokens.calibration, f)] * 2 if given.compensation is not None else []
    with ledger.holding(given.outer_bytes):
        _measure(ledger, given, [*evaluated, *calibrated])
        with ledger.holding(given.kept_bytes([*evaluated, *calibrated])):
            _forward(ledger, given, block, min(given.micro_batch, tokens.evaluation), w)
    return ceil(ledger.peak * _SMALL_TENSORS)


def gradient_bytes(given: PassFacts, *, squares: bool) -> int:
    """Return the peak of gradients taken block by block, a sequence at a time.

    There are a block, the sums of its gradients and of their squares, and the inputs of all blocks up to the budget.
    """
    ledger, block = Ledger(), BlockShape.of(given.description)
    tokens, f, hidden = given.facts.tokens, given.forward_bytes, given.description.hidden_size
    inputs = min(given.description.layers * tokens.calibration * hidden * f, given.activation_budget_bytes)
    sums = _FLOAT * block.weights * (2 if squares else 1)
    largest = max(size for group in block.groups for size in group.sizes)
    with ledger.holding(given.outer_bytes + inputs + tokens.calibration * hidden * f + block.weights * f + sums):
        passing = sum(each.arriving for each in block.groups) + hidden
        ledger.reach(block.weights * f + tokens.window * passing * f + (2 * _FLOAT * largest if squares else 0))
        converted = _FLOAT * block.weights if f < _FLOAT else 0
        ledger.reach(converted + _FLOAT * largest * (3 if squares else 2))
    return ceil(ledger.peak * _SMALL_TENSORS)


def reload_bytes(description: ModelDescription) -> int:
    """Return the peak of the check of the saved model, which loads all of it, and computes a few logits."""
    width = WEIGHT_BYTES[description.dtype]
    positions = min(_VERIFIED_POSITIONS, description.context_length)
    logits = positions * description.vocabulary_size * (width + (_FLOAT if width < _FLOAT else 0))
    return ceil((description.bytes + logits) * _SMALL_TENSORS)
