"""Base of every pass over a model's blocks: token streams, records for resuming, and the final figures."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

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
        self.evaluations = evaluations
        self._spans = spans or {}
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

    @property
    def state(self) -> Mapping[str, object]:
        """State to save after each block, from which a later attempt goes on."""
        return {"notes": self.notes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state that an earlier attempt saved after its last block."""
        self.notes = list(state["notes"])

    def begin(self) -> None:
        """Begin before the first block, where no earlier attempt finished any."""
        for stream in self.streams:
            stream.start()

    def resume_or_begin(self) -> int:
        """Go on where an earlier attempt ended, or begin; return the number of blocks that it finished."""
        saved = self._resume()
        if saved is None:
            self.begin()
            return 0
        self.restore(saved.state)
        return saved.position

    def walk(self, what: str, process: Callable[[int, dict[str, Tensor]], Sequence[LayerRow | UnitRow]]) -> int:
        """Process the blocks that are left, one after the other; return the number that an earlier attempt finished.

        `process` is called with a block's number and its tensors, and returns its rows of the report. The state is
        saved after each block. Meanwhile this process reports that it does `what`.
        """
        start, blocks = self.resume_or_begin(), len(self.streamed)
        self.progress.stage("prune")
        self.block_progress.begin_part(start / blocks, 1.0)
        for index, tensors in self.streamed.read_blocks(range(start, blocks), what):
            rows = process(index, tensors)
            self.save(index + 1)
            self._report_block(index + 1, blocks, rows)
        self.progress.stage("evaluate")
        return start

    def _resume(self) -> Saved | None:
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
        for stream in self.streams:
            stream.resume(saved.position, self.micro_batches.size(stream.shape, saved.position - 1))
        self.progress.log(f"continuing after block {saved.position} of {len(self.streamed)}")
        return saved

    def save(self, done: int) -> None:
        """Complete the record after `done` blocks with the pass's state."""
        halved_at = self.micro_batches.halved_at
        self.store.save(BLOCK, done, {}, {**self.state, **({"halved_at": halved_at} if halved_at else {})})

    def halve_micro_batches(self, error: str) -> bool:
        """Save that micro-batches are half as large from the newest record on, and report it with the memory's `error`.

        Return False, and save nothing, where no record can be resumed, or all micro-batches have one sequence.
        """
        if not self._can_resume or self.micro_batches.are_smallest(self.calibration_tokens, self.evaluations.values()):
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
        return self.micro_batches.history(self.calibration_tokens, self.evaluations)

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

    def _report_block(self, done: int, blocks: int, rows: Sequence[LayerRow | UnitRow]) -> None:
        """Report the number of finished and saved blocks, and the mean error of the last block's layers.

        Raises WorkStopped when the job is stopped.
        """
        self.block_progress.advance(done / blocks, done, blocks)
        errors = [row.reconstruction_error for row in rows if isinstance(row, LayerRow)]
        measured = [error for error in errors if error is not None]
        if measured:
            self.progress.metric("reconstruction_error", done - 1, sum(measured) / len(measured))
        self.progress.raise_if_stopped()

    def set_up_streams(self, streamed: StreamedModel, pruned: StreamedModel, stored: StreamedModel) -> None:
        """Make the streams on which the pass measures, of each evaluation and of the verification's tokens.

        `dense_streams` go through `streamed`, where the dense perplexity is not known. `rounded_streams` go through the
        dense model as it would be `stored`; the perplexity after it says what the new dtype costs without any pruning.
        There are none where nothing is cast, or where the pass is given another model than the dense one.
        `pruned_streams` and `verification` go through `pruned`.
        """

        def streams(name: str, model: StreamedModel) -> dict[str, Stream]:
            return {
                evaluation: self.stream(f"{name}-{number}", tokens_NT, model, streamed.dtype)
                for number, (evaluation, tokens_NT) in enumerate(self.evaluations.items())
            }

        self.streamed, self._stored_model, self._pruned_model = streamed, stored, pruned
        self.dense_streams = {
            name: stream for name, stream in streams("dense", streamed).items() if name not in self._known
        }
        self.rounded_streams = streams("rounded", stored) if self._rounds_dense else {}
        self.pruned_streams = streams("pruned", pruned)
        self.verification = self.stream("verification", self.probe, pruned, streamed.dtype)

    @property
    def streams(self) -> list[Stream]:
        """Streams that carry the pass's hidden states from block to block."""
        measured = (self.dense_streams, self.rounded_streams, self.pruned_streams)
        return [*(stream for streams in measured for stream in streams.values()), self.verification]

    def pass_dense_block(self, index: int, tensors: dict[str, Tensor]) -> None:
        """Advance the streams of the dense model, and of the same as it would be saved, through a block's tensors."""
        for streams, is_rounded in ((self.dense_streams, False), (self.rounded_streams, True)):
            if not streams:
                continue
            given = self.as_stored(self.streamed.block_prefix(index), tensors) if is_rounded else tensors
            block = self.streamed.fill_block(index, given, self.streamed.dtype)
            for stream in streams.values():
                stream.advance(block, index)
            self.streamed.empty_block(index)

    def model_as_stored(self, streamed: StreamedModel) -> StreamedModel:
        """Return the model with embeddings, final norm and head as they are saved; `streamed` where nothing is cast."""
        if not self.is_cast:
            return streamed
        return StreamedModel(self.stored_folder, dtype=streamed.dtype, device=streamed.device)

    def measure_dense(self) -> None:
        """Measure the perplexity of the dense model, and of the same as it would be saved, after all blocks.

        The rounded model's predictions are compared with the dense ones, where these were computed.
        """
        references = {
            name: ReferenceStream(self.streamed, pairs(stream)) for name, stream in self.dense_streams.items()
        }
        self._known |= self._perplexities(self.streamed, self.dense_streams)
        self._rounded = self._perplexities(self._stored_model, self.rounded_streams, references)

    def measure_pruned(self) -> dict[str, PerplexityPair]:
        """Measure the perplexity of the pruned model; return that of both models by evaluation set."""
        pruned = self._perplexities(self._pruned_model, self.pruned_streams)
        return {name: _compared(self._known[name], after, self._rounded.get(name)) for name, after in pruned.items()}

    def _perplexities(
        self,
        model: StreamedModel,
        streams: Mapping[str, Stream],
        references: Mapping[str, ReferenceStream] | None = None,
    ) -> dict[str, MeasuredPerplexity]:
        """Return the perplexity of each stream after all blocks; dense, pruned and rounded model take the same time.

        Predictions are compared with those of the evaluation's reference, if it has one.
        """
        if not streams:
            return {}
        end = self._evaluated + (1.0 - self._evaluated) / self._unmeasured
        self.progress.begin_part(self._evaluated, end, of_loops=True)
        self._evaluated, self._unmeasured = end, self._unmeasured - 1
        with counting("measuring perplexity by windows", sum(each.shape[0] for each in streams.values())) as count:
            windows = itertools.count(1)
            return {
                name: measure_perplexity(
                    model,
                    pairs(stream),
                    on_window=lambda: count(next(windows)),
                    reference=(references or {}).get(name),
                    spans=self._spans.get(name),
                )
                for name, stream in streams.items()
            }

    def _evaluation_share(self) -> float:
        """Return the share of the pass that the head takes after the blocks, by multiplications."""
        description = self.folder.description
        tokens = sum(
            (1 + (name not in self._known) + self._rounds_dense) * each.numel()
            for name, each in self.evaluations.items()
        )
        calibration = 0 if self.calibration_tokens is None else self.calibration_tokens.numel()
        head = description.vocabulary_size * (description.hidden_size + _SOFTMAX) * tokens
        blocks = description.prunable_parameters * (2 * calibration + tokens + self.probe.numel())
        return head / (head + blocks)

    def write_verification(self) -> Path:
        """Write the verification tokens and the pruned model's logits after all blocks."""
        file = self.work / "verification.safetensors"
        write_verification(self._pruned_model, self.verification, file)
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
            if tensor.dtype is torch.float16 and not tensor.isfinite().all():
                raise RunFailed(f"{name}: its new values are beyond the range of float16, in which it is stored")
        self.store.add(BLOCK, f"{index:05d}", saved_tensors(self.folder.family, tensors))

    def stored(self, names: Iterable[str]) -> list[TensorEntry]:
        """Return the positions of the tensors to save in the files, under the names by which they are saved."""
        return self.stored_folder.stored_entries(names, self.work / "dequantised.safetensors")


def _compared(
    dense: MeasuredPerplexity, pruned: MeasuredPerplexity, rounded: MeasuredPerplexity | None
) -> PerplexityPair:
    return PerplexityPair(
        dense.value,
        pruned.value,
        ratio_stderr(dense.window_losses, pruned.window_losses),
        bits_ratio_stderr(dense.window_losses, pruned.window_losses),
        dense.window_losses,
        pruned.window_losses,
        *(() if rounded is None else (rounded.value, rounded.divergence, rounded.window_losses)),
    )
