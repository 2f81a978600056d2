"""Files of the jobs that compare what bytes are worth: their bytes, bits per byte and speed. Loads no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean
from typing import Any, Final

from bench.cells import Figures
from bench.page import MISSING, summary
from bench.service import CODE, DOCUMENTATION
from bench.study_page import Results
from worker.samples.language import EVALUATION

_JUDGING: Final = (EVALUATION, CODE)
_THIRD: Final = DOCUMENTATION
"""Text on which nothing is chosen: it tests what the others say."""
_MB: Final = 1e6
_HEADER: Final = ["kind", "seeds", "MB", *(f"bits per byte, {text}" for text in _JUDGING), "tokens/s"]
Rows = tuple[list[str], list[list[str]]]
"""Header and rows of a table."""


@dataclass(frozen=True)
class Point:
    """A file of one seed: bytes, bits per byte by text, and tokens per second where the job measured them."""

    bytes: int
    bits: Mapping[str, float]
    rate: float | None


def files_of(job: Figures) -> dict[str, Point]:
    """Return the files of a job by name; the artifact's is empty.

    The losses of an added file are means over windows, in nats for each token of the dense model.
    """
    metrics: Mapping[str, Any] = job["metrics"]
    sizes, own = metrics["bytes"], {name: each["bits_per_byte"] for name, each in metrics["perplexity"].items()}
    stored = next(sizes[form] for form in ("packed", "artifact") if sizes.get(form) is not None)
    files = {"": Point(stored, {name: each["pruned"] for name, each in own.items()}, None)}
    for file in metrics.get("exports", []):
        losses = (job["report"]["window_losses"] or {}).get(file["file"], {})
        bits = {
            name: fmean(losses[name]["losses"]) * each["tokens"] / (each["bytes"] * log(2))
            for name, each in own.items()
            if losses.get(name, {}).get("losses")
        }
        speed, alone = file.get("speed"), file.get("own_speed")
        rate = speed["decode"]["pruned"] if speed else alone["decode"] if alone else None
        files[file["type"]] = Point(file["bytes"], bits, rate)
    return files


def points(results: Results) -> dict[str, list[Point]]:
    """Return the files by kind, over seeds; those without a figure on a text that judges are left out."""
    kinds: dict[str, list[Point]] = {}
    for name in (name for names in results.groups({}) for name in names):
        row, bits, training = (choice for _, choice in name.choices)
        for file, point in files_of(results.found[name]).items():
            if all(point.bits.get(text) is not None for text in _JUDGING):
                kinds.setdefault(", ".join(filter(None, (row, file or bits, training))), []).append(point)
    return kinds


def advice(results: Results) -> Rows:
    """Return the kinds worth their bytes, smallest first: no kind of as few bytes has fewer bits per byte.

    Bits per byte are means over both texts and over seeds.
    """
    placed, best, rows = points(results), float("inf"), []
    for kind, own in sorted(placed.items(), key=lambda each: (_size(each[1]), _loss(each[1]))):
        if _loss(own) < best:
            best = _loss(own)
            rows.append([f"{_size(own) / _MB:.1f}", *_cells(kind, own)])
    return ["from MB", "take", *_HEADER[1:]], rows


def every_kind(results: Results) -> Rows:
    """Return all kinds, as the jobs are in order."""
    return _HEADER, [_cells(kind, own) for kind, own in points(results).items()]


def certificates(results: Results) -> Rows:
    """Return how many comparisons at equal bytes are beyond so many errors, and of how many a third text has the sign.

    A comparison is of a text that judges. Jobs without a comparison on the third text do not count.
    """
    compared = [figures["metrics"].get("equal_bytes", {}) for figures in results.found.values()]
    counted = [[f"{errors}", *map(str, _signs(compared, errors))] for errors in (1, 2)]
    return ["beyond standard errors", "certificates", "sign holds on a third text"], counted if compared else []


def _signs(compared: Iterable[Mapping[str, Any]], errors: float) -> tuple[int, int]:
    beyond = right = 0
    for texts in compared:
        third = texts.get(_THIRD, {}).get("difference")
        for each in (texts.get(text, {}) for text in _JUDGING):
            if third is None or each.get("difference") is None or each.get("stderr") is None:
                continue
            if abs(each["difference"]) > errors * each["stderr"]:
                beyond += 1
                right += each["difference"] * third > 0
    return beyond, right


def _cells(kind: str, own: Sequence[Point]) -> list[str]:
    rates = [each.rate for each in own if each.rate is not None]
    return [
        kind,
        f"{len(own)}",
        f"{_size(own) / _MB:.1f}",
        *(summary([each.bits[text] for each in own], ".3f") for text in _JUDGING),
        summary(rates, ".1f") if rates else MISSING,
    ]


def _size(own: Sequence[Point]) -> float:
    return fmean(each.bytes for each in own)


def _loss(own: Sequence[Point]) -> float:
    return fmean(each.bits[text] for each in own for text in _JUDGING)
