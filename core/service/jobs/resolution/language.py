"""Resolution of jobs on language models: their texts and tasks, the recovery and its teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.formats import CHAT_FORMATS
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.recovery.completion import check_matching, complete_recovery
from core.engine.recovery.request import RECOVERIES, Recovery, most_sequences, own_sequences, stage_texts
from core.engine.removals.vocabulary import tokens_left, too_few_tokens
from core.methods.registry import get_method
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.recipe import stores_dense_model
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.recipes.validation import calibrated_method, calibrated_variant
from core.pipeline.recipes.vocabulary import conversations_refused
from core.service.jobs.gates import require_measured
from core.service.jobs.resolution.context import RequestContext, ResolvedInputs, unique_names
from core.service.jobs.resolution.dataset import SELF, hub_facts, resolve_dataset
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.resolution.questions import resolve_question_sets
from core.service.jobs.resolution.text_needs import TextNeeds
from core.service.jobs.schemas import DEFAULT_SEQUENCE_LENGTH, JobBody
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import (
    AnsweredText,
    FileText,
    HubText,
    ModelReference,
    SelfText,
    StoredText,
    TaskReference,
    TextReference,
)
from core.service.token_counts import kept_count
from core.validation import nearest_hint
from secateur_wire.chat import Shape
from secateur_wire.errors import InvalidRequest, SecateurError, UnsupportedArchitecture
from secateur_wire.job_body import Calibration, Evaluation, VocabularyChoice

_TEACHER = "recovery.teacher"
_IN_BYTES = ("bytes", "memory_bytes")
"""Targets that count the bytes of weights."""
_TRAINING_SEED = 2**32
"""Added to the seed of generated training text, for the same reason."""
_COUNTED_LENGTH, _COUNTED_WINDOWS = 1, 1_000_000
"""Tokens of a hub dataset that are counted, for a vocabulary: as windows of one token each."""


def resolve_language_inputs(
    context: RequestContext, body: JobBody, request: ResolvedRequest, model: ResolvedModel
) -> ResolvedInputs:
    """Return the resolved parts of a job that exist only for text; raises the error that names the fault."""
    return _Resolution(context, body, request, model.description.language_model, model.reference).inputs()


@dataclass(frozen=True)
class _Resolution:
    """Resolution of one body whose request was checked against the model."""

    context: RequestContext
    body: JobBody
    request: ResolvedRequest
    description: ModelDescription
    model: ModelReference

    def inputs(self) -> ResolvedInputs:
        body = self.body
        self._require_calibration()
        target = body.target
        if body.output.quantization is not None and target is not None and target.kind in _IN_BYTES:
            raise InvalidRequest(
                f"target.{target.kind} counts weights of the model's own dtype, not those of output.quantization: use "
                "target.parameters or sparsity",
                param=f"target.{target.kind}",
            )
        output = resolve_output(
            body.output,
            self.description,
            self.request,
            loses_tokens=self._vocabulary is not None,
            is_calibrated=body.calibration is not None,
        )
        calibration, text, generated = self._calibration()
        compensation = self.request.parameters.requested_compensation
        is_single = calibration is not None and calibration.samples == 1 and not calibration.generated
        if compensation and compensation.chooses and is_single:
            raise InvalidRequest(
                "calibration.samples: compensation 'auto' keeps one sequence apart to choose by: give 2 or more",
                param="calibration.samples",
            )
        evaluation, texts = self._evaluation(calibration)
        question_sets = resolve_question_sets(self.context, evaluation.answers, self.description)
        require_measured(
            body.gates,
            evaluation,
            self.description.model_task,
            has_exports=bool(output.exports),
            is_stored=stores_dense_model(body.method, body.vocabulary),
        )
        recovery, trained = self._recovery(calibration, text)
        return ResolvedInputs(
            {"output": output, "calibration": calibration, "evaluation": evaluation, "recovery": recovery},
            {
                "calibration": None if text is None else text.model_dump(mode="json"),
                "generated": None if generated is None else generated.model_dump(mode="json"),
                "vocabulary": [each.model_dump(mode="json") for each in self._counted(text)],
                "evaluation": [each.model_dump(mode="json") for each in texts],
                **({"answers": [each.model_dump(mode="json") for each in question_sets]} if question_sets else {}),
                "tasks": [
                    each.model_dump(mode="json") for each in _resolve_tasks(body.evaluation.tasks, self.context.hub)
                ],
                **trained,
            },
        )

    def _require_calibration(self) -> None:
        request, parameters = self.request, self.request.parameters
        compensation, allocating = parameters.requested_compensation, parameters.allocation_options
        allocation = None if allocating is None else allocating.measured_allocation
        needs = calibrated_variant(request.method, request.pattern, parameters).needs.calibration
        if (needs or compensation or allocation) and self.body.calibration is None:
            reader = calibrated_method(request.method, parameters).id
            user = "compensation" if compensation else f"allocation {allocation!r}" if allocation else reader
            raise InvalidRequest(
                f'calibration is required: {user} measures activations on text, for example "calibration": '
                '{"dataset": "NAME", "samples": 128, "sequence_length": 512}',
                param="calibration",
            )

    def _calibration(self) -> tuple[Calibration | None, TextReference | None, SelfText | None]:
        """Return the calibration with its defaults, the text of its dataset, and the text that the model generates."""
        calibration = self.body.calibration
        if calibration is None:
            return None, None, None
        split = self.request.parameters.split_calibration(calibration.samples)
        if split is not None and calibration.generated is None and calibration.dataset != SELF:
            samples, generated = split
            calibration = calibration.model_copy(update={"samples": samples, "generated": generated})
        length = _sequence_length(calibration.sequence_length, None, self.description, "calibration.sequence_length")
        needs = TextNeeds(
            "calibration",
            "calibration.dataset",
            calibration.samples,
            length,
            calibration.seed,
            shape=calibration.shape,
            answers=calibration.answers,
        )
        text = resolve_dataset(self.context, calibration.dataset, needs)
        if calibration.generated and calibration.dataset == SELF:
            raise InvalidRequest(
                f"calibration.generated: with the dataset {SELF!r} the model writes all of the text: raise "
                "calibration.samples instead",
                param="calibration.generated",
            )
        written = None
        if calibration.generated:
            written = TextNeeds(
                "calibration",
                "calibration.generated",
                calibration.generated,
                length,
                calibration.seed,
                shape=calibration.shape,
            ).refer_to_model()
        _require_written(calibration.shape, "calibration", written or isinstance(text, SelfText))
        _require_conversations(calibration, [text, *([] if written is None else [written])])
        return calibration.model_copy(update={"sequence_length": length}), text, written

    @property
    def _vocabulary(self) -> VocabularyChoice | None:
        return self.body.vocabulary or self.request.parameters.vocabulary_choice

    def _counted(self, calibration: TextReference | None) -> list[TextReference]:
        """Return the texts whose tokens are counted; none where no tokens go."""
        vocabulary, part = self._vocabulary, "parameters" if self.body.vocabulary is None else "vocabulary"
        if vocabulary is None:
            return []
        needs = TextNeeds("calibration", f"{part}.datasets", None, _COUNTED_LENGTH, 0, _COUNTED_WINDOWS)
        texts = [] if calibration is None else [calibration]
        for param, name in unique_names(vocabulary.datasets, f"{part}.datasets"):
            texts.append(resolve_dataset(self.context, name, replace(needs, param=param)))
        if not texts:
            raise InvalidRequest(
                'calibration is required: tokens are counted on text, for example "calibration": {"dataset": "NAME"}, '
                f"or {part}.datasets",
                param="calibration",
            )
        self._require_enough_tokens(vocabulary, part, texts)
        return texts

    def _require_enough_tokens(self, vocabulary: VocabularyChoice, part: str, texts: Sequence[TextReference]) -> None:
        """Refuse what the kept counts of the texts' tokens show to be impossible; what no count shows, the job finds.

        Raises UnusableModel for a tokenizer that cannot be cut, and InvalidRequest for a number of tokens below the
        least.
        """
        tokens = tokens_left(self.description, vocabulary, part)
        for text in texts:
            if not isinstance(text, FileText | StoredText):
                continue
            counted = kept_count(self.context.session, self.model, self.description.vocabulary_size, text)
            if counted is not None and tokens is not None and tokens < counted.least:
                raise too_few_tokens(tokens, counted.least, f"{part}.tokens")

    def _evaluation(self, calibration: Calibration | None) -> tuple[Evaluation, list[TextReference]]:
        evaluation = self.body.evaluation
        default = None if calibration is None else calibration.sequence_length
        length = _sequence_length(evaluation.sequence_length, default, self.description, "evaluation.sequence_length")
        seed = 0 if calibration is None else calibration.seed
        texts = [
            resolve_dataset(
                self.context,
                name,
                TextNeeds("evaluation", param, evaluation.samples, length, seed, shape=evaluation.shape),
            )
            for param, name in unique_names(evaluation.datasets, "evaluation.datasets")
        ]
        _require_written(evaluation.shape, "evaluation", any(isinstance(text, SelfText) for text in texts))
        if self._vocabulary is not None:  # a worker refuses those of the hub, once it has fetched them
            for number, text in enumerate(texts):
                if _is_chat(text):
                    raise conversations_refused(text.name, f"evaluation.datasets.{number}")
        _require_room_for_prompts(evaluation, self.description)
        return evaluation.model_copy(update={"sequence_length": length}), texts

    def _recovery(
        self, calibration: Calibration | None, calibration_text: TextReference | None
    ) -> tuple[Recovery | None, Mapping[str, Any]]:
        """Return the recovery with its defaults, and references to its texts and teacher; None without training."""
        body = self.body
        method = get_method(body.method)
        prunes = method.prunes
        if body.recovery is None:
            if prunes or method.measures or method.only_stores:
                return None, {}
            raise InvalidRequest(
                f'recovery is required: {body.method} only trains, for example "recovery": {{"method": "lora", '
                '"dataset": "NAME", "steps": 200}',
                param="recovery",
            )
        if method.only_stores:
            raise InvalidRequest(
                f"recovery: {body.method} stores the model as it is: leave it out, or use method recover",
                param="recovery",
            )
        recovery = complete_recovery(
            body.recovery,
            self.description,
            calibration.sequence_length if calibration else None,
            loses_units=self.request.shrinks,
        )
        assert recovery.sequence_length is not None
        length, texts = recovery.sequence_length, []
        for name, param, stage in stage_texts(recovery):
            most = stage.steps * recovery.batch_size
            needs = TextNeeds("calibration", param, None, length, recovery.seed, most, answers=recovery.answers)
            texts.append(resolve_dataset(self.context, name, needs))
        text = texts[0] if texts else calibration_text
        if recovery.dataset is not None:
            most = most_sequences(recovery)
            needs = TextNeeds(
                "calibration",
                "recovery.dataset",
                recovery.samples,
                recovery.sequence_length,
                recovery.seed,
                most,
                recovery.shape,
                recovery.answers,
            )
            text = resolve_dataset(self.context, recovery.dataset, needs)
        if text is None:
            raise InvalidRequest(
                'recovery.dataset is required, for there is no calibration text to train on: add "dataset": "NAME" to '
                'recovery, or "calibration": {"dataset": "NAME"} to the job',
                param="recovery.dataset",
            )
        if isinstance(text, SelfText) and recovery.own_text:
            if body.recovery.own_text:
                raise InvalidRequest(
                    f"recovery.own_text: with the dataset {SELF!r} the model writes all of the text: leave it out",
                    param="recovery.own_text",
                )
            recovery = recovery.model_copy(update={"own_text": 0.0})
        sources: dict[str, Any] = {"recovery": [each.model_dump(mode="json") for each in texts or [text]]}
        if RECOVERIES[recovery.method].learns_from_model:
            if prunes and recovery.teacher is not None:
                raise InvalidRequest(
                    f"{_TEACHER} is only for method recover: a job that prunes uses its own dense model",
                    param=_TEACHER,
                )
            if not prunes:
                teacher = self._teacher(recovery)
                recovery = recovery.model_copy(update={"teacher": teacher.pinned})
                sources["teacher"] = teacher.reference.model_dump(mode="json")
        if written := own_sequences(recovery):
            seed = recovery.seed + _TRAINING_SEED
            needs = TextNeeds("calibration", "recovery.own_text", written, length, seed, shape=recovery.shape)
            sources["own_text"] = needs.refer_to_model().model_dump(mode="json")
        _require_written(recovery.shape, "recovery", written or isinstance(text, SelfText))
        return recovery, sources

    def _teacher(self, recovery: Recovery) -> ResolvedModel:
        named = recovery.teacher
        if named is None:
            raise InvalidRequest(
                f"{_TEACHER} is required: name the model to learn from, for example the one this was pruned from",
                param=_TEACHER,
            )
        try:
            teacher = resolve_model(self.context, named, self.body.queue)
        except SecateurError as error:
            error.param = _TEACHER
            raise
        try:
            described = teacher.description.language_model
        except UnsupportedArchitecture:
            raise InvalidRequest(f"{_TEACHER}: {named!r} is not a language model", param=_TEACHER) from None
        if described.vocabulary_size < self.description.vocabulary_size:
            raise InvalidRequest(
                f"{_TEACHER}: {named!r} has a vocabulary of {described.vocabulary_size} tokens, but the model has "
                f"{self.description.vocabulary_size}: distill needs a teacher with all of the model's tokens",
                param=_TEACHER,
            )
        check_matching(recovery, self.description, described)
        return teacher


def _is_chat(text: TextReference) -> bool:
    """Return True for a text that is known to have conversations."""
    if isinstance(text, SelfText):
        return text.shape == "chat"
    if isinstance(text, FileText | StoredText):
        return text.format in CHAT_FORMATS
    return isinstance(text, AnsweredText)


def _require_written(shape: Shape | None, part: str, is_written: object) -> None:
    """Refuse the shape of a text that the model does not write: raises InvalidRequest."""
    if shape is not None and not is_written:
        raise InvalidRequest(
            f"{part}.shape is of text that the model writes itself, and here it writes none: name the dataset "
            f"{SELF!r}, or leave it out",
            param=f"{part}.shape",
        )


def _require_conversations(calibration: Calibration, texts: Sequence[TextReference]) -> None:
    """Refuse to count the assistant's words where no text can have any: raises InvalidRequest."""
    if calibration.counted_tokens == "assistant" and not any(
        _is_chat(each) or isinstance(each, HubText) for each in texts
    ):
        raise InvalidRequest(
            f"calibration.counted_tokens: {calibration.dataset!r} has no conversations, so that no words are an "
            'assistant\'s: name a set of conversations, or give "shape": "chat" where the model writes the text',
            param="calibration.counted_tokens",
        )


