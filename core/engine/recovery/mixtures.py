"""Experts and routers of a mixture, which stay as they are while all else is trained: so do the experts' zeros."""

from transformers import PreTrainedModel

from core.engine.architectures.architecture import Architecture
from core.engine.recovery.protocols import Trainable


def freeze_experts(model: PreTrainedModel, family: Architecture) -> None:
    """Leave experts and routers out of training, with whatever of blocks is no linear layer that can be pruned."""
    experts = family.experts
    if experts is None:
        return
    rows = () if experts.routing is None else experts.routing.rows
    for block in model.get_submodule(family.blocks).children():
        for name, parameter in block.named_parameters():
            is_expert = name.startswith(f"{experts.module}.") or name in rows
            if is_expert or name.rpartition(".")[0] in family.left_alone or name in family.left_alone:
                parameter.requires_grad_(False)


def trained_of(trainable: Trainable, family: Architecture) -> str:
    """Return what is trained, as the report names it."""
    return trainable.trained if family.experts is None else f"{trainable.trained}, outside experts and routers"
