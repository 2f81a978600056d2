"""Parts of a language model that a recovery may train: all parameters, or low-rank adapters."""

from torch import nn

from core.engine.recovery.protocols import OpenedModel, Trainable
from core.engine.recovery.zero_pattern import ZeroPattern, weight_names


def every_parameter(opened: OpenedModel) -> Trainable:
    """Train all parameters of the language model, and keep the zeros of the linear layers."""
    parameters = {name: each for name, each in opened.model.named_parameters() if each.requires_grad}
    zeros = ZeroPattern({name: parameters[name] for name in weight_names(opened.linears)})
    return Trainable(opened.model, "every parameter", list(parameters), zeros, merge=lambda: opened.model)


def all_except_embeddings(opened: OpenedModel) -> Trainable:
    """Train all parameters except embeddings and head, and keep the zeros of the linear layers."""
    model = opened.model
    frozen = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    head = model.get_output_embeddings()
    for module in frozen if head is None else [*frozen, head]:
        module.requires_grad_(False)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    zeros = ZeroPattern({name: trained[name] for name in weight_names(opened.linears) if name in trained})
    return Trainable(model, "all but embeddings and head", list(trained), zeros, merge=lambda: model)


def low_rank_adapters(opened: OpenedModel) -> Trainable:
    """Train adapters on the requested linear layers, or on all; their updates keep the zeros."""
    from core.engine.recovery.adapters import add_adapters, merge_adapters  # loads peft: slow, and seldom needed

    folder, lora = opened.folder, opened.recovery.lora
    assert lora is not None
    adaptable = (each for each in folder.description.linears if each.experts is None)
    adapted = [each.name for each in adaptable if each.matches(lora.targets or ["*"])]
    module = add_adapters(opened.model, lora, adapted, transposed=folder.family.transposed)
    return Trainable(module, "adapters", weight_names(adapted), ZeroPattern({}), merge=lambda: merge_adapters(module))
