"""Removal of tokens: count them on texts, choose those that stay, and write the model that keeps them.

The choice is saved, so that an attempt after a killed one keeps the same tokens without counting again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel

from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.companions import template_constants
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import text_length
from core.engine.models.folder import ModelFolder
from core.engine.models.tensors import DTYPES
from core.engine.removals.vocabulary import planned_tokens, tokens_left
from core.engine.resume.kinds import VOCABULARY
from core.engine.resume.store import ResumeStore, Runtime, file_sha256, fingerprint
from core.engine.vocabulary.choice import choose_tokens
from core.engine.vocabulary.counts import count_tokens, counted_documents
from core.engine.vocabulary.files import named_ids, write_tokenizer
from core.engine.vocabulary.rows import required_tokens, write_reduced
from core.engine.vocabulary.tokenizer_kinds import TOKENIZER_FILE, read_tokenizer
from core.pipeline.messages import ModelSource, TextSource
from core.pipeline.recipes.vocabulary import recipe_without_tokens
from core.pipeline.reports.model_card import VOCABULARY_CHART
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.pruning_spec import VocabularyOutput, VocabularySpec
from core.pipeline.stages.report import described_source
from core.progress import Progress
from secateur_wire.errors import InvalidRequest
from secateur_wire.job_body import VocabularyChoice
from secateur_wire.reports import CoveragePoint, VocabularyReport


class _Choice(BaseModel):
    """Tokens that stay, by their ids in the dense model, with the figures of the choice that the report has."""

    ids: list[int]
    used: int
    least: int
    tokens: int
    covered: float
    coverage: list[CoveragePoint]
    scripts: list[str]
    lacking: list[str]


def remove_tokens(spec: VocabularySpec, context: StageContext) -> VocabularyOutput:
    """Remove tokens from the job's model, and from a teacher whose hidden states are matched.

    Raises the kind of InvalidRequest that names what cannot be removed, UnusableModel for a tokenizer that fails.
    """
    progress = context.progress
    progress.stage("open")
    folder = open_place(spec.model)
    saved = _choice(spec, folder, context)
    kept = saved.ids
    reduced, left_out = _written(folder, kept, spec.work / "reduced", progress)
    source = _source(spec, spec.model, kept, reduced.path)
    recipe = recipe_without_tokens(spec.recipe, folder.description, reduced.description)
    dense_tokenizer, tokenizer = folder.tokenizer(), reduced.tokenizer()
    texts = {text.name: text_length(_documents(text), dense_tokenizer, tokenizer) for text in spec.evaluation}
    vocabulary = VocabularyReport(
        before=folder.description.vocabulary_size,
        kept=len(kept),
        parameters=folder.description.parameters - reduced.description.parameters,
        counted=[described_source(each) or {} for each in spec.counted],
        texts=texts,
        **{name: value for name, value in saved if name != "ids"},
    )
    _draw(vocabulary, spec)
    progress.log(vocabulary.words)
    return VocabularyOutput(
        reduced=source,
        teacher=_teacher(spec, folder, kept, source, progress),
        sparsity=recipe.sparsity,
        vocabulary=vocabulary,
        notes=[*_notes(vocabulary), *left_out],
        peak_memory=context.peak_memory(),
    )


def _choice(spec: VocabularySpec, folder: ModelFolder, context: StageContext) -> _Choice:
    """Return the tokens that stay, with figures of the choice; those of an earlier attempt are taken as they are."""
    choice = spec.recipe.vocabulary_choice
    assert choice is not None
    description = folder.description
    tokens = _tokens(spec, description)
    facts = {
        "model": spec.model.revision,
        "texts": [[each.name, each.sha256, each.origin] for each in spec.counted],
        "choice": choice.model_dump(mode="json", include={"keep", "scripts", "round_to"}),
        "tokens": tokens,
    }
    same = fingerprint("vocabulary", facts, Runtime.of(context.device, DTYPES[description.dtype]))
    store = ResumeStore(spec.work, same, spec.previous)
    if (saved := store.resume(VOCABULARY, context.progress.log)) is not None:
        context.progress.log("the tokens that an earlier attempt chose stay")
        store.save(VOCABULARY, 0, {}, saved.state)
        return _Choice.model_validate(saved.state)
    tokenizer = read_tokenizer(spec.model.path)
    counts = count_tokens((document for text in spec.counted for document in _documents(text)), spec.model.path)
    context.progress.raise_if_stopped()
    try:
        chosen = choose_tokens(
            tokenizer,
            counts,
            tokens=tokens,
            keep=[*choice.keep, *template_constants(spec.model.path)],
            scripts=choice.scripts,
            required=named_ids(spec.model.path, description.vocabulary_size) | required_tokens(folder),
            round_to=choice.round_to,
        )
    except InvalidRequest as error:
        if error.param in VocabularyChoice.model_fields:
            error.param = f"{'parameters' if spec.recipe.vocabulary is None else 'vocabulary'}.{error.param}"
        raise
    outcome = _Choice(
        ids=list(chosen.ids),
        used=chosen.used,
        least=chosen.least,
        tokens=counts.tokens,
        covered=chosen.covered,
        coverage=[CoveragePoint(tokens=number, share=share) for number, share in chosen.coverage],
        scripts=list(chosen.scripts),
        lacking=list(chosen.lacking),
    )
    store.save(VOCABULARY, 0, {}, outcome.model_dump(mode="json"))
    context.progress.log(f"{len(chosen.ids):,} of {description.vocabulary_size:,} tokens stay")
    return outcome


def _tokens(spec: VocabularySpec, description: ModelDescription) -> int | None:
    """Return the number of tokens that the job asks for; None where the texts decide."""
    recipe = spec.recipe
    if recipe.vocabulary is not None:
        return tokens_left(description, recipe.vocabulary, "vocabulary")
    return planned_tokens(recipe.request.cut(description))


def _documents(text: TextSource) -> Iterator[str]:
    """Return the documents of a text that are counted."""
    return counted_documents(read_documents(text.path, text.format, text.text_field))


def _written(folder: ModelFolder, kept: list[int], target: Path, progress: Progress) -> tuple[ModelFolder, list[str]]:
    """Write the model that keeps these tokens, with its tokenizer; return it, and notes on files that are left out."""
    left_out = write_tokenizer(folder.path, target, kept, size=folder.description.vocabulary_size)
    return write_reduced(folder, kept, target, progress), left_out


def _source(spec: VocabularySpec, model: ModelSource, kept: list[int], folder: Path) -> ModelSource:
    revision = hashlib.sha256(json.dumps([model.revision, kept]).encode()).hexdigest()
    return ModelSource(**spec.place_of(folder).model_dump(), name=model.name, revision=revision)


def _teacher(
    spec: VocabularySpec, folder: ModelFolder, kept: list[int], source: ModelSource, progress: Progress
) -> ModelSource | None:
    """Return the teacher: as it is, or without the tokens that went where hidden states are matched, token by token.

    Raises InvalidRequest where it would lose tokens and has another tokenizer.
    """
    teacher, recovery = spec.teacher, spec.recipe.recovery
    if teacher is None or recovery is None or not recovery.hidden_states:
        return teacher
    if teacher == spec.model:
        return source
    files = [each.path / TOKENIZER_FILE for each in (spec.model, teacher)]
    if not all(file.is_file() for file in files) or len({file_sha256(file) for file in files}) > 1:
        raise InvalidRequest(
            f"recovery.teacher: {teacher.name!r} has another tokenizer than the model, so that it cannot lose the same "
            "tokens, as hidden_states needs: leave hidden_states or vocabulary out, or name a teacher with the same "
            "tokenizer",
            param="recovery.teacher",
        )
    written, _ = _written(open_place(teacher), kept, spec.work / "reduced-teacher", progress)
    return _source(spec, teacher, kept, written.path).model_copy(update={"discovered": teacher.discovered})


def _notes(vocabulary: VocabularyReport) -> Iterable[str]:
    yield (
        f"The vocabulary lost {vocabulary.before - vocabulary.kept:,} of {vocabulary.before:,} tokens before anything "
        "else. Perplexities are per token of the dense model, over the same spans of text; bits per byte compare both."
    )
    if vocabulary.lacking:
        yield (
            f"The texts have characters of {', '.join(vocabulary.lacking)}, for which the vocabulary has bytes alone: "
            "text in them stays long."
        )


def _draw(vocabulary: VocabularyReport, spec: VocabularySpec) -> None:
    from core.pipeline.reports.charts import vocabulary_chart  # slow to load, and only these jobs need it

    spec.artifact.mkdir(parents=True, exist_ok=True)
    title = f"Vocabulary of {spec.recipe.model}"
    (spec.artifact / VOCABULARY_CHART).write_text(vocabulary_chart(vocabulary, title=title), "utf-8")
