"""Resolution of jobs on language models: their texts and tasks, the recovery and its teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, ClassVar

from sqlalchemy import ColumnElement

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.checks.registry import CHECKS
from core.engine.datasets.formats import CHAT_FORMATS
from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.recovery.completion import check_matching, complete_recovery
from core.engine.recovery.registry import RECOVERIES
from core.engine.recovery.request import Recovery, most_sequences, own_sequences, stage_texts
from core.engine.removals.vocabulary.counts import tokens_left, too_few_tokens
from core.methods.registry import get_method
from core.pipeline.recipes.outputs import resolve_output
from core.pipeline.recipes.request import ResolvedRequest
from core.pipeline.recipes.validation import calibrated_method, calibrated_variant
from core.pipeline.recipes.vocabulary import conversations_refused
from core.service.jobs.gates import require_measured
from core.service.jobs.resolution.context import RequestContext, ResolvedInputs, unique_names
from core.service.jobs.resolution.dataset import SELF, DatasetNeeds, hub_facts, resolve_dataset, row_facts
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.jobs.resolution.model import ResolvedModel, resolve_model
from core.service.jobs.schemas import DEFAULT_SEQUENCE_LENGTH, JobBody
from core.service.registry.tables import DatasetRow
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import (
    AnsweredText,
    FileText,
    HubText,
    ModelReference,
    SelfText,
    SimpleTasksText,
    StoredText,
    TaskReference,
    TextReference,
)
from core.service.token_counts import kept_count
from core.validation import nearest_hint
from secateur_wire.chat import Answers, Shape
from secateur_wire.errors import InvalidRequest, SecateurError, TooLittleText, UnsupportedArchitecture, UnusableDataset
from secateur_wire.job_body import Calibration, Evaluation, VocabularyChoice

_TEACHER = "recovery.teacher"
_EVALUATION_SEED = 2**31
"""Added to the seed of generated evaluation text: calibration's seeds are smaller, so the two never share one."""
_TRAINING_SEED = 2**32
"""Added to the seed of generated training text, for the same reason."""
_QUESTION_LENGTH = 2
"""Tokens of a text that a question needs at least."""
_COUNTED_LENGTH, _COUNTED_WINDOWS = 1, 1_000_000
"""Tokens of a hub dataset that are counted, for a vocabulary: as windows of one token each."""
_LEAST_TASKS, _TASK_TOKENS = 600, 64
"""Fewest simple tasks of a set, and the tokens that each has at least with its solved examples."""
_MOST_BYTES_PER_CHARACTER = 4
_CHARACTERS_PER_TOKEN = 16
"""Characters to fetch from a hub dataset per token: English has about 4, and small vocabularies fewer."""
_LEAST_CHARACTERS = 4_000_000
"""Minimum number of characters to fetch from a hub dataset. Jobs of different sizes then share the fetched text, and
the usual evaluation texts are fetched whole."""


@dataclass(frozen=True)
class TextNeeds(DatasetNeeds[TextReference]):
    """Requirements of a text, whose length is counted in tokens; without `samples`, no more than `most` are used.

    `shape` is that of a text which the model writes; `answers` says who answers a set of conversations.
    """

    sequence_length: int
    seed: int
    most: int | None = None
    shape: Shape | None = None
    answers: Answers | None = None

    is_of_kind: ClassVar[ColumnElement[bool]] = DatasetRow.images.is_(None)
    registered: ClassVar[str] = "registered"
    other_names: ClassVar[str] = (
        "one of the hub (wikitext, c4, org/name[:config[:split]]), 'simple-tasks' for generated tasks, or 'self' for "
        "text the model generates"
    )

    def refer_to_row(self, row: DatasetRow) -> TextReference:
        is_chat = row.format in CHAT_FORMATS
        if row.images is not None:
            raise UnusableDataset(
                f"{self.param}: {row.name!r} has images, but a language model reads text: name a text",
                param=self.param,
            )
        if self.answers is not None and not is_chat:
            raise InvalidRequest(
                f"{self.part}.answers: {row.name!r} is a text ({row.format}), and only conversations have answers: "
                "leave it out, or register the set with format chat_jsonl or chat_parquet",
                param=f"{self.part}.answers",
            )
        if not is_chat:  # a template adds words, so that the number of bytes says nothing about conversations
            _check_enough(row, self)
        kind: type[FileText | StoredText] = FileText if row.prefix is None else StoredText
        return self._answered(row.name, kind.model_validate(row_facts(row, "text_field")))

    def _answered(self, name: str, text: FileText | StoredText | HubText | SimpleTasksText) -> TextReference:
        """Return a reference to conversations with the answers that are asked for."""
        if self.answers != "self":
            return text
        samples = self.samples or self.most
        if samples is None:
            raise InvalidRequest(
                f"{self.part}.samples: the model writes the answers for the job, so give the number of samples",
                param=f"{self.part}.samples",
            )
        return AnsweredText(
            name=name, prompts=text, samples=samples, sequence_length=self.sequence_length, seed=self.seed
        )

    def refer_to_hub(self, name: str, dataset: HubDataset) -> TextReference:
        samples = self.samples or self.most
        characters = None
        if samples is not None:
            characters = max(_LEAST_CHARACTERS, samples * self.sequence_length * _CHARACTERS_PER_TOKEN)
        text = HubText.model_validate(hub_facts(name, dataset, self.use) | {"characters": characters})
        return self._answered(name, text)

    def refer_to_simple_tasks(self, name: str, tasks: tuple[str, ...]) -> TextReference:
        samples = self.samples or self.most or 0
        rows = max(_LEAST_TASKS, ceil(samples * self.sequence_length / _TASK_TOKENS))
        return self._answered(name, SimpleTasksText(name=name, tasks=tasks, rows=rows, seed=self._own_seed))

    @property
    def _own_seed(self) -> int:
        """Return the seed of what is generated for this part of a job."""
        return self.seed + (_EVALUATION_SEED if self.use == "evaluation" else 0)

    def refer_to_model(self) -> SelfText:
        if self.answers is not None:
            raise InvalidRequest(
                f"{self.part}.answers is for a set of conversations; of {SELF!r} the model writes everything: use "
                f'"shape": "chat" instead',
                param=f"{self.part}.answers",
            )
        if self.samples is None:
            raise InvalidRequest(
                f"{self.part}.samples: {SELF!r} is text that the model writes for the job, so give the number of "
                "samples",
                param=f"{self.part}.samples",
            )
        return SelfText(
            name=SELF,
            samples=self.samples,
            sequence_length=self.sequence_length,
            seed=self._own_seed,
            shape=self.shape or "text",
        )


