"""Decoder blocks of a model: the modules of one list that run once, in order, each on the output of the one before."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.discovery.build import vocabulary_size
from core.engine.discovery.provenance import ConstantWeights
from core.engine.models.hooks import first_output, removed_after
from core.engine.models.streamed import ArgumentRecorder, BlockArguments, Replacement, call_block
from secateur_wire.errors import UnsupportedArchitecture

BATCH, LENGTH = 2, 7
"""Shape of the tokens of a trace. The length differs from all numbers of heads or experts."""


@dataclass(frozen=True)
class Blocks:
    """Names of a model's parts: the list of blocks, the backbone and the head.

    `outputs` is the length of the tuple that a block returns; 0 for hidden states alone.
    """

    name: str
    base: str
    head: str
    count: int
    outputs: int


@dataclass
class _Calls:
    """Calls of the modules of one list, in order: the index, the first input tensor and the first output tensor."""

    modules: nn.ModuleList
    seen: list[tuple[int, Tensor | None, Tensor | None, int]] = field(default_factory=list)

    def refusal(self) -> str | None:
        """Return the reason why these modules are not decoder blocks; None where they are."""
        if [index for index, *_ in self.seen] != list(range(len(self.modules))):
            if len({index for index, *_ in self.seen}) < len(self.modules):
                return "some of its modules do not run"
            return "its modules do not all run exactly once, in order"
        for (_, _, given, _), (index, taken, _, _) in zip(self.seen, self.seen[1:], strict=False):
            if given is None or taken is None or not _same(given, taken):
                return f"the input of module {index} is not the output of the one before"
        if self.seen[0][1] is None or self.seen[0][1].dim() < 3 or not self.seen[0][1].is_floating_point():
            return "its modules do not take hidden states as input"
        return None


def _same(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata and one.shape == other.shape


def hidden_states(arguments: Sequence[object], keywords: Mapping[str, object]) -> Tensor | None:
    """Return the hidden states among a block's arguments: the first positional one, or the keyword `hidden_states`."""
    first = arguments[0] if arguments else keywords.get("hidden_states")
    return first if isinstance(first, Tensor) else None


def sample_tokens(model: PreTrainedModel, batch: int = BATCH, length: int = LENGTH, seed: int = 0) -> Tensor:
    """Return fixed tokens [batch, length], all different, without the first few of the vocabulary."""
    size = vocabulary_size(model)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(min(8, size - 1), size, (batch, length), generator=generator)


def run_model(model: nn.Module, tokens_BT: Tensor) -> Any:
    """Run a model or its backbone on tokens, without a cache; return its output."""
    accepted = inspect.signature(model.forward).parameters
    keywords = {"use_cache": False} if "use_cache" in accepted else {}
    with torch.no_grad():
        return model(input_ids=tokens_BT, **keywords)


