"""Texts of a job on a language model, as the token ids that its stages calibrate, train and measure on."""

from collections.abc import Sequence

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows, mixed_windows, training_windows
from core.engine.recovery.request import Recovery, most_sequences, own_sequences
from core.pipeline.messages import LanguageSpec, TextSource
from secateur_wire.job_body import Evaluation


def calibration_set(spec: LanguageSpec, tokenizer: PreTrainedTokenizerBase | None) -> Tensor | None:
    """Return token ids [samples, time] of the calibration; None where the job has none.

    They are of the calibration text and of what the model wrote, mixed by the seed, as the recipe asks for them.
    """
    if spec.calibration is None:
        return None
    calibration = spec.recipe.calibration
    assert tokenizer is not None and calibration is not None and calibration.sequence_length is not None
    parts = [(spec.calibration, calibration.samples)]
    if spec.generated is not None:
        parts.append((spec.generated, calibration.generated))
    windows = [
        calibration_windows(
            read_documents(source.path, source.format, source.text_field),
            tokenizer,
            samples=samples,
            length=calibration.sequence_length,
            seed=calibration.seed,
            name=source.name,
        )
        for source, samples in parts
    ]
    return windows[0] if len(windows) == 1 else mixed_windows(windows, calibration.seed)


def evaluation_sets(
    evaluation: Evaluation, sources: Sequence[TextSource], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Tensor]:
    """Return token ids [windows, time] of each evaluation text, as the recipe asks for them."""
    assert evaluation.sequence_length is not None
    return {
        source.name: evaluation_windows(
            read_documents(source.path, source.format, source.text_field),
            tokenizer,
            samples=evaluation.samples,
            length=evaluation.sequence_length,
            name=source.name,
        )
        for source in sources
    }


def recovery_set(spec: LanguageSpec, recovery: Recovery, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Return token ids [samples, time] to train on: of the text, and of what the teacher wrote, as the recipe asks."""
    most = most_sequences(recovery)
    windows = training_set(spec.recovery[0], recovery, tokenizer, samples=recovery.samples, most=most)
    if spec.own_text is None:
        return windows
    most = own_sequences(recovery, others=len(windows))
    return mixed_windows(
        [windows, training_set(spec.own_text, recovery, tokenizer, samples=None, most=most)], recovery.seed
    )


def training_set(
    text: TextSource, recovery: Recovery, tokenizer: PreTrainedTokenizerBase, *, samples: int | None, most: int
) -> Tensor:
    """Return token ids [samples, time] of a text to train on, at most `most`, as the recipe asks for them."""
    assert recovery.sequence_length is not None
    return training_windows(
        read_documents(text.path, text.format, text.text_field),
        tokenizer,
        samples=samples,
        most=most,
        length=recovery.sequence_length,
        seed=recovery.seed,
        name=text.name,
    )
