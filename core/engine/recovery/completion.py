"""Completion of a recovery's request: its defaults for the model to train, and errors for fields that do not apply."""

from collections.abc import Collection

from core.engine.architectures.description import CLASSIFICATION, ModelDescription
from core.engine.recovery.recovery_info import RecoveryInfo
from core.engine.recovery.registry import RECOVERIES, recoveries_where
from core.engine.recovery.request import Recovery
from secateur_wire.errors import InvalidRequest
from secateur_wire.recovery import Lora

_OF_LANGUAGE_MODELS = (
    "lora",
    "stages",
    "resample_every",
    "sequence_length",
    "teacher",
    "train_embeddings",
    "own_text",
    "hidden_states",
    "shape",
    "answers",
    "counted_tokens",
    "minutes",
)
DEFAULT_SEQUENCE_LENGTH = 512
"""Default sequence length, unless the calibration sets it or the model's context is shorter."""
_LEARNING_RATE_FULL = 2e-5
_LEARNING_RATE_DISTILL = 2e-4
_LEARNING_RATE_LORA = 1e-4
_LEARNING_RATE_IMAGES = 1e-3
_ROUND_STEPS = 50
_HIDDEN_STATES = "recovery.hidden_states"
_OWN_TEXT = 0.25
_MOST_STEPS = 100_000
"""Limit of steps where the request gives minutes: more steps than they allow."""


