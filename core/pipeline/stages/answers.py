"""Comparison of two models' answers, batch by batch; a killed attempt goes on after its last finished batch."""

from collections.abc import Sequence
from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from core.engine.datasets.chat.conversations import described_rows, read_rendered
from core.engine.datasets.checks import CHECKS, find_check
from core.engine.datasets.text_files import read_documents
from core.engine.evaluation.answers.answerer import Written, question_tokens
from core.engine.evaluation.answers.comparison import AnswerComparison
from core.engine.evaluation.answers.figures import answer_figures, compared_answers
from core.engine.evaluation.answers.questions import EvaluationQuestion, fitting, questions_of_rows, questions_of_texts
from core.engine.models.folder import ModelFolder
from core.engine.models.generation import sequences_that_fit
from core.engine.models.precision import measuring_dtype
from core.engine.models.tensors import DTYPES, load_tensors
from core.engine.resume.kinds import ANSWERS
from core.engine.resume.store import ResumeStore, Runtime, file_sha256, fingerprint
from core.pipeline.messages import TextSource
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.evaluation_spec import AnswersOutput, AnswersSpec
from core.pipeline.stages.inputs import open_place
from core.progress import Progress
from secateur_wire.answers import AnswerFigures, ComparedAnswer

_BATCHES = TypeAdapter(list[list[Written]])
_AT_ONCE = 16
"""Most questions that are answered together."""
_SHOWN = 50
"""Most answers of a set in the report."""
_COMPARED = 0.95
"""Share of the work after which all answers are written."""


def compare_answers(spec: AnswersSpec, context: StageContext) -> AnswersOutput:
    """Have both models answer the questions, from the last saved batch on, and compare the answers."""
    device, progress = context.device, context.progress
    models = open_place(spec.dense), open_place(spec.pruned)
    notes: list[str] = []
    sets = {source.name: _questions(spec, source, models, notes) for source in spec.question_sets}
    questions = [question for each in sets.values() for question in each]
    dtypes = [measuring_dtype(DTYPES[each.description.dtype], device) for each in models]
    length = spec.max_new_tokens + max(map(len, _tokens(questions, models[0])))
    at_once = min(
        _AT_ONCE,
        *(
            sequences_that_fit(each.description, length, device, dtype)
            for each, dtype in zip(models, dtypes, strict=True)
        ),
    )
    facts = {
        "dense": spec.dense.revision,
        "pruned": [file_sha256(file) for file in sorted(spec.pruned.path.glob("*.safetensors"))],
        "questions": [asdict(each) for each in questions],
        "frame": None if spec.frame is None else spec.frame.model_dump(),
        "tokens": spec.max_new_tokens,
        "at_once": at_once,
        "pruned dtype": str(dtypes[1]),
    }
    store = ResumeStore(spec.work, fingerprint("answers", facts, Runtime.of(device, dtypes[0])), spec.previous)
    comparison = AnswerComparison(
        models,
        questions,
        frame=spec.frame,
        most=spec.max_new_tokens,
        at_once=at_once,
        device=device,
    )
    answers = _answered(comparison, store, progress)
    files = {file.stem: file for file in store.lasting(ANSWERS)}
    pairs = iter(comparison.pairs(answers, lambda number: load_tensors(files[_file(number)])))
    figures: dict[str, AnswerFigures] = {}
    shown: dict[str, list[ComparedAnswer]] = {}
    for name, each in sets.items():
        own = [next(pairs) for _ in each]
        figures[name] = answer_figures(own, spec.max_new_tokens, _passes)
        shown[name] = compared_answers(own[:_SHOWN], _passes)
    return AnswersOutput(figures=figures, answers=shown, notes=notes, peak_memory=context.peak_memory())


def _answered(comparison: AnswerComparison, store: ResumeStore, progress: Progress) -> list[list[Written]]:
    """Return the answers of all batches; those that an earlier attempt has saved are not written again."""
    batches = comparison.batches
    answers: list[list[Written]] = []
    if (saved := store.resume(ANSWERS, progress.log)) is not None:
        store.adopt(ANSWERS, saved)
        answers = _BATCHES.validate_python(saved.state["batches"])
        progress.log(f"continuing after {len(answers)} of {len(batches)} batches of answers")
    dense: dict[int, Written] = {}
    for batch, known in zip(batches, answers, strict=False):
        if not batch.model:
            dense |= dict(zip(batch.numbers, known, strict=True))
    progress.begin_part(_COMPARED * len(answers) / len(batches), _COMPARED)
    for number in range(len(answers), len(batches)):
        batch = batches[number]

        def on_progress(share: float, number: int = number) -> None:
            progress.advance((number + share) / len(batches), number, len(batches))

        written, states = comparison.answer(number, dense, on_progress)
        if not batch.model:
            dense |= dict(zip(batch.numbers, written, strict=True))
        answers.append(written)
        store.add(ANSWERS, _file(number), states)
        store.save(ANSWERS, number, {}, {"batches": [[asdict(each) for each in batch] for batch in answers]})
        progress.log(f"the {('dense', 'pruned')[batch.model]} model has answered {len(batch.numbers)} questions")
        progress.raise_if_stopped()
    progress.begin_part(_COMPARED, 1.0, of_loops=True)
    return answers


def _questions(
    spec: AnswersSpec, source: TextSource, models: tuple[ModelFolder, ModelFolder], notes: list[str]
) -> list[EvaluationQuestion]:
    """Return the questions of a set that leave room for an answer in both models; `notes` say what was left out.

    Raises UnusableDataset where no question is left, or the job's check cannot use an answer of the set.
    """
    if source.rendering is None:
        documents = read_documents(source.path, source.format, source.text_field)
        questions = questions_of_texts(documents, spec.samples, models[0].tokenizer())
    else:
        rows = list(read_rendered(source.path))
        questions = questions_of_rows(rows, spec.samples, spec.check)
        if source.rendering.left_out:
            notes.append(f"{source.name}: left out {described_rows(source.rendering.left_out)}.")
    for question in questions:
        if question.check is not None:
            find_check(question.check, question.reference, f"{source.name} line {question.line}")
    sizes = [
        max(len(each) for each in both) for both in zip(*(_tokens(questions, each) for each in models), strict=True)
    ]
    room = min(each.description.context_length for each in models) - spec.max_new_tokens
    left, left_out = fitting(questions, sizes, room, source.name)
    if left_out.total:
        notes.append(f"{source.name}: not asked: {described_rows(left_out.rows)}.")
    return left


def _tokens(questions: Sequence[EvaluationQuestion], model: ModelFolder) -> list[list[int]]:
    tokenizer = model.tokenizer()
    return [question_tokens(each, model, tokenizer) for each in questions]


def _file(number: int) -> str:
    return f"batch-{number:05d}"


def _passes(check: str, answer: str, reference: JsonValue) -> bool:
    return CHECKS[check].passes(answer, reference)
