"""Page of the vocabulary's bench: tables, and the goals beside what came out. Loads no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import stdev
from typing import Any

from bench.cells import Figures
from bench.page import MISSING, table
from bench.vocabulary.plan import (
    ALONE,
    DISTILLED,
    FRONTIER,
    FRONTIER_WITH,
    HALF,
    HALF_THEN,
    JUDGED_ALONE,
    JUDGED_ON,
    REDUCED,
    TOKENS,
)
from bench.vocabulary.running import Bench
from secateur_wire.metrics import ExportSpeed, Parameters

_PARAMETERS, _WITH_FRONTIER, _INSIDE, _OUTSIDE, _OF_GAIN, _AFTER_HALF = 0.86, 0.71, 1.0, 1.03, 0.8, 1.2
"""Goals: shares of the parameters, ratios of bits per byte, the part of the gain in bytes, and the gain in speed."""
_IN_DOMAIN = JUDGED_ALONE[:2]


def page(bench: Bench, families: Mapping[str, Figures]) -> str:
    """Return the section; what was not run is left out of tables, and marked among the goals."""
    found, logits = bench.found, bench.logits
    parts = [
        table(("what", "goal", "came out", "met"), list(_goals(bench, families)), text_columns=4),
        "### Models",
        table(
            ("bits per byte ÷ dense, on", "parameters ÷ dense", *JUDGED_ALONE),
            [_reduced(bench, name) for name in REDUCED if name in bench.reduced],
            text_columns=1,
        ),
        *_of_jobs({name: found[name] for name in (DISTILLED, FRONTIER, FRONTIER_WITH) if name in found}),
        "\n".join(f"- {_lengths(bench, name)}" for name in REDUCED if name in bench.reduced),
        "### Logits on text that needs kept tokens alone",
        table(
            ("text", "paragraphs read", "kept texts", "same tokens", "same logits to the bit", "largest difference"),
            [_compared(name, each) for name, each in logits.items()],
            text_columns=1,
        ),
        "### Speed in llama.cpp, Q8_0",
        table(
            ("job", "bytes ÷ dense", "decode ÷ dense", "prefill ÷ dense", "load of the machine"),
            [_timed(name, found[name]) for name in (ALONE, HALF, HALF_THEN) if name in found],
            text_columns=1,
        ),
        f"The job *{HALF_THEN}* is compared with the artifact of *{HALF}* as its dense model. The ratios are of tokens "
        "per second: medians of rounds in turn, with the largest spread of the rounds in brackets.",
        "### Tokenizers",
        table(
            ("tokenizer", "kind", "tokens", "left", "texts", "kept texts", "same tokens"),
            [_family(name, each) for name, each in families.items()],
        ),
    ]
    return "\n\n".join(parts)


def _goals(bench: Bench, families: Mapping[str, Figures]) -> Iterator[tuple[str, ...]]:
    found, logits = bench.found, bench.logits
    alike = sum(each["alike"] for each in families.values())
    kept = sum(each["kept"] for each in families.values())
    yield _goal("same tokens, renumbered, in kept texts", "100 %", f"{alike:,} of {kept:,}", alike == kept > 0)
    left = _share(bench, ALONE)
    yield _goal(f"parameters with {TOKENS:,} tokens", f"≤ {_PARAMETERS}", _shown(left), _at_most(left, _PARAMETERS))
    equal = sum(each["to_the_bit"] for each in logits.values())
    compared = sum(each["found"] for each in logits.values())
    largest = max((each["difference"] for each in logits.values()), default=None)
    outcome = MISSING if largest is None else f"{equal} of {compared} to the bit, largest difference {largest:.2g}"
    yield _goal("logits on kept texts", "equal", outcome, None if largest is None else equal == compared)
    for name in JUDGED_ALONE:
        ratio, most = _bits_alone(bench, ALONE, name), _INSIDE if name in _IN_DOMAIN else _OUTSIDE
        yield _goal(f"bits per byte on {name} ÷ dense", f"≤ {most:.3f}", _shown(ratio), _at_most(ratio, most))
    for name in JUDGED_ON:
        ratio, most = _bits(found.get(DISTILLED), name), _INSIDE if name in _IN_DOMAIN else _OUTSIDE
        yield _goal(f"the same on {name}, distilled", f"≤ {most:.3f}", _shown(ratio), _at_most(ratio, most))
    speed = _speed(found.get(ALONE))
    if speed is None:
        yield _goal("part of the gain in bytes that decoding gains", f"≥ {_OF_GAIN}", MISSING, None)
    else:
        export = found[ALONE]["exports"][0]
        gain = (speed.decode.ratio - 1) / (speed.dense_bytes / export["bytes"] - 1)
        outcome = f"{gain:.2f} (× {speed.decode.ratio:.2f}, spread {speed.decode.spread:.0%})"
        yield _goal("part of the gain in bytes that decoding gains", f"≥ {_OF_GAIN}", outcome, gain >= _OF_GAIN)
    after = _speed(found.get(HALF_THEN))
    outcome = MISSING if after is None else f"× {after.decode.ratio:.2f}, spread {after.decode.spread:.0%}"
    met = None if after is None else after.decode.ratio >= _AFTER_HALF
    yield _goal("decoding after half of the layers went", f"≥ × {_AFTER_HALF}", outcome, met)
    both = _left(found.get(FRONTIER_WITH))
    what = "parameters after frontier, with vocabulary"
    yield _goal(what, f"≤ {_WITH_FRONTIER}", _shown(both), _at_most(both, _WITH_FRONTIER))
    for name in JUDGED_ON:
        with_tokens, without = _bits(found.get(FRONTIER_WITH), name), _bits(found.get(FRONTIER), name)
        worse = None if with_tokens is None or without is None else with_tokens / without
        what = f"bits per byte on {name}, frontier with vocabulary ÷ without"
        yield _goal(what, "≤ 1.000", _shown(worse), _at_most(worse, 1.0))


def _goal(what: str, goal: str, outcome: str, met: bool | None) -> tuple[str, ...]:
    return what, goal, outcome, MISSING if met is None else "yes" if met else "no"


def _at_most(value: float | None, most: float) -> bool | None:
    return None if value is None else value <= most


def _shown(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _left(figures: Figures | None) -> float | None:
    if figures is None or figures["parameters"] is None:
        return None
    parameters = Parameters.model_validate(figures["parameters"])
    if not parameters.dense or parameters.nonzero is None:
        return None
    return parameters.nonzero / parameters.dense


def _bits(figures: Figures | None, text: str) -> float | None:
    bits = None if figures is None else figures["bits_per_byte"].get(text)
    return None if bits is None else float(bits["ratio"])


def _speed(figures: Figures | None) -> ExportSpeed | None:
    exports: list[dict[str, Any]] = [] if figures is None else figures["exports"]
    speed = exports[0].get("speed") if exports else None
    return None if speed is None else ExportSpeed.model_validate(speed)


def _share(bench: Bench, name: str) -> float | None:
    if name not in bench.reduced:
        return None
    dense, left = bench.reduced[name]["parameters"]
    return float(left / dense)


def _bits_alone(bench: Bench, name: str, text: str) -> float | None:
    quality = bench.quality.get((name, text))
    if quality is None:
        return None
    dense, new = (sum(each) for each in quality["losses"])
    return float(new / dense)


def _reduced(bench: Bench, name: str) -> tuple[str, ...]:
    cells = []
    for text in JUDGED_ALONE:
        ratio = _bits_alone(bench, name, text)
        if ratio is None:
            cells.append(MISSING)
            continue
        dense, new = bench.quality[name, text]["losses"]
        differences = [after - ratio * before for before, after in zip(dense, new, strict=True)]
        error = stdev(differences) * len(dense) ** 0.5 / sum(dense) if len(dense) > 1 else float("nan")
        cells.append(f"{ratio:.4f} ± {error:.4f}")
    return f"{name}: {bench.reduced[name]['kept']:,} tokens", _shown(_share(bench, name)), *cells


def _of_jobs(found: Mapping[str, Figures]) -> Iterator[str]:
    if found:
        header = ("bits per byte ÷ dense, on", "parameters ÷ dense", *JUDGED_ON)
        yield table(header, [_job(name, figures) for name, figures in found.items()], text_columns=1)


def _job(name: str, figures: Figures) -> tuple[str, ...]:
    cells = []
    for text in JUDGED_ON:
        bits = figures["bits_per_byte"].get(text) or {}
        error = f" ± {bits['ratio_stderr']:.4f}" if bits.get("ratio_stderr") is not None else ""
        cells.append(f"{bits['ratio']:.4f}{error}" if "ratio" in bits else MISSING)
    return name, _shown(_left(figures)), *cells


def _lengths(bench: Bench, name: str) -> str:
    reduced = bench.reduced[name]
    ratios = []
    for text in JUDGED_ALONE:
        if (quality := bench.quality.get((name, text))) is not None:
            dense, new = quality["lengths"]
            ratios.append(f"{new / dense:.3f} on {text}")
    return (
        f"{name}: {reduced['kept']:,} tokens stay; the calibration text uses {reduced['used']:,}. The "
        f"number of tokens of each text, new ÷ dense: {', '.join(ratios) or MISSING}"
    )


def _compared(name: str, figures: Figures) -> tuple[str, ...]:
    counts = (figures[each] for each in ("read", "found", "alike", "to_the_bit"))
    return name, *(f"{each:,}" for each in counts), f"{figures['difference']:.2g}"


def _timed(name: str, figures: Figures) -> tuple[str, ...]:
    speed, load = _speed(figures), " to ".join(f"{each:.0f}" for each in figures["load"])
    if speed is None:
        return name, MISSING, MISSING, MISSING, load
    rates = [f"{rate.ratio:.2f} × (± {rate.spread:.0%})" for rate in (speed.decode, speed.prefill)]
    return name, f"{figures['exports'][0]['bytes'] / speed.dense_bytes:.3f}", *rates, load


def _family(name: str, figures: Figures) -> tuple[str, ...]:
    counts = (figures[each] for each in ("tokens", "left", "texts", "kept", "alike"))
    return Path(name).name, figures["kind"], *(f"{each:,}" for each in counts)
