"""Base of every pass over a model's blocks: token streams, records for resuming, and the final figures."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from core.counting import counting
from core.engine.checkpoints.safetensors_header import WEIGHT_DTYPES, TensorEntry
from core.engine.datasets.window_losses import WindowSpans
from core.engine.evaluation.perplexity import MeasuredPerplexity, ReferenceStream, measure_perplexity
from core.engine.evaluation.perplexity_ratio import bits_ratio_stderr, ratio_stderr
from core.engine.models.experts import saved_tensors
from core.engine.models.folder import ModelFolder
from core.engine.models.micro_batches import MicroBatches
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES, cast_weight
from core.engine.pruning.results import LayerRow, PerplexityPair, UnitRow
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.measure import pairs, verification_tokens, write_verification
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.kinds import BLOCK
from core.engine.resume.store import Rejected, ResumeStore, Saved
from core.progress import PartialProgress, Progress
from secateur_wire.base import JsonObject
from secateur_wire.errors import RunFailed

_SOFTMAX = 100
"""Multiplications that take as long as the softmax of one logit."""
_MEASURED = 0.1
"""Share of the work that is done once the dense model is measured, if that is needed before the pass."""
_TRIED = 0.5
"""Share of the work that is done once models were tried, if they were before the pass."""


class PassPlan(Protocol):
    """Parts of a plan that every pass needs."""

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def micro_batch(self, length: int) -> int: ...

    def fingerprint(self, folder: ModelFolder, revision: str, tokens: dict[str, Tensor]) -> str: ...


class BlockPass:
    """Token streams of a pass over the blocks, the folder it resumes from, and its measurements.

    There is a stream for `calibration`, one for each of `evaluations`, all token ids [sequences, time], and one of a
    few more tokens for the verification of the saved model. `spans` are the predicted tokens of evaluations that do not
    predict every token. `work` is this attempt's folder, `previous` are the folders of earlier attempts, the newest
    first. Evaluations with a known perplexity of the dense model (`dense_perplexity`) skip the dense model; all have
    one where `folder` holds another model, such as one that lost tokens (`is_dense` False), so that no figure of that
    is taken for the dense model's. `stored` is the folder in the dtypes in which the pruned model is saved and measured
    (None: in its own).
    """

    def __init__(
        self,
        folder: ModelFolder,
        plan: PassPlan,
        *,
        calibration: Tensor | None,
        evaluations: dict[str, Tensor],
        work: Path,
        previous: Sequence[Path] = (),
        revision: str = "",
        activation_budget_bytes: int = 4 * 2**30,
        progress: Progress | None = None,
        dense_perplexity: Mapping[str, MeasuredPerplexity] | None = None,
        stored: ModelFolder | None = None,
        spans: Mapping[str, WindowSpans] | None = None,
        is_dense: bool = True,
    ) -> None:
        self.folder = folder
        self.stored_folder = stored or folder
        self.progress = progress or Progress()
        self.notes: list[str] = []
        self.evaluations = list(evaluations)
        self.evaluation_tokens = list(evaluations.values())
        self._spans = [(spans or {}).get(name) for name in evaluations]
        self.calibration_tokens = calibration
        self.probe = verification_tokens(folder.description)
        tokens = {"verification": self.probe}
        if calibration is not None:
            tokens["calibration"] = calibration
        self._known = dict(dense_perplexity or {})
        assert is_dense or self._known.keys() >= evaluations.keys(), "the dense model is measured where it is"
        self._rounds_dense = is_dense and self.is_cast
        for number, (name, each) in enumerate(evaluations.items()):  # records name streams by number
            tokens[f"evaluation-{number}" if name not in self._known else f"pruned-evaluation-{number}"] = each
        self.block_start, self._evaluated = 0.0, 1.0 - self._evaluation_share()
        self._unmeasured = any(name not in self._known for name in self.evaluations) + 1 + self._rounds_dense
        """Number of models whose perplexities are still to measure: dense, pruned, and dense as it is stored."""
        self.block_progress = PartialProgress(self.progress, end=self._evaluated)
        """Listener to the pass over the blocks; the work before it may have a share of `progress`, up to `block_start`.
        """
        self.work = work
        self.store = ResumeStore(work, plan.fingerprint(self.stored_folder, revision, tokens), previous)
        self.budget = ActivationBudget(activation_budget_bytes)
        self._saved = None if "resume" in folder.family.refused else self.store.load(BLOCK)
        halved_at = self._saved.state.get("halved_at", ()) if isinstance(self._saved, Saved) else ()
        self.micro_batches = MicroBatches(plan.micro_batch, tuple(halved_at))
        self._can_resume = False

    def stream(self, name: str, tokens_NT: Tensor, streamed: StreamedModel, dtype: torch.dtype) -> Stream:
        """Return a stream of these tokens through the blocks of `streamed`."""
        return Stream(
            name,
            tokens_NT,
            streamed,
            self.store,
            self.budget,
            dtype=dtype,
            micro_batch=self.micro_batches.size(tokens_NT.shape),
        )

    def resume(self, streams: Iterable[Stream], blocks: int) -> Saved | None:
        """Resume the streams at the newest intact record, which has the number of finished blocks; None: start anew."""
        why = self.folder.family.refused.get("resume")
        if why is not None:
            self.progress.log(f"a pass over this architecture starts anew: {why}")
            return None
        saved, self._can_resume = self._saved, True
        if isinstance(saved, Rejected):
            self.notes.append(saved.reason)
            self.progress.log(saved.reason)
        if not isinstance(saved, Saved):
            return None
        self.store.adopt(BLOCK, saved)
        if saved.position == 0:  # memory ran out before the first block was finished
            self.notes += saved.state["notes"]
            return None
        for stream in streams:
            stream.resume(saved.position, self.micro_batches.size(stream.shape, saved.position - 1))
        self.progress.log(f"continuing after block {saved.position} of {blocks}")
        return saved

    def save(self, done: int, state: Mapping[str, object]) -> None:
        """Complete the record after `done` blocks with the pass's state."""
        halved_at = self.micro_batches.halved_at
        self.store.save(BLOCK, done, {}, {**state, **({"halved_at": halved_at} if halved_at else {})})

    def halve_micro_batches(self, error: str) -> bool:
        """Save that micro-batches are half as large from the newest record on, and report it with the memory's `error`.

        Return False, and save nothing, where no record can be resumed, or all micro-batches have one sequence.
        """
        if not self._can_resume or self.micro_batches.are_smallest(self.calibration_tokens, self.evaluation_tokens):
            return False
        newest = self.store.load(BLOCK)
        saved = newest if isinstance(newest, Saved) else None
        notes = [newest.reason] if isinstance(newest, Rejected) else []
        position, state = (0, {"notes": notes}) if saved is None else (saved.position, saved.state)
        note = f"Memory ran out after block {position}: from there on micro-batches were half as large."
        self.progress.log(f"{note} {error}")
        halved_at = (*state.get("halved_at", ()), position)
        self.store.save_again(BLOCK, saved, {**state, "notes": [*state["notes"], note], "halved_at": halved_at})
        return True

    @property
    def micro_batch_history(self) -> list[JsonObject]:
        """History of the sizes of micro-batches, for the report; empty where memory never ran out."""
        evaluations = dict(zip(self.evaluations, self.evaluation_tokens, strict=True))
        return self.micro_batches.history(self.calibration_tokens, evaluations)

    def begin_measurements(self) -> None:
        """Begin a measurement of the dense model before the pass over the blocks."""
        self._begin_loops(0.0, _MEASURED)
        self.block_start = _MEASURED

    def begin_trials(self) -> None:
        """Begin trials of possible removals, before the pass over the blocks."""
        self._begin_loops(self.block_start, _TRIED)

    def _begin_loops(self, start: float, end: float) -> None:
        """Begin a part whose progress are its counted loops; the pass over the blocks begins at its end."""
        start, end = (share * self._evaluated for share in (start, end))
        self.progress.begin_part(start, end, of_loops=True)
        self.block_progress = PartialProgress(self.progress, end, self._evaluated)

    def begin_blocks(self, done: int, blocks: int) -> None:
        """Begin the pass over the blocks after `done` of them, which an earlier attempt finished."""
        self.block_progress.begin_part(done / blocks, 1.0)

    def report_block(self, done: int, blocks: int, rows: Sequence[LayerRow | UnitRow]) -> None:
        """Report the number of finished and saved blocks, and the mean error of the last block's layers.

        Raises WorkStopped when the job is stopped.
        """
        self.block_progress.advance(done / blocks, done, blocks)
        errors = [row.reconstruction_error for row in rows if isinstance(row, LayerRow)]
        measured = [error for error in errors if error is not None]
        if measured:
            self.progress.metric("reconstruction_error", done - 1, sum(measured) / len(measured))
        self.progress.raise_if_stopped()

    def model_as_stored(self, streamed: StreamedModel) -> StreamedModel:
        """Return the model with embeddings, final norm and head as they are saved; `streamed` where nothing is cast."""
        if not self.is_cast:
            return streamed
        return StreamedModel(self.stored_folder, dtype=streamed.dtype, device=streamed.device)

    def rounded_streams(self, stored: StreamedModel, dtype: torch.dtype) -> list[Stream]:
        """Return a stream of each evaluation through the dense model as it would be saved; none where nothing is cast.

        The perplexity after it says what the new dtype costs without any pruning. A pass that is given another model
        has none.
        """
        return [
            self.stream(f"rounded-{number}", tokens_NT, stored, dtype)
            for number, tokens_NT in enumerate(self.evaluation_tokens)
            if self._rounds_dense
        ]

    def dense_streams(self, streamed: StreamedModel, dtype: torch.dtype) -> list[Stream]:
        """Return a stream of each evaluation that has to go through the dense model."""
        return [
            self.stream(f"dense-{number}", tokens_NT, streamed, dtype)
            for number, (name, tokens_NT) in enumerate(zip(self.evaluations, self.evaluation_tokens, strict=True))
            if name not in self._known
        ]

    def dense_perplexities(self, streamed: StreamedModel, streams: Iterable[Stream]) -> list[MeasuredPerplexity]:
        """Return the dense perplexity of each evaluation: already known, or measured on its stream."""
        measured = iter(self.perplexities(streamed, streams))
        return [self._known[name] if name in self._known else next(measured) for name in self.evaluations]

    def perplexities(
        self,
        streamed: StreamedModel,
        streams: Iterable[Stream],
        references: Sequence[ReferenceStream | None] = (),
    ) -> list[MeasuredPerplexity]:
        """Return the perplexity of each stream after all blocks; dense, pruned and rounded model take the same time.

        Predictions are compared with those of the stream's reference, if it has one. Streams of evaluations with spans
        are complete and in the order of the evaluations.
        """
        streams = list(streams)
        spans = self._spans if any(self._spans) else [None] * len(streams)
        if not streams:
            return []
        end = self._evaluated + (1.0 - self._evaluated) / self._unmeasured
        self.progress.begin_part(self._evaluated, end, of_loops=True)
        self._evaluated, self._unmeasured = end, self._unmeasured - 1
        with counting("measuring perplexity by windows", sum(stream.shape[0] for stream in streams)) as count:
            windows = itertools.count(1)
            return [
                measure_perplexity(
                    streamed,
                    pairs(stream),
                    on_window=lambda: count(next(windows)),
                    reference=reference,
                    spans=of_stream,
                )
                for (stream, of_stream), reference in zip_longest(zip(streams, spans, strict=True), references)
            ]

    def rounded_perplexities(
        self, streamed: StreamedModel, dense: Sequence[Stream], stored: StreamedModel, rounded: Sequence[Stream]
    ) -> list[MeasuredPerplexity]:
        """Return the perplexity of each stream through the rounded dense model, and its divergence from the dense one.

        Where the dense perplexity was known before, no stream has dense predictions, and no divergence is measured.
        """
        unknown = iter(dense)
        references = [
            None if name in self._known else ReferenceStream(streamed, pairs(next(unknown)))
            for name in self.evaluations
        ]
        return self.perplexities(stored, rounded, references=references if rounded else ())

    def _evaluation_share(self) -> float:
        """Return the share of the pass that the head takes after the blocks, by multiplications."""
        description = self.folder.description
        models = [1 + (name not in self._known) + self._rounds_dense for name in self.evaluations]
        tokens = sum(number * each.numel() for number, each in zip(models, self.evaluation_tokens, strict=True))
        calibration = 0 if self.calibration_tokens is None else self.calibration_tokens.numel()
        head = description.vocabulary_size * (description.hidden_size + _SOFTMAX) * tokens
        blocks = description.prunable_parameters * (2 * calibration + tokens + self.probe.numel())
        return head / (head + blocks)

    def compare(
        self,
        dense: Sequence[MeasuredPerplexity],
        pruned: Sequence[MeasuredPerplexity],
        rounded: Sequence[MeasuredPerplexity],
    ) -> dict[str, PerplexityPair]:
        """Return the perplexities of each evaluation set, by its name; `rounded` is empty where it was not measured."""
        return {
            name: PerplexityPair(
                before.value,
                after.value,
                ratio_stderr(before.window_losses, after.window_losses),
                bits_ratio_stderr(before.window_losses, after.window_losses),
                before.window_losses,
                after.window_losses,
                *_rounded_figures(rounded[number]) if rounded else (),
            )
            for number, (name, before, after) in enumerate(zip(self.evaluations, dense, pruned, strict=True))
        }

    def write_verification(self, streamed: StreamedModel, stream: Stream) -> Path:
        """Write the verification tokens and the logits after all blocks."""
        file = self.work / "verification.safetensors"
        write_verification(streamed, stream, file)
        return file

    @property
    def is_cast(self) -> bool:
        """Return True if the pruned model is saved in other dtypes than the source."""
        return self.stored_folder is not self.folder

    def as_stored(self, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a block's tensors in the dtypes in which they are saved; raises InvalidRequest for one out of range.

        `prefix` is the block's name in the source. A tensor that the source lacks gets the dtype of most weights.
        """
        folder = self.stored_folder
        usual, entries = folder.description.dtype, folder.tensors
        dtypes = {
            name: DTYPES[WEIGHT_DTYPES[entries[full].dtype] if (full := f"{prefix}.{name}") in entries else usual]
            for name, tensor in tensors.items()
            if self.is_cast and tensor.is_floating_point()
        }
        return {
            name: cast_weight(f"{prefix}.{name}", tensor, dtypes[name]) if name in dtypes else tensor
            for name, tensor in tensors.items()
        }

    def save_block(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Save a pruned block, whose tensors have their full names.

        Raises RunFailed where a weight that was solved for is beyond the range of float16.
        """
        for name, tensor in tensors.items():
            if tensor.dtype is torch.float16 and not tensor.is_meta and not tensor.isfinite().all():
                raise RunFailed(f"{name}: its new values are beyond the range of float16, in which it is stored")
        self.store.add(BLOCK, f"{index:05d}", saved_tensors(self.folder.family, tensors))

    def stored(self, names: Iterable[str]) -> list[TensorEntry]:
        """Return the positions of the tensors to save in the files, under the names by which they are saved."""
        return self.stored_folder.stored_entries(names, self.work / "dequantised.safetensors")


def _rounded_figures(rounded: MeasuredPerplexity) -> tuple[float, float | None, tuple[float, ...]]:
    return rounded.value, rounded.divergence, rounded.window_losses
