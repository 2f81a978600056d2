"""Inputs of stages on language models: models, and token ids to calibrate, train and measure on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.chat.conversations import described_rows, read_rendered
from core.engine.datasets.chat.windows import Conversations
from core.engine.datasets.counted_tokens import number_of_places
from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import (
    Documents,
    EvaluationSet,
    calibration_windows,
    evaluation_set,
    mixed_windows,
    paired_set,
    starts_with_bos,
    training_windows,
)
from core.engine.datasets.window_losses import WindowSpans
from core.engine.models.folder import ModelFolder, open_model
from core.engine.recovery.request import Recovery, most_sequences, own_sequences
from core.pipeline.messages import LanguageSpec, ModelPlace, TextSource
from core.pipeline.recipes.vocabulary import conversations_refused
from secateur_wire.base import JsonObject
from secateur_wire.chat import CountedTokens
from secateur_wire.job_body import Evaluation

_SAME_SPANS = (
    "the dense model reads each window's text in its own tokens; a window ends where a token of both models ends, and "
    "perplexities are per token of the dense model"
)


def open_place(place: ModelPlace) -> ModelFolder:
    """Open a model folder on this machine; raises the errors of `open_model`."""
    return open_model(place.path, own_artifact=place.own_artifact, discovered=place.discovered)


@dataclass(frozen=True)
class TokenSets:
    """Texts of a job: token ids of the calibration [samples, time] or None, and each evaluation set.

    `bos` is True if the tokenizer begins each window with its own token; None if no text is read. `dense_sets` are the
    same spans of the evaluation texts for the dense model, which is the same set where both have one tokenizer.
    `counted` says which tokens of evaluated conversations count, by name; `chat_notes` what of conversations was not
    used.
    """

    calibration: Tensor | None
    evaluation_sets: dict[str, EvaluationSet]
    bos: bool | None
    dense_sets: dict[str, EvaluationSet] = field(default_factory=dict)
    counted: Mapping[str, CountedTokens] = field(default_factory=dict)
    chat_notes: Sequence[str] = ()

    @property
    def evaluations(self) -> dict[str, Tensor]:
        """Return the token ids [windows, time] of each evaluation set."""
        return windows_of(self.evaluation_sets)

    @property
    def places(self) -> int | None:
        """Return the number of places that the calibration's statistics are of; None where they are of all tokens."""
        if self.calibration is None or (places := number_of_places(self.calibration)) == self.calibration.numel():
            return None
        return places

    @property
    def _has_two_tokenizers(self) -> bool:
        return any(self.evaluation_sets[name] is not each for name, each in self.dense_sets.items())

    @property
    def notes(self) -> list[str]:
        """Return the notes on conversations, on long texts and on texts whose bits per byte cannot be known."""
        places = self.places
        counted = (
            []
            if self.calibration is None or places is None
            else [
                f"Calibrated where the assistant's words are predicted: on {places:,} of {self.calibration.numel():,} "
                "tokens that the model read."
            ]
        )
        return [
            *self.chat_notes,
            *counted,
            *(
                f"The windows of {name} are spread over its first {each.text_end:,} characters: no more is read for so "
                "few."
                for name, each in self.evaluation_sets.items()
                if each.text_end is not None
            ),
            *(
                f"Bits per byte on {name} are not known, only their ratio: the tokenizer does not tell for which text "
                "each token stands, and its tokens do not spell this one."
                for name, each in self.evaluation_sets.items()
                if each.text_bytes is None
            ),
        ]

    def described(self) -> JsonObject:
        """Return the description of the texts in a report."""
        return {
            "calibration": None if self.calibration is None else list(self.calibration.shape),
            "evaluation": {name: list(tokens_NT.shape) for name, tokens_NT in self.evaluations.items()},
            "windows": "non-overlapping; calibration shuffled by seed, evaluation evenly spaced over the text",
            **({"compared": _SAME_SPANS} if self._has_two_tokenizers else {}),
            "bos_begins_each_window": self.bos,
            **({"counted_tokens": {**self.counted}} if self.counted else {}),
            **({"calibration_places": self.places} if self.places is not None else {}),
        }


def token_sets(spec: LanguageSpec, folder: ModelFolder) -> TokenSets:
    """Return the texts that a job calibrates and is measured on; the tokenizer is opened only if there are any."""
    if not (spec.calibration or spec.evaluation or spec.recipe.evaluation.prompts):
        return TokenSets(None, {}, None)
    tokenizer = folder.tokenizer()
    notes: list[str] = []
    calibration = calibration_set(spec, tokenizer, notes)
    dense, evaluations = compared_sets(spec, tokenizer, notes)
    counted = {text.name: _counted(spec.recipe.evaluation) for text in spec.evaluation if text.rendering is not None}
    return TokenSets(calibration, evaluations, starts_with_bos(tokenizer), dense, counted, tuple(dict.fromkeys(notes)))


