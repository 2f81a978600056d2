"""Model's own code without its decoder blocks' weights.

Parameters are built on the meta device; buffers that are not saved (rotary frequencies, embedding scales) are computed
as the constructors do. Embeddings, final norm and head keep their weights throughout; a block has weights only while it
is in use.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from core.counting import counted
from core.engine.datasets.counted_tokens import counted_places, plain_ids
from core.engine.models.accelerator import backend_of
from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import removed_after
from core.engine.models.loading import build_model
from core.engine.models.precision import kept_in_float32
from core.engine.models.tensors import TensorInPlace
from secateur_wire.errors import MissingTensors, UnsupportedArchitecture

BlockArguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Block's positional and keyword arguments except the hidden states."""
Answer: TypeAlias = Tensor | tuple[Tensor | None, ...]


class _StandIn(nn.Module):
    """Stand-in for a block; its other attributes are the block's, because Gemma's backbone reads `attention_type`.

    It returns what the block returns: hidden states, or a tuple of `outputs` items that begins with them.
    """

    def __init__(self, block: nn.Module, outputs: int) -> None:
        super().__init__()
        self.__dict__["block"] = block  # not registered as a submodule
        self.outputs = outputs

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["block"], name)

    def answer(self, hidden_states: Tensor) -> Answer:
        return (hidden_states, *[None] * (self.outputs - 1)) if self.outputs else hidden_states


class ArgumentRecorder(_StandIn):
    """Stand-in that records its arguments and returns the hidden states unchanged."""

    def __init__(self, block: nn.Module, outputs: int) -> None:
        super().__init__(block, outputs)
        self.seen: list[tuple[Tensor, BlockArguments]] = []

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Answer:
        self.seen.append((hidden_states, (arguments, keywords)))
        return self.answer(hidden_states)


class Replacement(_StandIn):
    """Stand-in for the first block when only the head runs: it returns hidden states computed elsewhere."""

    def __init__(self, block: nn.Module, outputs: int, hidden: Tensor) -> None:
        super().__init__(block, outputs)
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Answer:
        return self.answer(self.hidden.to(hidden_states.dtype))