@dataclass(frozen=True)
class QuestionNeeds(TextNeeds):
    """Requirements of a set of questions; a text gives the beginnings of its documents."""

    def refer_to_model(self) -> SelfText:
        raise InvalidRequest(
            f"{self.param}: {SELF!r} is text that the model writes, and questions of its own say little about the "
            "questions of users: name a set of conversations, of prompts or a text",
            param=self.param,
        )


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
        output = resolve_output(body.output, self.description, self.request, loses_tokens=self._vocabulary is not None)
        calibration, text, generated = self._calibration()
        compensation = self.request.parameters.requested_compensation
        is_single = calibration is not None and calibration.samples == 1 and not calibration.generated
        if compensation and compensation.chooses and is_single:
            raise InvalidRequest(
                "calibration.samples: compensation 'auto' keeps one sequence apart to choose by: give 2 or more",
                param="calibration.samples",
            )
        evaluation, texts = self._evaluation(calibration)
        asked = self._questions(evaluation)
        require_measured(body.gates, evaluation, self.description.model_task, has_exports=bool(output.exports))
        recovery, trained = self._recovery(calibration, text)
        return ResolvedInputs(
            {"output": output, "calibration": calibration, "evaluation": evaluation, "recovery": recovery},
            {
                "calibration": None if text is None else text.model_dump(mode="json"),
                "generated": None if generated is None else generated.model_dump(mode="json"),
                "vocabulary": [each.model_dump(mode="json") for each in self._counted(text)],
                "evaluation": [each.model_dump(mode="json") for each in texts],
                **({"answers": [each.model_dump(mode="json") for each in asked]} if asked else {}),
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

    def _questions(self, evaluation: Evaluation) -> list[TextReference]:
        """Return the sets of questions whose answers are compared; raises InvalidRequest for what cannot be."""
        answers, part = evaluation.answers, "evaluation.answers"
        if answers is None:
            return []
        if answers.check is not None and answers.check not in CHECKS:
            raise InvalidRequest(
                f"{part}.check: there is no check {answers.check!r}; the checks are {', '.join(CHECKS)}"
                f"{nearest_hint(answers.check, CHECKS)}",
                param=f"{part}.check",
            )
        most = self.description.context_length - 2
        if answers.max_new_tokens > most:
            raise InvalidRequest(
                f"{part}.max_new_tokens: answers of {answers.max_new_tokens} tokens leave no room for a question in "
                f"the model's context of {self.description.context_length}: ask for at most {most}",
                param=f"{part}.max_new_tokens",
            )
        return [
            resolve_dataset(
                self.context,
                name,
                QuestionNeeds("evaluation", param, answers.samples, _QUESTION_LENGTH, answers.seed),
            )
            for param, name in unique_names(answers.datasets, f"{part}.datasets")
        ]

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
    return isinstance(text, SimpleTasksText)


def _require_written(shape: Shape | None, part: str, is_written: object) -> None:
    """Refuse the shape of a text that the model does not write: raises InvalidRequest."""
    if shape is not None and not is_written:
        raise InvalidRequest(
            f"{part}.shape is of text that the model writes itself, and here it writes none: name the dataset "
            f"{SELF!r}, or leave it out",
            param=f"{part}.shape",
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


def _check_enough(row: DatasetRow, needs: TextNeeds) -> None:
    """Check the length in bytes: a token has at least one byte, so a shorter text cannot suffice.

    The runner counts exactly.
    """
    samples = needs.samples or 1
    needed = samples * needs.sequence_length
    most = _MOST_BYTES_PER_CHARACTER * row.characters
    # A Parquet file is compressed, so its size gives no bound.
    there = most if row.format == "parquet" else min(most, row.bytes)
    if there < needed:
        raise TooLittleText(
            f"{needs.part}: {row.name!r} is too short: it has {there} bytes of text, but {needed} tokens are needed "
            f"({samples} × {needs.sequence_length})",
            param=f"{needs.part}.samples",
        )
