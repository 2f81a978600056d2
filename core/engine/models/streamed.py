"""The model's own code with its decoder blocks taken out.

Parameters are built on the meta device; buffers that are not saved (rotary frequencies, embedding scales) are computed
for real, as the constructors do. Embeddings, final norm and head hold their weights throughout; a block is given
weights only while it is in use.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from core.engine.models.folder import ModelFolder
from core.engine.models.hooks import removed_after
from core.engine.models.loading import build_model
from core.errors import MissingTensors

BlockArguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


class _Recorder(nn.Module):
    """Stand-in for a block that records its arguments and returns the hidden states unchanged."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, BlockArguments]] = []
        # Backbones ask a block for facts of its own (Gemma and Qwen read `attention_type`).
        for name, value in vars(block).items():
            if not name.startswith("_") and name not in ("training", "forward"):
                setattr(self, name, value)

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        self.seen.append((hidden_states, (arguments, keywords)))
        return hidden_states


class _Replacement(nn.Module):
    """Stand-in for the first block when only the head is needed: returns hidden states computed elsewhere."""

    def __init__(self, recorder: nn.Module, hidden: Tensor) -> None:
        super().__init__()
        self.__dict__.update({k: v for k, v in vars(recorder).items() if not k.startswith("_")})
        self.hidden = hidden

    def forward(self, hidden_states: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        return self.hidden.to(hidden_states.dtype)


class StreamedModel:
    """A causal language model whose blocks are given weights one at a time.

    Shapes: tokens [batch, time], hidden states [batch, time, hidden_size].
    """

    def __init__(
        self, folder: ModelFolder, *, dtype: torch.dtype, device: torch.device, outer: PreTrainedModel | None = None
    ) -> None:
        """Build the model; it shares embeddings, final norm and head with `outer`, if given, and reads none of them."""
        self.folder = folder
        self.dtype = dtype
        self.device = device
        with init_empty_weights(include_buffers=False), no_init_weights():  # the real ones are read
            model = build_model(folder, dtype)
        self.model: PreTrainedModel = model.eval()
        self.model.requires_grad_(False)
        owner, _, attribute = folder.family.blocks.rpartition(".")
        self._owner = self.model.get_submodule(owner)
        self._attribute = attribute
        self.blocks: nn.ModuleList = getattr(self._owner, attribute)
        self._recorders = nn.ModuleList(_Recorder(block) for block in self.blocks)
        setattr(self._owner, attribute, self._recorders)
        self.outer_names = self._load_outer(outer)

    def _load_outer(self, outer: PreTrainedModel | None) -> list[str]:
        """Give everything outside the blocks its weights; return the names of the tensors that were read."""
        head = f"{self.folder.family.head}.weight"
        tied = self.folder.description.tied_embeddings
        read = []
        for name, parameter in list(self.model.named_parameters(remove_duplicate=False)):
            if tied and name == head:
                continue
            tensor = self.folder.read(name) if outer is None else outer.get_parameter(name)
            if tensor.shape != parameter.shape:
                raise MissingTensors(
                    f"{name} has shape {list(tensor.shape)}, config.json needs {list(parameter.shape)}", param="model"
                )
            self._set(self.model, name, tensor, self.dtype)
            read.append(name)
        if tied:
            self.model.get_output_embeddings().weight = self.model.get_input_embeddings().weight
        self._move_buffers(self.model)
        return read

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
        value = tensor.to(device=self.device, dtype=dtype)
        owner._parameters[attribute] = nn.Parameter(value, requires_grad=False)

    def __len__(self) -> int:
        return len(self.blocks)

    def block_prefix(self, index: int) -> str:
        """Return the full name of a block's module."""
        return f"{self.folder.family.blocks}.{index}"

    def read_block(self, index: int) -> dict[str, Tensor]:
        """Read a block's tensors by name relative to the block, in stored dtype.

        Raises MissingTensors where a shape is not the config's.
        """
        tensors = {}
        for name, parameter in self.blocks[index].named_parameters():
            tensor = self.folder.read(f"{self.block_prefix(index)}.{name}")
            if tensor.shape != parameter.shape:
                raise MissingTensors(
                    f"{self.block_prefix(index)}.{name} has shape {list(tensor.shape)}, config.json needs "
                    f"{list(parameter.shape)}",
                    param="model",
                )
            tensors[name] = tensor
        return tensors

    def fill_block(self, index: int, tensors: dict[str, Tensor], dtype: torch.dtype) -> nn.Module:
        """Give a block weights, in the dtype of its forward."""
        block: nn.Module = self.blocks[index]
        for name, tensor in tensors.items():
            self._set(block, name, tensor, dtype)
        self._move_buffers(block)
        return block

    def empty_block(self, index: int) -> None:
        """Remove a block's weights again."""
        for module in self.blocks[index].modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(
                        torch.empty_like(parameter, device="meta"), requires_grad=False
                    )

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return the hidden states before the first block, [batch, time, hidden_size]."""
        with self._recording():
            self._backbone()(input_ids=tokens_BT.to(self.device), use_cache=False)
            return self._recorder(0).seen[0][0]

    @torch.no_grad()
    def block_arguments(self, length: int) -> list[BlockArguments]:
        """Return each block's positional and keyword arguments, other than hidden states, for sequences of a length.

        Recorded with one sequence: masks and rotary embeddings broadcast over the batch.
        """
        with self._recording():
            self._backbone()(input_ids=torch.zeros(1, length, dtype=torch.long, device=self.device), use_cache=False)
            return [self._recorder(index).seen[0][1] for index in range(len(self))]

    def logits(self, tokens_BT: Tensor, hidden_BTD: Tensor, positions: Tensor) -> Tensor:
        """Return logits [batch, len(positions), vocabulary] from the last block's output, by the model's own code."""
        original = self._recorders[0]
        self._recorders[0] = _Replacement(original, hidden_BTD)
        try:
            answer = self.model(
                input_ids=tokens_BT.to(self.device), use_cache=False, logits_to_keep=positions.to(self.device)
            )
        finally:
            self._recorders[0] = original
            self._forget()
        logits: Tensor = answer.logits
        return logits

    @torch.no_grad()
    def head_inputs(self, tokens_BT: Tensor, hidden_BTD: Tensor) -> Tensor:
        """Return the output head's input, [batch, time, hidden_size]: the last block's output after the final norm."""
        seen: list[Tensor] = []
        head = self.model.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
        with removed_after([handle]):
            self.logits(tokens_BT, hidden_BTD, torch.arange(tokens_BT.shape[1]))
        return seen[0]

    def _backbone(self) -> nn.Module:
        return self.model.get_submodule(self.folder.family.base)

    def _recorder(self, index: int) -> _Recorder:
        recorder = self._recorders[index]
        assert isinstance(recorder, _Recorder)
        return recorder

    def _forget(self) -> None:
        for index in range(len(self)):
            if isinstance(recorder := self._recorders[index], _Recorder):
                recorder.seen = []

    @contextmanager
    def _recording(self) -> Iterator[None]:
        self._forget()
        try:
            yield
        finally:
            self._forget()


def call_block(block: nn.Module, hidden_BTD: Tensor, arguments: BlockArguments) -> Tensor:
    """Run a block; some return a tensor, some a tuple that starts with it."""
    positional, keywords = arguments
    answer = block(hidden_BTD, *positional, **keywords)
    output: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return output
