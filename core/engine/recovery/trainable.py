"""Parts of a language model that a recovery trains, all parameters or low-rank adapters, and the zeros it keeps."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.engine.models.folder import ModelFolder
from core.engine.recovery.request import Recovery
from core.engine.recovery.training import StepRule


@dataclass(frozen=True)
class Teacher:
    """Model to learn from: a folder, and the hash or commit of its contents."""

    folder: ModelFolder
    revision: str


@dataclass(frozen=True)
class OpenedModel:
    """Language model in memory, before training.

    `linears` are the layers whose zeros are kept. `frozen_dtype` is the dtype of frozen parameters. `removed_layers`
    are the teacher's layers that pruning removed, by their numbers there.
    """

    folder: ModelFolder
    model: PreTrainedModel
    recovery: Recovery
    linears: Sequence[str]
    teacher: Teacher | None
    device: torch.device
    frozen_dtype: torch.dtype
    removed_layers: Collection[int] = ()


class ZeroPattern:
    """Weights of some parameters that are zero now, and stay zero.

    `parameters` are given by name; those without zeros cost nothing. Stored as one byte per weight.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        masks = {name: parameter.detach() == 0 for name, parameter in parameters.items()}
        self._zeros: dict[str, Tensor] = {name: mask for name, mask in masks.items() if bool(mask.any())}

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Zero the gradients of pruned weights, so that clipping does not count them."""
        for name, zeros in self._zeros.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                gradient.masked_fill_(zeros, 0)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        for name, zeros in self._zeros.items():
            self._parameters[name].masked_fill_(zeros, 0)


@dataclass(frozen=True)
class Trainable:
    """Trained parameters: those of `module` with gradients, and `trained` describes them in words.

    `rule` keeps zeros. `changed` are the parameters of the original model that training changes, by name, after `merge`
    has restored its form.
    """

    module: nn.Module
    trained: str
    changed: Sequence[str]
    rule: StepRule
    merge: Callable[[], nn.Module]


def prepare(opened: OpenedModel) -> Trainable:
    """Freeze what the completed recovery does not train, and add adapters where it has them; zeros are kept."""
    if opened.recovery.lora is not None:
        return _low_rank_adapters(opened)
    model, trained = opened.model, "every parameter"
    if not opened.recovery.train_embeddings:
        trained = "all but embeddings and head"
        for module in model.modules():
            if isinstance(module, nn.Embedding) or module is model.get_output_embeddings():
                module.requires_grad_(False)
    parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    zeros = ZeroPattern({name: parameters[name] for name in weight_names(opened.linears) if name in parameters})
    return Trainable(model, trained, list(parameters), zeros, merge=lambda: model)


def _low_rank_adapters(opened: OpenedModel) -> Trainable:
    """Add adapters to the requested linear layers, or to all; their updates keep the zeros."""
    from core.engine.recovery.adapters import add_adapters, merge_adapters  # loads peft: slow, and seldom needed

    folder, lora = opened.folder, opened.recovery.lora
    assert lora is not None
    adaptable = (each for each in folder.description.linears if each.experts is None)
    adapted = [each.name for each in adaptable if each.matches(lora.targets or ["*"])]
    module = add_adapters(opened.model, lora, adapted, transposed=folder.family.transposed)
    return Trainable(module, "adapters", weight_names(adapted), ZeroPattern({}), merge=lambda: merge_adapters(module))


def weight_names(linears: Iterable[str]) -> list[str]:
    """Return the parameter names of linear layers' weights."""
    return [f"{linear}.weight" for linear in linears]
