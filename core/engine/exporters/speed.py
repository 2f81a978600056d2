"""Speed of exported files: the trial that an engine makes, and its figures."""

import statistics
from collections.abc import Sequence
from typing import Final

from core.engine.exporters.engine import Seconds
from core.engine.exporters.engine_process import SpeedTrial
from core.engine.exporters.sizes import DECODED_TOKENS, MOST_ROUNDS, PROMPT_TOKENS
from secateur_wire.metrics import ExportSpeed, FileSpeed, TokenRate, latency_noise

_SECONDS: Final = 40.0
"""Time in seconds for measuring the speed of one type; the least number of rounds may take longer."""


def speed_trial(context: int) -> SpeedTrial:
    """Return the trial of files of a model with this length of context."""
    prompt = max(min(PROMPT_TOKENS, context - DECODED_TOKENS), 1)
    return SpeedTrial(prompt=prompt, decoded=DECODED_TOKENS, most_rounds=MOST_ROUNDS, seconds=_SECONDS)


def compared_speed(seconds: Seconds, trial: SpeedTrial, threads: int, dense_bytes: int) -> ExportSpeed:
    """Return the speed of a pruned model's file, the second of both, compared with the dense model's, the first."""
    prefill, decode = (
        _rate(tokens, *([each[place] for each in rounds] for rounds in seconds))
        for place, tokens in enumerate((trial.prompt, trial.decoded))
    )
    return ExportSpeed(
        prefill=prefill,
        decode=decode,
        prompt_tokens=trial.prompt,
        decoded_tokens=trial.decoded,
        rounds=len(seconds[0]),
        threads=threads,
        dense_bytes=dense_bytes,
    )


def own_speed(seconds: Seconds, trial: SpeedTrial, threads: int) -> FileSpeed:
    """Return the speed of one file by itself."""
    (rounds,) = seconds
    seconds_of = [*zip(*rounds, strict=True)]
    prefill, decode = map(statistics.median, seconds_of)
    prefill_noise, decode_noise = (latency_noise(_spread(each)) for each in seconds_of)
    return FileSpeed(
        prefill=trial.prompt / prefill,
        decode=trial.decoded / decode,
        prefill_noise=prefill_noise,
        decode_noise=decode_noise,
        prompt_tokens=trial.prompt,
        decoded_tokens=trial.decoded,
        rounds=len(rounds),
        threads=threads,
    )


def _spread(seconds: Sequence[float]) -> float:
    return max(seconds) / min(seconds) - 1


def _rate(tokens: int, dense: Sequence[float], pruned: Sequence[float]) -> TokenRate:
    spread = max(map(_spread, (dense, pruned)))
    return TokenRate(
        dense=tokens / statistics.median(dense),
        pruned=tokens / statistics.median(pruned),
        spread=spread,
        noise=latency_noise(spread),
    )
