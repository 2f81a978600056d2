"""Completion of a recovery's request: its defaults for the model to train, and errors for fields that do not apply."""

from collections.abc import Collection, Mapping

from core.engine.architectures.description import ModelDescription
from core.engine.recovery.request import RECOVERIES, Recovery, RecoveryMethod, recoveries_where
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
_OF_DISTILLATION = {"temperature": 1.0, "label_weight": 0.0, "hidden_states": 0.0}
"""Numbers that only a recovery with a teacher has, and their defaults."""
DEFAULT_SEQUENCE_LENGTH = 512
"""Default sequence length, unless the calibration sets it or the model's context is shorter."""
_LEARNING_RATE_FULL = 2e-5
_LEARNING_RATE_DISTILL = 2e-4
_LEARNING_RATE_LORA = 1e-4
_LEARNING_RATE_IMAGES = 1e-3
_ROUND_STEPS = 50
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
    _check_fields_of_a_teacher(requested)
    if info.adapters == "never" and requested.lora is not None:
        raise _inapplicable("lora", requested.method, recoveries_where(lambda each: each.adapters != "never"))
    _check_stages(requested)
    lora, is_unset = requested.lora, "lora" not in requested.model_fields_set
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
    learns, stages = info.learns_from_model, requested.stages
    without = _LEARNING_RATE_DISTILL if learns else _LEARNING_RATE_FULL
    steps = sum(stage.steps for stage in stages or []) or requested.steps
    if not stages and requested.minutes is not None and "steps" not in requested.model_fields_set:
        steps = _MOST_STEPS
    defaults = {
        "learning_rate": without if lora is None else _LEARNING_RATE_LORA,
        "train_embeddings": not learns if lora is None else None,
        "own_text": (0 if stages else _OWN_TEXT) if learns else None,
        "resample_every": _ROUND_STEPS if stages else None,
        **_settings_of_distillation(info),
    }
    return requested.model_copy(
        update={"lora": lora, "sequence_length": length, "steps": steps, **_unless_set(requested, defaults)}
    )


def complete_image_recovery(requested: Recovery) -> Recovery:
    """Return the request with its defaults for an image classifier, which trains every parameter on labelled images.

    Raises InvalidRequest naming a field that belongs to language models.
    """
    info = RECOVERIES[requested.method]
    if not info.trains_classifiers:
        others = " or ".join(recoveries_where(lambda each: each.trains_classifiers))
        raise InvalidRequest(
            f"recovery.method: {requested.method} is for language models; for an image classifier use {others}",
            param="recovery.method",
        )
    for name in _OF_LANGUAGE_MODELS:
        if getattr(requested, name) is not None:
            raise InvalidRequest(f"recovery.{name} is only for language models: leave it out", param=f"recovery.{name}")
    _check_fields_of_a_teacher(requested)
    defaults = {"learning_rate": _LEARNING_RATE_IMAGES, **_settings_of_distillation(info), "hidden_states": None}
    return requested.model_copy(update=_unless_set(requested, defaults))


def check_matching(
    recovery: Recovery, description: ModelDescription, teacher: ModelDescription, removed_layers: Collection[int] = ()
) -> None:
    """Require that a model's hidden states can be matched with its teacher's, where the recovery requests it.

    `removed_layers` are the teacher's layers that pruning removed. Raises InvalidRequest.
    """
    if not recovery.hidden_states:
        return
    reason = None
    if description.vocabulary_size != teacher.vocabulary_size:
        reason = (
            f"the model has {description.vocabulary_size} tokens and the teacher {teacher.vocabulary_size}, so that "
            "they read a text in different tokens: leave it out"
        )
    elif description.hidden_size != teacher.hidden_size:
        reason = (
            f"the model's hidden states have {description.hidden_size} values, but the teacher's have "
            f"{teacher.hidden_size}: leave it out, or use a teacher with as many"
        )
    elif description.layers != teacher.layers - len(set(removed_layers)):
        reason = (
            f"the model has {description.layers} layers and the teacher {teacher.layers}, and only a job that removes "
            "the layers itself knows which remain: leave it out, or recover in such a job"
        )
    if reason is not None:
        raise InvalidRequest(f"recovery.hidden_states: {reason}", param="recovery.hidden_states")


def _settings_of_distillation(info: RecoveryMethod) -> Mapping[str, float | None]:
    return _OF_DISTILLATION if info.learns_from_model else dict.fromkeys(_OF_DISTILLATION)


def _unless_set(requested: Recovery, defaults: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the fields of `defaults`, as requested where they are set."""
    given = {name: getattr(requested, name) for name in defaults}
    return {name: defaults[name] if value is None else value for name, value in given.items()}


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


def _check_fields_of_a_teacher(requested: Recovery) -> None:
    """Require that only a recovery with a teacher has fields for it, and own text beside a single text."""
    if requested.own_text and requested.stages:
        raise InvalidRequest(
            "recovery.own_text and stages cannot be used together: leave one out", param="recovery.own_text"
        )
    if RECOVERIES[requested.method].learns_from_model:
        return
    for name in ("teacher", "own_text", *_OF_DISTILLATION):
        if getattr(requested, name) is not None:
            raise _inapplicable(name, requested.method, recoveries_where(lambda each: each.learns_from_model))


def _inapplicable(name: str, method: str, others: list[str]) -> InvalidRequest:
    return InvalidRequest(
        f"recovery.{name} is only for {' and '.join(others)}, not for {method}: leave it out",
        param=f"recovery.{name}",
    )