def _require_room_for_prompts(evaluation: Evaluation, description: ModelDescription) -> None:
    """Require that the context has room for the new tokens after the shortest prompt; raises InvalidRequest.

    The shortest prompt is one token after the begin-of-text token.
    """
    most = description.context_length - 2
    if evaluation.prompts and evaluation.prompt_tokens > most:
        raise InvalidRequest(
            f"evaluation.prompt_tokens: {evaluation.prompt_tokens} new tokens leave no room for a prompt in the "
            f"model's context of {description.context_length}: ask for at most {most}",
            param="evaluation.prompt_tokens",
        )


def _sequence_length(requested: int | None, default: int | None, description: ModelDescription, param: str) -> int:
    if requested is None:
        return default or min(DEFAULT_SEQUENCE_LENGTH, description.context_length)
    if requested > description.context_length:
        raise InvalidRequest(
            f"{param} {requested} is longer than the model's context of {description.context_length} tokens",
            param=param,
        )
    return requested


def _resolve_tasks(names: Sequence[str], hub: HubFindings) -> list[TaskReference]:
    """Return the tasks of these names; raises InvalidRequest for an unknown or repeated name, and look-up errors.

    A task that was not looked up on the hub has a local copy in this service's home.
    """
    named = []
    for param, name in unique_names(names, "evaluation.tasks"):
        if name not in TASKS:
            raise InvalidRequest(
                f"{param}: there is no task {name!r}; the tasks are {', '.join(TASKS)}{nearest_hint(name, TASKS)}",
                param=param,
            )
        named.append((param, name))
    return [_task(name, hub.task(name, param)) for param, name in named]


def _task(name: str, dataset: HubDataset | None) -> TaskReference:
    hub = dataset and HubText.model_validate(hub_facts(name, dataset, "evaluation") | {"characters": None})
    return TaskReference(name=name, hub=hub)
