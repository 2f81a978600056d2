"""Training loop: AdamW (Loshchilov 2019, arXiv:1711.05101), warm-up and decay, clipped gradients.

It runs in any number of processes (data parallel, through accelerate), and saves every few steps and on request. Batch,
rate and random numbers of a step follow from the seed and its number, so that a run resumed at a saved step ends with
the weights of an uninterrupted one. `Pace` has the learning rate and the end of training. By steps alone a run is the
same on any machine. `minutes` end it by the clock: seconds are saved with the steps; the seconds of earlier attempts
count, and the time between two attempts does not.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Literal, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from core.counting import counted
from core.engine.models.micro_batches import AtOnce
from core.engine.recovery.losses import Loss, next_token_loss
from core.engine.recovery.request import Recovery, sequences_at_once
from core.engine.recovery.sampling import InOrder, Sampling
from core.engine.resume.kinds import STEP
from core.engine.resume.store import JsonObject, Rejected, ResumeStore, Saved
from core.progress import Progress, WorkStopped
from secateur_wire.errors import InvalidRequest, RecoveryDiverged

LARGEST_GRADIENT_NORM = 1.0
LOSS = "recovery_loss"
"""Name of the curve with the loss of every step."""
HIDDEN_STATES = "recovery_hidden_states"
"""Name of the curve with the error of the hidden states at every step, where they are matched."""
Ending = Literal["steps", "minutes"]
_ADAM_STATE = ("exp_avg", "exp_avg_sq")
_TRAINED, _MOMENTS = "trained", "moments"
"""Names of a saved step's parts."""


class StepRule(Protocol):
    """Actions at each step, counted from 0, in addition to the optimiser's."""

    def after_backward(self, step: int) -> None:
        """Act on the gradients of the full batch, before they are clipped."""

    def after_step(self, step: int) -> None:
        """Act after the optimiser's step, once the gradients are cleared."""


class Pace:
    """State of a run; `seconds` has the total at the end of each step, over all attempts."""

    def __init__(self, recovery: Recovery, clock: Callable[[], float] = time.monotonic) -> None:
        self._recovery = recovery
        self._clock = clock
        self._start_time = clock()
        self.seconds: list[float] = []

    @property
    def state(self) -> JsonObject:
        """Return the state for a resumed run, as JSON."""
        return {"seconds": self.seconds}

    def restore(self, state: JsonObject) -> None:
        """Restore a saved state; only its seconds count as spent."""
        self.seconds = state["seconds"]
        self._start_time = self._clock() - (self.seconds[-1] if self.seconds else 0.0)

    def elapsed(self) -> float:
        return self._clock() - self._start_time

    def done(self, step: int, seconds: float) -> None:
        """Record the end of a step, at a time that all processes agree on."""
        self.seconds.append(seconds)

    def share(self, step: int) -> float:
        """Return the completed share of the run before a step, counted from 0."""
        return self._equivalent_step(step) / self._recovery.steps

    def _equivalent_step(self, step: int) -> float:
        """Return the step with the same progress in a run by steps alone, from the share of the minutes spent."""
        if self._recovery.minutes is None or not self.seconds:
            return step
        spent = self.seconds[-1] / (60 * self._recovery.minutes)
        return max(step, min(1.0, spent) * self._recovery.steps)

    def ending(self, step: int) -> Ending | None:
        """Return the reason why the run ends before this step; None where it continues."""
        if step >= self._recovery.steps:
            return "steps"
        return "minutes" if self.share(step) >= 1 else None

    def rate(self, step: int) -> float:
        return rate(self._equivalent_step(step), self._recovery)


def rate(place: float, recovery: Recovery) -> float:
    """Return the learning rate at a place of the run, in steps: linear warm-up, then decay to zero.

    It decays by cosine or linearly.
    """
    assert recovery.learning_rate is not None
    rising = math.ceil(recovery.warmup_ratio * recovery.steps)
    if place < rising:
        return recovery.learning_rate * min(1.0, (place + 1) / rising)
    done = min(1.0, (place - rising) / max(1, recovery.steps - rising))
    falling = 1 - done if recovery.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return recovery.learning_rate * falling


