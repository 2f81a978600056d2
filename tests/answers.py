"""Figures of compared answers, for tests of what is said of them."""

from typing import Any


def paired(dense: float, pruned: float, stderr: float | None = 0.01) -> dict[str, Any]:
    return {"dense": dense, "pruned": pruned, "stderr": stderr}


def compared(
    kl: float | None = 0.1, ratio: float = 1.0, *, score: tuple[float, float] | None = None, error: float = 0.02,
    thought: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The figures of one set as a job's metrics have them."""

    def length(ratio: float) -> dict[str, Any]:
        return paired(40.0, 40.0 * ratio) | {"ratio": ratio, "ratio_stderr": error}

    written = {"length": length(ratio), "cut_off": paired(0.1, 0.2), "repetition": paired(0.05, 0.06)}
    scored = {} if score is None else {"score": paired(*score, stderr=0.03) | {"questions": 20}}
    thoughts = {} if thought is None else {"thoughts": {"length": length(thought), "unfinished": paired(0.0, 0.1)}}
    return {
        "questions": 20, "max_new_tokens": 64, "kl": kl, "kl_stderr": 0.01, "predictions": 800, "top_1": 0.8,
        "top_1_stderr": 0.01, "first_token": 0.9, "identical": 0.25, "greedy": written | scored, **thoughts,
    }  # fmt: skip