def complete_recovery(
    requested: Recovery,
    description: ModelDescription,
    sequence_length: int | None = None,
    *,
    loses_units: bool = False,
) -> Recovery:
    """Return the request with its defaults, such as `sequence_length` in tokens; some depend on `loses_units`.

    Raises InvalidRequest naming a field that does not apply to the method or the model.
    """
    info = RECOVERIES[requested.method]
    _check_softening(requested)
    if info.adapters == "never" and requested.lora is not None:
        raise _inapplicable("lora", requested.method, recoveries_where(lambda each: each.adapters != "never"))
    _check_stages(requested)
    lora = requested.lora
    is_unset = "lora" not in requested.model_fields_set
    if info.adapters == "always" or (info.adapters == "unless null" and is_unset and not loses_units):
        lora = lora or Lora()
    if lora is not None and requested.train_embeddings is not None:
        raise InvalidRequest(
            "recovery.train_embeddings is only for training without adapters: leave it out, or set lora to null",
            param="recovery.train_embeddings",
        )
    adaptable = [linear for linear in description.linears if linear.experts is None]  # experts are not trained
    for target in (lora and lora.targets) or []:
        if not any(linear.matches([target]) for linear in adaptable):
            raise InvalidRequest(
                f"recovery.lora.targets: {target!r} matches no linear layer that adapters go on; layer 0 has "
                f"{', '.join(linear.name for linear in adaptable if linear.layer == 0)}",
                param="recovery.lora.targets",
            )
    length = requested.sequence_length or min(sequence_length or DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if length > description.context_length:
        raise InvalidRequest(
            f"recovery.sequence_length {length} is longer than the model's context of {description.context_length} "
            "tokens",
            param="recovery.sequence_length",
        )
    return requested.model_copy(
        update={
            "lora": lora,
            "learning_rate": requested.learning_rate or _learning_rate(info, lora),
            "train_embeddings": _trains_embeddings(requested, info, lora),
            "own_text": _own_text(requested, info),
            "temperature": _of_distillation(requested.temperature, info, 1.0),
            "label_weight": _of_distillation(requested.label_weight, info, 0.0),
            "hidden_states": _of_distillation(requested.hidden_states, info, 0.0),
            "sequence_length": length,
            "steps": sum(stage.steps for stage in requested.stages) if requested.stages else _steps(requested),
            "resample_every": (requested.resample_every or _ROUND_STEPS) if requested.stages else None,
        }
    )


def complete_image_recovery(requested: Recovery) -> Recovery:
    """Return the request with its defaults for an image classifier, which trains every parameter on labelled images.

    Raises InvalidRequest naming a field that belongs to language models.
    """
    info = RECOVERIES[requested.method]
    if not info.trains(CLASSIFICATION):
        others = " or ".join(recoveries_where(lambda each: each.trains(CLASSIFICATION)))
        raise InvalidRequest(
            f"recovery.method: {requested.method} is for language models; for an image classifier use {others}",
            param="recovery.method",
        )
    for name in _OF_LANGUAGE_MODELS:
        if getattr(requested, name) is not None:
            raise InvalidRequest(f"recovery.{name} is only for language models: leave it out", param=f"recovery.{name}")
    _check_softening(requested)
    return requested.model_copy(
        update={
            "learning_rate": requested.learning_rate or _LEARNING_RATE_IMAGES,
            "temperature": _of_distillation(requested.temperature, info, 1.0),
            "label_weight": _of_distillation(requested.label_weight, info, 0.0),
        }
    )


def check_matching(
    recovery: Recovery, description: ModelDescription, teacher: ModelDescription, removed_layers: Collection[int] = ()
) -> None:
    """Require that a model's hidden states can be matched with its teacher's, where the recovery requests it.

    `removed_layers` are the teacher's layers that pruning removed. Raises InvalidRequest.
    """
    if not recovery.hidden_states:
        return
    if description.vocabulary_size != teacher.vocabulary_size:
        raise InvalidRequest(
            f"{_HIDDEN_STATES}: the model has {description.vocabulary_size} tokens and the teacher "
            f"{teacher.vocabulary_size}, so that they read a text in different tokens: leave it out",
            param=_HIDDEN_STATES,
        )
    if description.hidden_size != teacher.hidden_size:
        raise InvalidRequest(
            f"{_HIDDEN_STATES}: the model's hidden states have {description.hidden_size} values, but the teacher's "
            f"have {teacher.hidden_size}: leave it out, or use a teacher with as many",
            param=_HIDDEN_STATES,
        )
    if description.layers != teacher.layers - len(set(removed_layers)):
        raise InvalidRequest(
            f"{_HIDDEN_STATES}: the model has {description.layers} layers and the teacher {teacher.layers}, and "
            "only a job that removes the layers itself knows which remain: leave it out, or recover in such a job",
            param=_HIDDEN_STATES,
        )


def _learning_rate(info: RecoveryInfo, lora: Lora | None) -> float:
    if lora is not None:
        return _LEARNING_RATE_LORA
    return _LEARNING_RATE_DISTILL if info.learns_from_model else _LEARNING_RATE_FULL


def _trains_embeddings(requested: Recovery, info: RecoveryInfo, lora: Lora | None) -> bool | None:
    if lora is not None or requested.train_embeddings is not None:
        return requested.train_embeddings
    return not info.learns_from_model


def _own_text(requested: Recovery, info: RecoveryInfo) -> float | None:
    if not info.learns_from_model or requested.own_text is not None:
        return requested.own_text
    return 0 if requested.stages else _OWN_TEXT


def _of_distillation(requested: float | None, info: RecoveryInfo, unset: float) -> float | None:
    """Return a setting of distillation: the requested value, or the default where unset; None for other recoveries."""
    if not info.learns_from_model:
        return None
    return unset if requested is None else requested


def _steps(requested: Recovery) -> int:
    is_unset = "steps" not in requested.model_fields_set
    return _MOST_STEPS if requested.minutes is not None and is_unset else requested.steps


def _check_stages(requested: Recovery) -> None:
    """Require that stages and other fields agree; raises InvalidRequest for a field that excludes or needs stages."""
    if requested.stages is None:
        if requested.resample_every is not None:
            raise InvalidRequest(
                "recovery.resample_every is only for stages: leave it out, or give stages",
                param="recovery.resample_every",
            )
        return
    for name in ("dataset", "samples"):
        if getattr(requested, name) is not None:
            raise InvalidRequest(
                f"recovery.{name} and stages cannot be used together: leave one out", param=f"recovery.{name}"
            )
    total = sum(stage.steps for stage in requested.stages)
    if "steps" in requested.model_fields_set and requested.steps != total:
        raise InvalidRequest(
            f"recovery.steps: the stages have {total} steps together, so leave steps out", param="recovery.steps"
        )
    for number, stage in enumerate(requested.stages):
        for place, name in enumerate(stage.datasets):
            if name in stage.datasets[:place]:
                where = f"recovery.stages.{number}.datasets.{place}"
                raise InvalidRequest(f"{where}: {name!r} is named twice", param=where)


def _check_softening(requested: Recovery) -> None:
    """Require that only a recovery with a teacher has fields for it; raises InvalidRequest.

    Text that the teacher generates is only for recoveries with a single text.
    """
    if requested.own_text and requested.stages:
        raise InvalidRequest(
            "recovery.own_text and stages cannot be used together: leave one out", param="recovery.own_text"
        )
    if RECOVERIES[requested.method].learns_from_model:
        return
    for name in ("temperature", "teacher", "own_text", "label_weight", "hidden_states"):
        if getattr(requested, name) is not None:
            raise _inapplicable(name, requested.method, recoveries_where(lambda each: each.learns_from_model))


def _inapplicable(name: str, method: str, others: list[str]) -> InvalidRequest:
    return InvalidRequest(
        f"recovery.{name} is only for {' and '.join(others)}, not for {method}: leave it out",
        param=f"recovery.{name}",
    )
