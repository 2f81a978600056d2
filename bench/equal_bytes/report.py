"""Tables and plot of the map, from the figures of its jobs. Loads no torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean
from typing import Any, Final

from bench.cells import Figures
from bench.equal_bytes.plan import IN_DOMAIN, OUT_OF_DOMAIN, ROWS, THIRD, Name
from bench.page import MISSING, summary, table
from core.pipeline.reports.drawing import COLOURS, MARKERS, as_svg, dress, open_figure

_ARTIFACT: Final = "artifact"
_JUDGING: Final = (IN_DOMAIN, OUT_OF_DOMAIN)
_MB: Final = 1e6


@dataclass(frozen=True)
class Point:
    """A file of one seed: bytes, bits per byte by text, and tokens per second where the job measured them."""

    bytes: int
    bits: Mapping[str, float]
    rate: float | None


@dataclass(frozen=True)
class Kind:
    """Files of one kind over seeds: what was removed, how it is stored, and whether it was distilled."""

    row: str
    stored: str
    is_distilled: bool

    @property
    def title(self) -> str:
        """Return the kind in words."""
        return f"{self.row}, {self.stored}{', distilled' * self.is_distilled}"


def measured_files(metrics: Mapping[str, Any], report: Mapping[str, Any]) -> list[Figures]:
    """Return the files of a job: name, bytes, bits per byte by text, and tokens per second or None.

    The losses of an added file are means over windows, in nats for each token of the dense model.
    """
    sizes = metrics["bytes"]
    stored = next(sizes[form] for form in ("packed", _ARTIFACT) if sizes.get(form) is not None)
    own = {name: each["bits_per_byte"] for name, each in metrics["perplexity"].items()}
    bits = {name: each["pruned"] for name, each in own.items()}
    files: list[Figures] = [{"name": _ARTIFACT, "bytes": stored, "bits": bits, "rate": None}]
    for file in metrics.get("exports", []):
        losses = report["window_losses"].get(file["file"], {})
        bits = {
            name: fmean(losses[name]["losses"]) * each["tokens"] / (each["bytes"] * log(2))
            for name, each in own.items()
            if losses.get(name, {}).get("losses")
        }
        speed, alone = file.get("speed"), file.get("own_speed")
        rate = speed["decode"]["pruned"] if speed else alone["decode"] if alone else None
        files.append({"name": file["type"], "bytes": file["bytes"], "bits": bits, "rate": rate})
    return files


def points(found: Mapping[Name, Figures]) -> dict[Kind, list[Point]]:
    """Return the files of all jobs by kind; those without a figure on a text that judges are left out."""
    by_kind: dict[Kind, list[Point]] = {}
    for name, figures in found.items():
        for file in figures["files"]:
            stored = f"{name.bits} bits" if file["name"] == _ARTIFACT else file["name"]
            if all(file["bits"].get(text) is not None for text in _JUDGING):
                point = Point(file["bytes"], file["bits"], file["rate"])
                by_kind.setdefault(Kind(name.row, stored, name.is_distilled), []).append(point)
    return by_kind


def front(placed: Mapping[Kind, Sequence[Point]]) -> list[Kind]:
    """Return the kinds worth their bytes, smallest first: no kind of as few bytes has fewer bits per byte.

    Bits per byte are means over both texts and over seeds.
    """
    best, kinds = float("inf"), []
    for kind in sorted(placed, key=lambda each: (_size(placed[each]), _loss(placed[each]))):
        if _loss(placed[kind]) < best:
            best = _loss(placed[kind])
            kinds.append(kind)
    return kinds


@dataclass(frozen=True)
class Signs:
    """Certificates beyond so many standard errors: how many there are, and of how many a third text has the sign."""

    errors: float
    certificates: int
    right: int


def signs(found: Iterable[Figures], errors: float) -> Signs:
    """Count the comparisons at equal bytes that are beyond so many errors on a text that judges.

    A comparison is right where the artifact differs from the dense file of that size in the same direction on the third
    text. Jobs without a comparison on the third text do not count.
    """
    certificates = right = 0
    for figures in found:
        compared = figures["equal_bytes"]
        third = compared.get(THIRD, {}).get("difference")
        for text in _JUDGING:
            each = compared.get(text, {})
            if third is None or each.get("difference") is None or each.get("stderr") is None:
                continue
            if abs(each["difference"]) > errors * each["stderr"]:
                certificates += 1
                right += each["difference"] * third > 0
    return Signs(errors, certificates, right)


def page(found: Mapping[Name, Figures], failures: Mapping[str, str]) -> str:
    """Return the tables: what to take for so many bytes, the certificates, every kind, and the jobs that failed."""
    placed = points(found)
    kinds = front(placed)
    header = ["kind", "seeds", "MB", *(f"bits per byte, {text}" for text in _JUDGING), "tokens/s"]
    advice = [[f"{_size(placed[kind]) / _MB:.1f}", *_cells(kind, placed[kind])] for kind in kinds]
    every = [_cells(kind, placed[kind]) for kind in sorted(placed, key=_order)]
    counted = [signs(found.values(), errors) for errors in (1, 2)]
    certificates = [[f"{each.errors:g}", f"{each.certificates}", f"{each.right}"] for each in counted]
    parts = [
        "#### If you may spend so many bytes, take this",
        table(["from MB", "take", *header[1:]], advice),
        "#### Certificates",
        table(["beyond standard errors", "certificates", "sign holds on a third text"], certificates, text_columns=1),
        "#### Every kind",
        table(header, every, text_columns=1),
    ]
    if failures:
        reasons = [[title, reason.splitlines()[-1][:300]] for title, reason in failures.items()]
        parts += ["#### Left out", table(["cell", "reason"], reasons)]
    return "\n\n".join(parts)


def plot(found: Mapping[Name, Figures], model: str) -> str:
    """Return the plot: bits per byte over bytes of the file, a panel for each text that judges, as SVG."""
    placed = points(found)
    with open_figure((9.6, 4.4)) as figure:
        for panel, text in enumerate(_JUDGING, 1):
            axes = figure.add_subplot(1, len(_JUDGING), panel)
            for number, row in enumerate(ROWS):
                own = sorted(
                    (_size(placed[kind]) / _MB, fmean(each.bits[text] for each in placed[kind]))
                    for kind in placed
                    if kind.row == row
                )
                if own:
                    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                    style = "-" if number < len(COLOURS) else "--"
                    axes.plot(*zip(*own, strict=True), style, color=colour, marker=marker, markersize=5, label=row)
            dress(axes, text, "MB of the file", "bits per byte")
            if placed:
                axes.legend(fontsize=7)
        return as_svg(figure, f"{model}: quality over bytes")


def _cells(kind: Kind, own: Sequence[Point]) -> list[str]:
    rates = [each.rate for each in own if each.rate is not None]
    return [
        kind.title,
        f"{len(own)}",
        f"{_size(own) / _MB:.1f}",
        *(summary([each.bits[text] for each in own], ".3f") for text in _JUDGING),
        summary(rates, ".1f") if rates else MISSING,
    ]


def _size(own: Sequence[Point]) -> float:
    return fmean(each.bytes for each in own)


def _loss(own: Sequence[Point]) -> float:
    return fmean(each.bits[text] for each in own for text in _JUDGING)


def _order(kind: Kind) -> tuple[int, bool, str]:
    return list(ROWS).index(kind.row), kind.is_distilled, kind.stored