def find_blocks(model: PreTrainedModel) -> Blocks:
    """Return the blocks of a model built without weights; raises UnsupportedArchitecture with the reason."""
    lists = {name: _Calls(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    handles = [
        module.register_forward_hook(_recorder(calls, index), with_kwargs=True)
        for calls in lists.values()
        for index, module in enumerate(calls.modules)
    ]
    kind = model.config.model_type
    with removed_after(handles), ConstantWeights():
        try:
            run_model(model, sample_tokens(model))
        except Exception as error:
            if "single memory location" in str(error):  # each weight here is one expanded element
                raise UnsupportedArchitecture(
                    f"{kind}: the model changes its own weights while it runs", param="model"
                ) from error
            raise UnsupportedArchitecture(
                f"{kind}: the model does not run with tokens as its only input: {type(error).__name__}: "
                f"{str(error)[:300]}",
                param="model",
            ) from error
    refusals = {}
    chained = []
    for name, calls in lists.items():
        reason = calls.refusal() if calls.seen else "its modules do not run"
        if len(calls.modules) and reason is None:
            chained.append(name)
        elif len(calls.modules):
            refusals[name] = reason
    outermost = [name for name in chained if not any(name.startswith(f"{each}.") for each in chained if each != name)]
    if not outermost:
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(refusals.items())[:3]) or "it has no such list"
        raise UnsupportedArchitecture(
            f"{kind}: no list of modules runs as decoder blocks must: each once, in order, with the output of the "
            f"one before as its input ({shown})",
            param="model",
        )
    name = max(outermost, key=lambda each: sum(parameter.numel() for parameter in lists[each].modules.parameters()))
    calls = lists[name]
    return Blocks(name, _base(model, name), _head(model), len(calls.modules), calls.seen[0][3])


def modules_not_run(model: PreTrainedModel) -> tuple[str, ...]:
    """Return the outermost modules with weights that do not run on tokens alone.

    No module that runs shares a weight with them. The model was built without weights.
    """
    ran: set[nn.Module] = set()
    handles = [
        module.register_forward_hook(lambda module, arguments, output: ran.add(module)) for module in model.modules()
    ]
    with removed_after(handles), ConstantWeights():
        run_model(model, sample_tokens(model))
    used = {id(each) for module in ran for each in module.parameters(recurse=False)}
    outermost: list[str] = []
    for name, module in model.named_modules():
        weights = [*module.parameters(), *module.buffers()]
        if weights and not any(each in ran or id(each) in used for each in (*module.modules(), *weights)):
            outermost += [] if name.startswith(tuple(f"{each}." for each in outermost)) else [name]
    return tuple(outermost)


def _recorder(calls: _Calls, index: int) -> Callable[..., None]:
    def record(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: object) -> None:
        length = len(output) if isinstance(output, tuple | list) else 0
        calls.seen.append((index, hidden_states(arguments, keywords), first_output(output), length))

    return record


def _base(model: PreTrainedModel, blocks: str) -> str:
    prefix = str(model.base_model_prefix)
    return prefix if prefix and blocks.startswith(f"{prefix}.") else blocks.partition(".")[0]


def _head(model: PreTrainedModel) -> str:
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        if module is head and head is not None:
            return str(name)
    raise UnsupportedArchitecture(f"{model.config.model_type}: the model names no output head", param="model")


_REPLAYED_LENGTHS: Final = (7, 12)
_REPLAYED_BATCHES: Final = (2, 3)
_TOLERANCE: Final = 1e-4


class Replay:
    """Small model with random weights whose blocks are run one by one."""

    def __init__(self, model: PreTrainedModel, blocks: Blocks) -> None:
        self.model = model
        modules = model.get_submodule(blocks.name)
        assert isinstance(modules, nn.ModuleList)
        self.modules = modules
        self.name = blocks.name
        self.outputs = blocks.outputs

    def arguments_depend_on(self) -> Literal["length", "tokens"] | None:
        """Return what the arguments of blocks depend on; None where blocks run one by one give other logits."""
        for dependence in ("length", "tokens"):
            if all(self._is_equal(length, dependence) for length in _REPLAYED_LENGTHS):
                return dependence
        return None

    def _is_equal(self, length: int, dependence: Literal["length", "tokens"]) -> bool:
        """Return True if two batches that go through each block in turn get the whole model's logits."""
        batches = [sample_tokens(self.model, batch, length, seed) for seed, batch in enumerate(_REPLAYED_BATCHES)]
        expected = [run_model(self.model, tokens).logits for tokens in batches]
        try:
            replayed = self._replayed(batches, dependence)
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError):
            return False  # recorded arguments do not fit other tokens
        return all(map(_is_close, replayed, expected))

    def _replayed(self, batches: Sequence[Tensor], dependence: Literal["length", "tokens"]) -> list[Tensor]:
        recorded = [self._recorded(tokens) for tokens in batches]
        hidden = [first for first, _ in recorded]
        arguments = [of_blocks for _, of_blocks in recorded]
        if dependence == "length":
            arguments = [self._recorded(torch.zeros_like(batches[0][:1]))[1]] * len(batches)
        for index, block in enumerate(self.modules):
            for number, own in enumerate(arguments):
                with torch.no_grad():
                    hidden[number] = call_block(block, hidden[number], own[index])
        return [self._logits(tokens, last) for tokens, last in zip(batches, hidden, strict=True)]

    def _recorded(self, tokens: Tensor) -> tuple[Tensor, list[BlockArguments]]:
        """Return the first block's hidden states, and the arguments of all blocks, without running them."""
        recorders = [ArgumentRecorder(block, self.outputs) for block in self.modules]
        with self._in_place_of_blocks(recorders):
            run_model(self.model, tokens)
        return recorders[0].seen[0][0], [each.seen[0][1] for each in recorders]

    def _logits(self, tokens: Tensor, hidden: Tensor) -> Tensor:
        first, *others = self.modules
        stand_ins = [
            Replacement(first, self.outputs, hidden),
            *(ArgumentRecorder(block, self.outputs) for block in others),
        ]
        with self._in_place_of_blocks(stand_ins):
            logits: Tensor = run_model(self.model, tokens).logits
        return logits

    @contextmanager
    def _in_place_of_blocks(self, stand_ins: Sequence[nn.Module]) -> Iterator[None]:
        owner, _, attribute = self.name.rpartition(".")
        setattr(self.model.get_submodule(owner), attribute, nn.ModuleList(stand_ins))
        try:
            yield
        finally:
            setattr(self.model.get_submodule(owner), attribute, self.modules)


def _is_close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.std()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= _TOLERANCE * scale).all())