class StreamedModel:
    """Causal language model whose blocks get weights one at a time.

    Shapes: tokens [batch, time], hidden states [batch, time, hidden_size]. Ids may say which tokens count
    (`core.engine.datasets.counted_tokens`); all of them are read.
    """

    def __init__(
        self, folder: ModelFolder, *, dtype: torch.dtype, device: torch.device, outer: PreTrainedModel | None = None
    ) -> None:
        """Build the model; it shares embeddings, final norm and head with `outer`, if given, and reads none of them."""
        self.folder = folder
        self.dtype = dtype
        self.device = device
        self._backend = backend_of(device)
        with init_empty_weights(include_buffers=False), no_init_weights():
            model = build_model(folder, dtype)
        self.model: PreTrainedModel = model.eval()
        _empty(self.model)
        self.model.requires_grad_(False)
        owner, _, attribute = folder.family.blocks.rpartition(".")
        self._owner = self.model.get_submodule(owner)
        self._attribute = attribute
        self.blocks: nn.ModuleList = getattr(self._owner, attribute)
        outputs = folder.family.block_outputs
        self._recorders = nn.ModuleList(ArgumentRecorder(block, outputs) for block in self.blocks)
        setattr(self._owner, attribute, self._recorders)
        self._in_float32 = kept_in_float32(self.model, dtype)
        self._in_place: list[TensorInPlace] = []
        self.outer_names = self._load_outer(outer)

    def _load_outer(self, outer: PreTrainedModel | None) -> list[str]:
        """Load the weights of everything outside the blocks; return the names of their tensors.

        Modules outside the language model stay empty, because they do not run.
        """
        head = f"{self.folder.family.head}.weight"
        sources: dict[str, str] = self.model.all_tied_weights_keys
        tied = {name for name in sources if name not in self.folder.tensors}
        if self.folder.description.tied_embeddings:
            tied.add(head)
        names = []
        for name, value in [
            *self.model.named_parameters(remove_duplicate=False),
            *self.folder.saved_buffers(self.model),
        ]:
            if name in tied:
                continue
            names.append(name)
            if self.folder.family.is_of_other_module(name):
                self._require_shape(name, self.folder.entry(name).shape, value)
                continue
            if outer is None:
                in_place = self.folder.read_in_place(name)
                tensor = in_place.tensor
                if in_place.pages is not None:  # copies are not kept beside the model's own
                    self._in_place.append(in_place)
            else:
                tensor = outer.state_dict(keep_vars=True)[name]
            self._require_shape(name, tensor.shape, value)
            self._set(self.model, name, tensor, self.dtype)
        for name in tied:
            owner, _, attribute = name.rpartition(".")
            embeddings = self.model.get_input_embeddings().weight
            source = self.model.get_parameter(sources[name]) if name in sources else embeddings
            setattr(self.model.get_submodule(owner), attribute, source)
        self._move_buffers(self.model)
        return names

    @staticmethod
    def _require_shape(name: str, shape: Sequence[int], value: Tensor) -> None:
        if tuple(shape) != value.shape:
            raise MissingTensors(
                f"{name} has shape {list(shape)}, but config.json needs {list(value.shape)}", param="model"
            )

    def set_outer(self, name: str, tensor: Tensor) -> None:
        """Replace a weight outside the blocks, by full name."""
        self._set(self.model, name, tensor, self.dtype)

    def _move_buffers(self, module: nn.Module) -> None:
        for name, buffer in module.named_buffers():
            if buffer.device != self.device:
                set_module_tensor_to_device(module, name, self.device, value=buffer)

    def _set(self, module: nn.Module, name: str, tensor: Tensor, dtype: torch.dtype) -> None:
        owner_name, _, attribute = name.rpartition(".")
        owner = module.get_submodule(owner_name)
        buffer = owner._buffers.get(attribute)
        if buffer is not None:
            # the dtype is kept; the device is set with all buffers
            owner._buffers[attribute] = tensor.to(buffer.dtype)
            return
        if self._in_float32(name):
            dtype = torch.float32
        value = tensor.to(self.device, non_blocking=True).to(dtype)  # cast on the device: copies have the stored size
        owner._parameters[attribute] = nn.Parameter(value, requires_grad=False)

    def __len__(self) -> int:
        return len(self.blocks)

    def block_prefix(self, index: int) -> str:
        """Return the full name of a block's module."""
        return f"{self.folder.family.blocks}.{index}"

    def read_block(self, index: int) -> dict[str, Tensor]:
        """Read a block's tensors onto the device, by name within the block, in their stored dtype.

        Raises MissingTensors where a shape differs from the config's.
        """
        return self._moved(self._read_block(index))

    def read_blocks(self, indices: Sequence[int], what: str) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield the tensors of several blocks with their numbers, as `read_block` does; clear each before the next.

        All work on a block until then shares its one copy on the device. Meanwhile this process reports that it does
        `what`.
        """
        for index, tensors in self._blocks_in_main_memory(indices, what):
            on_device = self._moved(tensors)
            yield index, on_device
            on_device.clear()

    def filled_blocks(self, indices: Sequence[int], what: str, dtype: torch.dtype) -> Iterator[tuple[int, nn.Module]]:
        """Yield several blocks with their numbers; each has weights, in this dtype, until the next is requested."""
        for index, tensors in self._blocks_in_main_memory(indices, what):
            block = self.fill_block(index, tensors, dtype)
            tensors.clear()
            yield index, block
            self.empty_block(index)

    def _blocks_in_main_memory(self, indices: Sequence[int], what: str) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield blocks' numbers and tensors. For a device with its own memory the next block is read ahead.

        It waits in main memory, because device memory is scarcer and the copy takes far less time than the block. On
        the CPU a second block in memory would gain little.
        """
        ahead = read_ahead if self._backend.kind.has_own_memory else map
        yield from zip(counted(indices, what), ahead(self._read_block, indices), strict=True)

    def _moved(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Move tensors to the device and clear `tensors`, so that main memory holds none."""
        return {name: tensors.pop(name).to(self.device, non_blocking=True) for name in [*tensors]}

    def _read_block(self, index: int) -> dict[str, Tensor]:
        """Read a block's tensors into main memory, from which the device copies asynchronously."""
        tensors = {}
        block, prefix = self.blocks[index], f"{self.block_prefix(index)}."
        for name, value in [*block.named_parameters(), *self.folder.saved_buffers(block, prefix)]:
            tensor = self.folder.read(f"{prefix}{name}")
            self._require_shape(f"{prefix}{name}", tensor.shape, value)
            tensors[name] = self._backend.pinned(tensor)
        return tensors

    def fill_block(self, index: int, tensors: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
        """Set a block's weights, in the dtype of its forward."""
        block: nn.Module = self.blocks[index]
        for name, tensor in tensors.items():
            self._set(block, name, tensor, dtype)
        self._move_buffers(block)
        return block

    def empty_block(self, index: int) -> None:
        _empty(self.blocks[index])

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return the hidden states before the first block, [batch, time, hidden_size]."""
        with self._recording():
            self._run(self._backbone(), tokens_BT)
            for each in self._in_place:  # they are next used for the predictions
                each.release()
            return self._recorder(0).seen[0][0]

    def sequences_of(self, hidden: Tensor, start: int, count: int) -> Tensor:
        """Return the hidden states of some sequences of a batch.

        Some models have several residual streams, [streams, batch, time, hidden_size]; some have time before batch.
        """
        return hidden.narrow(self._batch_dimension, start, count)

    def one_batch(self, sequences: Sequence[Tensor]) -> Tensor:
        """Return the hidden states of batches as those of one batch: the inverse of `sequences_of`."""
        return torch.cat([*sequences], dim=self._batch_dimension)

    def places(self, tokens_BT: Tensor) -> Tensor | None:
        """Return the places of a batch that count, as `counted_places` does, for rows of its hidden states.

        Raises UnsupportedArchitecture where some do not, and hidden states are not [batch, time, hidden_size].
        """
        places_N = counted_places(tokens_BT)
        if places_N is not None and not self._is_batch_first:
            raise UnsupportedArchitecture(
                "calibration.counted_tokens: hidden states of this model are not in the order [sequences, tokens, "
                "features], so that it is not known which of them count: leave it out, so that all tokens count",
                param="calibration.counted_tokens",
            )
        return places_N

    @cached_property
    def _is_batch_first(self) -> bool:
        if self.folder.family.discovered_by is None:
            return True
        return self.embed(torch.zeros(1, 2, dtype=torch.long)).shape[:-1] == (1, 2)

    @property
    def time_dimension(self) -> int:
        """Return the dimension of time in hidden states."""
        return -2 if self._batch_dimension == -3 else -3

    @cached_property
    def _batch_dimension(self) -> int:
        if self.folder.family.discovered_by is None:
            return -3
        return -2 if self.embed(torch.zeros(1, 2, dtype=torch.long)).shape[-2] == 1 else -3

    @torch.no_grad()
    def block_arguments(self, tokens_BT: Tensor) -> list[BlockArguments]:
        """Return each block's positional and keyword arguments, except hidden states, for sequences of tokens.

        Where they depend on the length alone they are recorded with one sequence: masks and rotary embeddings broadcast
        over the batch.
        """
        if self.folder.family.arguments == "length":
            tokens_BT = torch.zeros(1, tokens_BT.shape[1], dtype=torch.long)
        with self._recording():
            self._run(self._backbone(), tokens_BT)
            return [self._recorder(index).seen[0][1] for index in range(len(self))]

    def logits(self, tokens_BT: Tensor, hidden_BTD: Tensor, positions: Tensor) -> Tensor:
        """Return logits [batch, len(positions), vocabulary] from the last block's output, by the model's own code."""
        original = self._recorders[0]
        self._recorders[0] = Replacement(self.blocks[0], self.folder.family.block_outputs, hidden_BTD)
        try:
            answer = self._run(self.model, tokens_BT, positions.to(self.device))
        finally:
            self._recorders[0] = original
            self._stop_recording()
        logits: Tensor = answer.logits
        return logits

    @torch.no_grad()
    def head_inputs(self, tokens_BT: Tensor, hidden_BTD: Tensor) -> Tensor:
        """Return the output head's input, [batch, time, hidden_size]: the last block's output after the final norm."""
        seen: list[Tensor] = []
        handle = self._head().register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        with removed_after([handle]):
            self.logits(tokens_BT, hidden_BTD, torch.arange(tokens_BT.shape[1]))
        return seen[0]

    def _run(self, module: nn.Module, tokens_BT: Tensor, positions: Tensor | None = None) -> Any:
        """Run the model or its backbone on tokens, without a cache; logits are those at these positions.

        For classes without a choice of positions, the head gets only these positions.
        """
        takes = inspect.signature(module.forward).parameters
        is_open = any(each.kind is each.VAR_KEYWORD for each in takes.values())
        keywords: dict[str, Any] = {"use_cache": False} if is_open or "use_cache" in takes else {}
        handles = []
        if positions is not None:
            if "logits_to_keep" in takes:
                keywords["logits_to_keep"] = positions
            else:
                handles = [
                    self._head().register_forward_pre_hook(
                        lambda head, given: (given[0][..., positions, :], *given[1:])
                    )
                ]
        with removed_after(handles):
            return module(input_ids=plain_ids(tokens_BT).to(self.device), **keywords)

    def _head(self) -> nn.Module:
        return self.model.get_submodule(self.folder.family.head)

    def _backbone(self) -> nn.Module:
        return self.model.get_submodule(self.folder.family.base)

    def _recorder(self, index: int) -> ArgumentRecorder:
        recorder = self._recorders[index]
        assert isinstance(recorder, ArgumentRecorder)
        return recorder

    def _stop_recording(self) -> None:
        for index in range(len(self)):
            if isinstance(recorder := self._recorders[index], ArgumentRecorder):
                recorder.seen = []

    @contextmanager
    def _recording(self) -> Iterator[None]:
        self._stop_recording()
        try:
            yield
        finally:
            self._stop_recording()


def _empty(module: nn.Module) -> None:
    """Remove the weights of a module; each keeps its shape, as one expanded element on the meta device."""
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                shape = torch.empty((), dtype=parameter.dtype, device="meta").expand(parameter.shape)
                each._parameters[name] = nn.Parameter(shape, requires_grad=False)


def call_block(block: nn.Module, hidden_BTD: Tensor, arguments: BlockArguments) -> Tensor:
    """Run a block and return its hidden states; some blocks return a tensor, some a tuple that starts with it."""
    positional, keywords = arguments
    answer = block(hidden_BTD, *positional, **keywords)
    output: Tensor = answer[0] if isinstance(answer, tuple | list) else answer
    return output


Item = TypeVar("Item")
Content = TypeVar("Content")


def read_ahead(read: Callable[[Item], Content], items: Sequence[Item]) -> Iterator[Content]:
    """Yield the result of `read` for each item; one thread reads the next item ahead.

    An error of `read` is raised at its item. At most one item is read ahead. The thread ends with the generator, even
    after an error.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as thread:
        pending = [thread.submit(read, each) for each in items[:1]]
        for place in range(len(items)):
            content = pending.pop().result()
            pending += [thread.submit(read, each) for each in items[place + 1 : place + 2]]
            yield content
