"""Fetch stage: every input that a claim names is fetched, unless it is on this machine, and checked for changes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import structlog

from core.engine.datasets.chat.conversations import Rendering
from core.engine.datasets.formats import CHAT_FORMATS, IMAGE_PARQUET
from core.engine.evaluation.zero_shot_tasks import TASKS, local_copy
from core.engine.recovery.request import RECOVERIES, Recovery, stage_texts
from core.pipeline.messages import ClassifierSpec, ImageSource, JobSpec, LanguageSpec, ModelSource, TextSource
from core.pipeline.stages.sources_spec import ChatShape, WriteSpec, WrittenOutput
from core.service.jobs.queue import Claim
from core.service.jobs.queue.claimed import ClaimedImages
from core.service.sources.folders import content_hash, dataset_hash, file_hash
from core.service.sources.hub_access import HubAccess
from core.service.sources.references import (
    AnsweredText,
    FileImages,
    FileText,
    FolderModel,
    HubText,
    ImageReference,
    ModelReference,
    SelfText,
    StoredImages,
    StoredModel,
    StoredText,
    TaskReference,
    TextReference,
)
from core.storage import MANIFEST, Store
from core.storage.store import GENERATED_PREFIX, translate_disk_full
from secateur_wire.errors import RunnerLost, StoreUnavailable, UnusableDataset, UnusableModel
from worker.fetcher.protocol import (
    IMAGES_FILE,
    TEXT_FILE,
    CommonFields,
    FetchedImages,
    FetchedText,
    FetchGeneratedSpec,
    FetchImagesSpec,
    FetchModelSpec,
    FetchTaskSpec,
    FetchTextSpec,
    generated_key,
    images_key,
    is_closed,
    model_key,
    questions_key,
    text_key,
    with_secrets,
)
from worker.node_cache import NodeCache
from worker.supervisor.chat_renderer import ChatRenderer
from worker.supervisor.fetched_inputs import InputFetcher

logger = structlog.get_logger()
_TRIES = 3
"""Number of tries to render conversations; they may be removed, to make room, before they are locked."""


class JobInputs:
    """Inputs of one attempt: model, texts and images; their cache entries stay locked until this is closed.

    `fetcher` belongs to the attempt, and is closed with this object. `find_access` looks up the access to the hub for
    the job's team, again for each fetch.
    """

    def __init__(
        self,
        fetcher: InputFetcher,
        store: Store,
        *,
        find_access: Callable[[], HubAccess],
        write_text: Callable[[WriteSpec], WrittenOutput],
    ) -> None:
        self._fetcher = fetcher
        self._store = store
        self._find_access = find_access
        self._write_text = write_text
        self._settings = fetcher.settings
        self._team_id = fetcher.team_id
        self._folder = fetcher.folder
        self._on_wait = fetcher.on_wait
        self._previous: list[Path] = []
        self._renderer = ChatRenderer(fetcher.settings, fetcher.cache, on_wait=fetcher.on_wait)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._fetcher.close()

    def end_fetching(self) -> None:
        """End the fetcher to free its memory; fetched inputs stay."""
        self._fetcher.end()

    @property
    def cache(self) -> NodeCache:
        return self._fetcher.cache

    def fetch_job(self, claim: Claim) -> JobSpec:
        """Fetch all inputs of a job; return the spec that its stages share.

        Raises the errors that the fetcher and the runner report.
        """
        earlier = (self._folder.with_name(f"attempt-{number}") for number in claim.previous_attempts)
        self._previous = [each for each in earlier if each.is_dir()]  # earlier attempts may be on another node
        job = JobSpec(
            job=claim.job_id,
            attempt=claim.attempt,
            recipe=claim.recipe,
            model=self.model(claim.model),
            baseline=claim.baseline,
            work=self._folder,
            previous=self._previous,
            artifact=self._folder / "artifact",
            device=self._settings.device,
            threads=self._settings.threads,
        )
        if claim.images is not None:
            return self._classifier_job(job, claim.images)
        return self._language_job(job, claim)

    def _language_job(self, job: JobSpec, claim: Claim) -> LanguageSpec:
        model, recovery = job.model, claim.recipe.recovery
        reference = claim.calibration if claim.recipe.reads_calibration else None
        calibration = None if reference is None else self.text(reference, model, "calibration.dataset")
        generated = claim.generated and reference and self.text(claim.generated, model, "calibration.generated")
        evaluation = [self.text(text, model, "evaluation.datasets") for text in claim.evaluation]
        questions = [self.questions(task) for task in claim.tasks]
        question_sets = [self.question_set(text, model, "evaluation.answers.datasets") for text in claim.answers]
        is_chat = any(each.rendering is not None for each in question_sets)
        params = [] if recovery is None else [param for _, param, _ in stage_texts(recovery)] or ["recovery.dataset"]
        teacher = None if recovery is None else self._teacher(recovery, claim, model)

        def text(reference: TextReference, param: str) -> TextSource:
            if calibration is not None and reference == claim.calibration:
                return calibration
            return self.text(reference, model, param)

        return LanguageSpec.of(
            job,
            calibration=calibration,
            counted=[text(reference, "vocabulary.datasets") for reference in claim.vocabulary],
            generated=generated,
            evaluation=evaluation,
            question_sets=question_sets,
            frame=self._renderer.known_frame(model) if is_chat else None,
            questions=questions,
            recovery=[text(reference, param) for reference, param in zip(claim.recovery, params, strict=True)],
            teacher=teacher,
            own_text=claim.own_text and self.text(claim.own_text, teacher or model, "recovery.own_text"),
            activation_budget_bytes=self._settings.activation_budget_bytes,
        )

    def _teacher(self, recovery: Recovery, claim: Claim, model: ModelSource) -> ModelSource | None:
        """Return the model that a recovery learns from, if any: the named one, otherwise the job's own dense model."""
        if not RECOVERIES[recovery.method].learns_from_model:
            return None
        return model if claim.teacher is None else self.model(claim.teacher)

    def _classifier_job(self, job: JobSpec, images: ClaimedImages) -> ClassifierSpec:
        def source(reference: ImageReference | None, param: str) -> ImageSource | None:
            return None if reference is None else self.images(reference, param)

        return ClassifierSpec.of(
            job,
            calibration=source(images.calibration, "calibration.dataset"),
            recovery=source(images.recovery, "recovery.dataset"),
            evaluation=[self.images(each, "evaluation.datasets") for each in images.evaluation],
        )

    def model(self, reference: ModelReference) -> ModelSource:
        """Return the model's folder: its own path if it is on this machine, otherwise the cache entry.

        Raises UnusableModel, and the errors that the fetcher reports.
        """
        place = self._model_in_place(reference)
        if place is not None:
            self._check_model(reference, place)
        else:
            assert not isinstance(reference, FolderModel)
            spec = FetchModelSpec(**self._common_fields(), key=model_key(reference, self._team_id), model=reference)
            place = self._fetcher.entry(spec, ask_first=is_closed(reference))
        return ModelSource(
            path=place.resolve(),
            own_artifact=isinstance(reference, StoredModel) and reference.is_artifact,
            name=reference.name,
            revision=reference.revision,
            discovered=reference.discovered,
        )

    def text(self, reference: TextReference, model: ModelSource, param: str) -> TextSource:
        """Return the text's file; conversations are rendered by the model's chat template.

        Raises UnusableDataset, and the errors that the fetcher, the renderer or the runner reports.
        """
        if isinstance(reference, SelfText | AnsweredText):
            return self._generated(reference, model, param)
        source = self._source(reference, param)
        return self._rendered(source, model, "conversations", param) if source.format in CHAT_FORMATS else source

    def question_set(self, reference: TextReference, model: ModelSource, param: str) -> TextSource:
        """Return the file of a set of questions; conversations are rendered up to the words that ask for an answer.

        Raises UnusableDataset, and the errors that the fetcher or the renderer reports.
        """
        assert not isinstance(reference, SelfText | AnsweredText), "refused at submit"
        source = self._source(reference, param)
        return self._rendered(source, model, "questions", param) if source.format in CHAT_FORMATS else source

    def _rendered(
        self, text: TextSource, model: ModelSource, wanted: Literal["conversations", "questions"], param: str
    ) -> TextSource:
        """Return conversations as the model's chat template renders them, from the node's cache if they are there."""
        template = self._renderer.template_of(model, text.name, param)
        key = self._renderer.key(text, template, wanted)
        entry = self._fetcher.find(key)
        for _ in range(_TRIES):
            if entry is not None:
                return self._renderer.source(text, entry)
            self._renderer.fill(key, text, template, wanted, param)
            entry = self._fetcher.find(key)
        raise RunnerLost("The conversations that were rendered for this job were removed to make room for others.")

    def _source(self, reference: FileText | StoredText | HubText, param: str) -> TextSource:
        """Return a text's file as it is; raises UnusableDataset, and the errors that the fetcher reports."""
        if isinstance(reference, FileText):
            return self._file(reference, reference.path, reference.sha256, param)
        if isinstance(reference, StoredText):
            folder = self._store.folder(reference.prefix)
            if folder is not None:
                return self._file(reference, folder / reference.file.path, reference.file.sha256, param)
        spec = FetchTextSpec(**self._common_fields(), key=text_key(reference, self._team_id), text=reference)
        entry = self._fetcher.entry(spec, ask_first=is_closed(reference))
        if isinstance(reference, StoredText):
            return _text_source(reference, entry / TEXT_FILE, reference.file.sha256)
        return _described_source(reference.name, entry)

    def images(self, reference: ImageReference, param: str) -> ImageSource:
        """Return the images' file or folder; raises UnusableDataset, and the errors that the fetcher reports."""
        if isinstance(reference, FileImages):
            return self._images_in_place(reference, reference.path, reference.sha256, param)
        if isinstance(reference, StoredImages):
            assert reference.file.sha256 is not None, reference
            folder = self._store.folder(reference.prefix)
            if folder is not None:
                return self._images_in_place(reference, folder / reference.file.path, reference.file.sha256, param)
        spec = FetchImagesSpec(**self._common_fields(), key=images_key(reference, self._team_id), images=reference)
        entry = self._fetcher.entry(spec, ask_first=is_closed(reference))
        if isinstance(reference, StoredImages):
            return _image_source(reference, entry / IMAGES_FILE, str(reference.file.sha256))
        about = FetchedImages.model_validate_json((entry / MANIFEST).read_bytes())
        return ImageSource(
            name=reference.name,
            path=(entry / IMAGES_FILE).resolve(),
            format=IMAGE_PARQUET,
            sha256=about.sha256,
            origin=about.origin,
        )

    def questions(self, task: TaskReference) -> TextSource:
        """Return the questions of a zero-shot task: this node's own copy, otherwise the hub's.

        Raises UnusableDataset, and the errors that the fetcher reports.
        """
        here = local_copy(self._settings.local_tasks.resolve(), TASKS[task.name])
        if here is not None:
            origin = {"kind": "local", "split": here.stem}
            sha256 = file_hash(here, watch=self._on_wait)
            return TextSource(name=task.name, path=here, format="jsonl", sha256=sha256, origin=origin)
        if task.hub is None:
            raise UnusableDataset(
                f"The questions of {task.name} are a local copy: this worker lacks it in {self._settings.local_tasks}.",
                param="evaluation.tasks",
            )
        spec = FetchTaskSpec(**self._common_fields(), key=questions_key(task.hub, self._team_id), questions=task.hub)
        return _described_source(task.name, self._fetcher.entry(spec, ask_first=is_closed(task.hub)))

    def _common_fields(self) -> CommonFields:
        """Return the fields that every spec has; the operator's token is included only if the team may use it."""
        access = self._find_access()
        settings = self._settings if access.is_lent else self._settings.model_copy(update={"hub_token": None})
        return {"settings": with_secrets(settings), "access": access}

    def _model_in_place(self, reference: ModelReference) -> Path | None:
        if isinstance(reference, FolderModel):
            return reference.path
        is_packed = isinstance(reference, StoredModel) and reference.unpacked_bytes is not None
        return self._store.folder(reference.prefix) if isinstance(reference, StoredModel) and not is_packed else None

    def _check_model(self, reference: ModelReference, folder: Path) -> None:
        """Check the registered content by hashing it in full, since a report claims to reproduce it.

        Only reading the bytes proves it: sizes and times survive an edit through a hard link. This costs one read,
        after which the runner finds the files in the page cache. Raises UnusableModel.
        """
        if not folder.is_dir():
            raise UnusableModel(f"The files of model {reference.name!r} are no longer there.", param="model")
        if content_hash(folder, watch=self._on_wait) != reference.revision:
            raise UnusableModel(
                f"The files of model {reference.name!r} have changed since it was registered; register them under a "
                "new name.",
                param="model",
            )

    def _file(self, reference: FileText | StoredText, file: Path, sha256: str | None, param: str) -> TextSource:
        if not file.is_file():
            raise UnusableDataset(f"The file of dataset {reference.name!r} is no longer there.", param=param)
        if file_hash(file, watch=self._on_wait) != sha256:
            raise UnusableDataset(
                f"The file of dataset {reference.name!r} has changed since it was registered.", param=param
            )
        return _text_source(reference, file, sha256)

    def _images_in_place(
        self, reference: FileImages | StoredImages, place: Path, sha256: str, param: str
    ) -> ImageSource:
        if not place.exists():
            raise UnusableDataset(f"The images of dataset {reference.name!r} are no longer there.", param=param)
        if dataset_hash(place, watch=self._on_wait) != sha256:
            raise UnusableDataset(
                f"The images of dataset {reference.name!r} have changed since they were registered.", param=param
            )
        return _image_source(reference, place, sha256)

    def _generated(self, reference: SelfText | AnsweredText, model: ModelSource, param: str) -> TextSource:
        """Return the text that is generated once for the fleet: from the node's cache, the store or the model."""
        questions: TextSource | None = None
        if isinstance(reference, AnsweredText):
            prompts = self._source(reference.prompts, param)
            if prompts.format not in CHAT_FORMATS:
                raise UnusableDataset(
                    f"{param}: {reference.name!r} has no conversations, whose answers a model could write", param=param
                )
            questions = self._rendered(prompts, model, "questions", param)
        key = generated_key(reference, model.revision, None if questions is None else questions.sha256)
        prefix = f"{GENERATED_PREFIX}/{key}"
        here = self._store.folder(prefix)
        if here is not None and (here / MANIFEST).is_file():
            os.utime(here / MANIFEST)  # it is read in place; a new time protects it from the sweep
            return _described_source(reference.name, here)
        entry = self._fetcher.find(key)
        if entry is None and here is None:
            spec = FetchGeneratedSpec(**self._common_fields(), key=key, prefix=prefix)
            if self._fetcher.fetch(spec)["found"]:
                entry = self._fetcher.find(key)
        if entry is None:
            entry = self._generate(reference, model, questions, key, prefix, param)
        return _described_source(reference.name, entry)

    def _generate(
        self,
        reference: SelfText | AnsweredText,
        model: ModelSource,
        questions: TextSource | None,
        key: str,
        prefix: str,
        param: str,
    ) -> Path:
        chat: ChatShape | None = None
        if questions is not None or (isinstance(reference, SelfText) and reference.shape == "chat"):
            frame, template = self._renderer.frame(model, reference.name, param)
            chat = ChatShape(
                frame=frame, template=template.sha256, questions=None if questions is None else questions.path
            )
        folder = self._folder / key
        folder.mkdir(parents=True, exist_ok=True)
        self.end_fetching()  # frees memory for the model
        options = reference.model_dump(include={"samples", "sequence_length", "seed"})
        spec = WriteSpec(
            model=model.place,
            revision=model.revision,
            target=folder / TEXT_FILE,
            work=self._folder,
            previous=self._previous,
            device=self._settings.device,
            threads=self._settings.threads,
            chat=chat,
            **options,
        )
        generated = self._write_text(spec)
        about = FetchedText(
            sha256=file_hash(folder / TEXT_FILE),
            documents=generated.documents,
            characters=generated.characters,
            origin={"kind": "self", "model_revision": model.revision, **options, "tokens": generated.tokens},
        )
        if chat is not None:
            of_questions = {} if questions is None else {"questions": {"sha256": questions.sha256, **questions.origin}}
            rendering = Rendering(
                template=chat.template,
                conversations=generated.documents,
                characters=generated.characters,
                left_out=generated.left_out,
            )
            about = about.model_copy(
                update={"rendering": rendering, "origin": about.origin | {"shape": "chat"} | of_questions}
            )
        with translate_disk_full():
            (folder / MANIFEST).write_text(about.model_dump_json(indent=2))
        try:
            self._store.publish(folder, prefix, watch=self._on_wait)
        except StoreUnavailable as error:  # the next job generates it again
            logger.warning("generated text not stored", error=error.message)
        return folder


def _text_source(reference: FileText | StoredText, file: Path, sha256: str | None) -> TextSource:
    return TextSource(
        name=reference.name,
        path=file.resolve(),
        format=reference.format,
        text_field=reference.text_field,
        sha256=sha256,
        origin={"kind": "registered"},
    )


def _described_source(name: str, folder: Path) -> TextSource:
    """Return the source of a text that the fetcher or the runner wrote, as JSON lines."""
    about = FetchedText.model_validate_json((folder / MANIFEST).read_bytes())
    return TextSource(
        name=name,
        path=(folder / TEXT_FILE).resolve(),
        format=about.format,
        sha256=about.sha256,
        origin=about.origin,
        rendering=about.rendering,
    )


def _image_source(reference: FileImages | StoredImages, place: Path, sha256: str) -> ImageSource:
    return ImageSource(
        name=reference.name,
        path=place.resolve(),
        format=reference.format,
        image_field=reference.image_field,
        label_field=reference.label_field,
        sha256=sha256,
        origin={"kind": "registered"},
    )