class Training:
    """Training run of a model, as the module describes it.

    `windows_NT` are the token sequences; `sampling` chooses those of a step (unset: all in turn). `rule` may keep zeros
    or read gradients. Without a `store` nothing is saved.
    """

    def __init__(
        self,
        model: nn.Module,
        windows_NT: Tensor,
        recovery: Recovery,
        *,
        loss: Loss,
        rule: StepRule,
        accelerator: Accelerator,
        store: ResumeStore | None,
        progress: Progress,
        sampling: Sampling | None = None,
        pace: Pace | None = None,
    ) -> None:
        if recovery.batch_size % accelerator.num_processes:
            raise InvalidRequest(
                f"recovery.batch_size: {recovery.batch_size} sequences cannot be shared evenly by "
                f"{accelerator.num_processes} processes",
                param="recovery.batch_size",
            )
        self._windows = windows_NT
        self._recovery = recovery
        self._sampling = sampling or InOrder(len(windows_NT), recovery)
        self._loss = loss
        self._rule = rule
        self._accelerator = accelerator
        self._store = store
        self._progress = progress
        self.pace = pace or Pace(recovery)
        size = sequences_at_once(recovery)
        # Images are normalised together, and other processes wait for every part of a batch.
        halves = recovery.sequence_length is not None and accelerator.num_processes == 1
        self._at_once = AtOnce(size, 1 if halves else size, progress.log)
        self._trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        assert recovery.learning_rate is not None
        self._optimizer = torch.optim.AdamW(
            self._trained.values(), lr=recovery.learning_rate, weight_decay=0.0, fused=True
        )
        self._model: nn.Module = accelerator.prepare(model)
        self.losses: list[float] = []
        self.hidden_errors: list[float] = []
        self.resumed_from = 0

    def run(self) -> None:
        """Train to the end, from the newest saved step on if the store has one.

        Raises WorkStopped when the job is stopped and saved, RecoveryDiverged where the loss is not finite.
        """
        saved = None if self._store is None else self._store.load(STEP)
        if isinstance(saved, Rejected):
            self._progress.log(saved.reason)
        elif saved is not None:
            self._restore(saved)
            self._progress.log(f"continuing after step {saved.position} of {self._recovery.steps}")
        self._model.train()
        self._progress.begin_part(self.pace.share(self.resumed_from), 1.0)
        steps, every = self._recovery.steps, self._recovery.checkpoint_every
        for step in counted(range(self.resumed_from, steps), "training steps"):
            if self.pace.ending(step) is not None:
                self._save(step)
                break
            if not self._sampling.begin(step, self._holdout_loss):
                continue
            terms, stop = self._step(step)
            self.losses.append(sum(terms))
            self._progress.advance(self.pace.share(step + 1), step + 1, steps)
            self._progress.metric(LOSS, step + 1, self.losses[-1])
            if self._recovery.hidden_states:
                self.hidden_errors.append(terms[1] / self._recovery.hidden_states)
                self._progress.metric(HIDDEN_STATES, step + 1, self.hidden_errors[-1])
            if stop or (step + 1) % every == 0 or step + 1 == steps:
                self._save(step + 1)
            if stop:
                raise WorkStopped
        self._model.eval()

    def _step(self, step: int) -> tuple[list[float], bool]:
        """Run one optimiser step; return the mean loss by terms, and True if any process has to stop."""
        accelerator, recovery = self._accelerator, self._recovery
        for group in self._optimizer.param_groups:
            group["lr"] = self.pace.rate(step)
        own = self.batch(step)[accelerator.process_index :: accelerator.num_processes]
        tokens_BT = self._windows[own].to(accelerator.device)
        total = self._at_once.run(lambda size: self._add_gradients(step, tokens_BT.split(size)))
        self._rule.after_backward(step)
        torch.nn.utils.clip_grad_norm_(self._trained.values(), LARGEST_GRADIENT_NORM)
        *averages, stopped = self._mean_over_processes([*total.flatten().tolist(), float(self._progress.should_stop())])
        if not math.isfinite(sum(averages)):
            raise RecoveryDiverged(
                f"the loss of training step {step + 1} is infinite or not a number: lower recovery.learning_rate "
                f"({recovery.learning_rate:g})",
                param="recovery.learning_rate",
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._rule.after_step(step)
        (seconds,) = self._mean_over_processes([self.pace.elapsed()])
        self.pace.done(step, seconds)
        return averages, stopped > 0

    def _add_gradients(self, step: int, parts: Sequence[Tensor]) -> Tensor:
        """Compute the gradients of a batch in parts; return the mean loss by terms."""
        accelerator = self._accelerator
        torch.manual_seed((self._recovery.seed * 1_000_003 + step) * 4096 + accelerator.process_index)
        self._optimizer.zero_grad()
        sequences, total = sum(map(len, parts)), torch.zeros(())
        for number, part_BT in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else accelerator.no_sync(self._model):
                terms = self._loss(self._model, part_BT) * (len(part_BT) / sequences)
                accelerator.backward(terms.sum())
            total = total + terms.detach()
        return total

    def _mean_over_processes(self, figures: list[float]) -> list[float]:
        figures_N = torch.tensor(figures, dtype=torch.float64)
        agreed: list[float] = self._accelerator.reduce(figures_N.to(self._accelerator.device), "mean").tolist()
        return agreed

    def batch(self, step: int) -> list[int]:
        return self._sampling.batch(step)

    @torch.no_grad()
    def _holdout_loss(self, windows_NT: Tensor) -> float:
        """Return the model's mean next-token loss on hold-out sequences, in nats per token."""
        device = self._accelerator.device
        self._model.eval()
        losses = self._at_once.run(
            lambda size: [next_token_loss(self._model, part.to(device)) * len(part) for part in windows_NT.split(size)]
        )
        self._model.train()
        return float(torch.stack(losses).sum()) / len(windows_NT)

    def _save(self, step: int) -> None:
        if self._accelerator.is_main_process and self._store is not None:
            moments = {
                f"{name}/{moment}": self._optimizer.state[parameter][moment]
                for name, parameter in self._trained.items()
                for moment in _ADAM_STATE
            }
            tensors = {_TRAINED: self._trained, _MOMENTS: moments}
            state: dict[str, object] = {"losses": self.losses, "hidden_errors": self.hidden_errors}
            if self._at_once.size < sequences_at_once(self._recovery):
                state["at_once"] = self._at_once.size
            self._store.save(STEP, step, tensors, {**state, "rounds": self._sampling.rounds, "pace": self.pace.state})
        self._accelerator.wait_for_everyone()

    @torch.no_grad()
    def _restore(self, saved: Saved) -> None:
        trained, moments = saved.read(_TRAINED), saved.read(_MOMENTS)
        self.losses = saved.state["losses"]
        self.hidden_errors = saved.state["hidden_errors"]
        self.pace.restore(saved.state["pace"])
        taken = torch.tensor(float(len(self.losses)))
        for name, parameter in self._trained.items():
            parameter.copy_(trained[name])
            own = {each: moments[f"{name}/{each}"].to(parameter.device) for each in _ADAM_STATE}
            self._optimizer.state[parameter] = {"step": taken.to(parameter.device, copy=True), **own}
        self._at_once.size = saved.state.get("at_once", self._at_once.size)
        self._sampling.rounds = saved.state["rounds"]
        self.resumed_from = saved.position