def compared_sets(
    spec: LanguageSpec, tokenizer: PreTrainedTokenizerBase, notes: list[str] | None = None
) -> tuple[dict[str, EvaluationSet], dict[str, EvaluationSet]]:
    """Return the windows of each evaluation text for the dense model, and for the one with this tokenizer.

    Both are the same object where the vocabulary is whole. Otherwise their windows are the same spans of the text;
    conversations have none, and raise InvalidRequest. `notes` say what of conversations was not used.
    """
    evaluation = spec.recipe.evaluation
    if spec.reduced is None:
        sets = evaluation_sets(evaluation, spec.evaluation, tokenizer, notes)
        return sets, sets
    assert evaluation.sequence_length is not None
    for number, source in enumerate(spec.evaluation):
        if source.rendering is not None:
            raise conversations_refused(source.name, f"evaluation.datasets.{number}")
    dense = open_place(spec.model).tokenizer()
    pairs = {
        source.name: paired_set(
            read_documents(source.path, source.format, source.text_field),
            dense,
            tokenizer,
            samples=evaluation.samples,
            length=evaluation.sequence_length,
            name=source.name,
        )
        for source in spec.evaluation
    }
    return {name: each.dense for name, each in pairs.items()}, {name: each.new for name, each in pairs.items()}


def windows_of(sets: Mapping[str, EvaluationSet]) -> dict[str, Tensor]:
    """Return the token ids [windows, time] of each set."""
    return {name: each.windows for name, each in sets.items()}


def spans_of(sets: Mapping[str, EvaluationSet]) -> dict[str, WindowSpans]:
    """Return the predicted tokens of the sets in which not all are."""
    return {name: each.spans for name, each in sets.items() if each.spans is not None}


def _counted(evaluation: Evaluation) -> CountedTokens:
    """Return which tokens of conversations an evaluation counts."""
    return evaluation.counted_tokens or "assistant"


@contextmanager
def opened_documents(
    source: TextSource, counted: CountedTokens, param: str, notes: list[str] | None = None
) -> Iterator[Documents]:
    """Yield a text's documents, or its rendered conversations; then add to `notes` what of them was not used.

    `counted` says which tokens of conversations count; `param` is the field that chooses them.
    """
    if source.rendering is None:
        yield read_documents(source.path, source.format, source.text_field)
        return
    facts = source.rendering
    conversations = Conversations(
        source.name, read_rendered(source.path), counted, facts.unmarked, f"{param}.counted_tokens"
    )
    yield conversations
    if notes is None:
        return
    if facts.left_out:
        notes.append(f"{source.name}: left out {described_rows(facts.left_out)}.")
    if facts.unread_from is not None:
        notes.append(
            f"{source.name}: conversations from line {facts.unread_from} on were not read, because no more are "
            "rendered at once."
        )
    notes += conversations.notes


def calibration_set(
    spec: LanguageSpec, tokenizer: PreTrainedTokenizerBase, notes: list[str] | None = None
) -> Tensor | None:
    """Return the calibration's token ids [samples, time]; None if the job has none.

    They come from the calibration text and from text that the model wrote itself, mixed by the seed, as the recipe
    asks, and say which tokens count (`core.engine.datasets.counted_tokens`). `notes` say what of conversations was not
    used.
    """
    if spec.calibration is None:
        return None
    calibration = spec.recipe.calibration
    assert calibration is not None and calibration.sequence_length is not None
    parts = [(spec.calibration, calibration.samples)]
    if spec.generated is not None:
        parts.append((spec.generated, calibration.generated))
    windows = []
    for source, samples in parts:
        with opened_documents(source, calibration.counted_tokens or "all", "calibration", notes) as documents:
            windows.append(
                calibration_windows(
                    documents,
                    tokenizer,
                    samples=samples,
                    length=calibration.sequence_length,
                    seed=calibration.seed,
                    name=source.name,
                )
            )
    return windows[0] if len(windows) == 1 else mixed_windows(windows, calibration.seed)


def evaluation_sets(
    evaluation: Evaluation,
    sources: Sequence[TextSource],
    tokenizer: PreTrainedTokenizerBase,
    notes: list[str] | None = None,
) -> dict[str, EvaluationSet]:
    """Return the windows of each evaluation text, as the recipe asks; `notes` say what was not used."""
    assert evaluation.sequence_length is not None
    sets: dict[str, EvaluationSet] = {}
    for source in sources:
        with opened_documents(source, _counted(evaluation), "evaluation", notes) as documents:
            sets[source.name] = evaluation_set(
                documents,
                tokenizer,
                samples=evaluation.samples,
                length=evaluation.sequence_length,
                name=source.name,
            )
    return sets


def recovery_set(
    spec: LanguageSpec, recovery: Recovery, tokenizer: PreTrainedTokenizerBase, notes: list[str] | None = None
) -> Tensor:
    """Return the token ids [samples, time] to train on, from the text and from the teacher's own text.

    `notes` say what of conversations was not used.
    """
    most = most_sequences(recovery)
    windows = training_set(spec.recovery[0], recovery, tokenizer, samples=recovery.samples, most=most, notes=notes)
    if spec.own_text is None:
        return windows
    most = own_sequences(recovery, others=len(windows))
    return mixed_windows(
        [windows, training_set(spec.own_text, recovery, tokenizer, samples=None, most=most)], recovery.seed
    )


def training_set(
    text: TextSource,
    recovery: Recovery,
    tokenizer: PreTrainedTokenizerBase,
    *,
    samples: int | None,
    most: int,
    notes: list[str] | None = None,
) -> Tensor:
    """Return the token ids [samples, time] of a text to train on, `most` samples or fewer, as the recipe asks."""
    assert recovery.sequence_length is not None
    with opened_documents(text, recovery.counted_tokens or "all", "recovery", notes) as documents:
        return training_windows(
            documents,
            tokenizer,
            samples=samples,
            most=most,
            length=recovery.sequence_length,
            seed=recovery.seed,
            name=text.name,
        )
