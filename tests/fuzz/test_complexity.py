"""Time that parsers of foreign bytes take for content that is to make them slow: twice the content, twice the time."""

import contextlib
import gc
import time
from pathlib import Path

import pytest

from core.engine.datasets.image_codec import UnreadableImage
from secateur_wire.errors import SecateurError
from tests.fuzz.complexity_cases import KIB, PARSERS, Parser, with_content
from tests.fuzz.complexity_shapes import numbered

_GROWTH = 1.5
"""Exponent between linear time (1, a little more with a logarithm) and quadratic (2)."""
_NOISE_SECONDS = 0.004
"""Below this, times say little: allocators, caches and what is loaded at first use count as much."""
_LONGEST_SECONDS = 30.0
"""Processor time of the largest content, on any machine: the slowest takes a fifth of this on one that is busy."""


def seconds_of(parser: Parser, content: bytes, enough: float) -> float:
    """Return the least processor time of up to three readings, of one where it is `enough`. Refusals count as well."""

    def read(folder: Path) -> float:
        times: list[float] = []
        while len(times) < 3 and min(times, default=enough + 1) > enough:
            began = time.thread_time()
            with contextlib.suppress(SecateurError, UnreadableImage):
                parser.read(folder)
            times.append(time.thread_time() - began)
        return min(times)

    gc.collect()
    gc.freeze()  # else each reading's collection would go through all that this process holds
    gc.disable()
    try:
        return with_content(parser, content, read)
    finally:
        gc.enable()


def growth_of(name: str, shape: str, sizes: list[int]) -> str | None:
    """Return how the time grows where that is faster than the content does; None where it does not."""
    parser = PARSERS[name]
    first, *larger = sizes
    times = [seconds_of(parser, parser.shapes[shape](first), 0)]
    for size in larger:
        allowed = min((size / first) ** _GROWTH * (times[0] + _NOISE_SECONDS), _LONGEST_SECONDS)
        times.append(seconds_of(parser, parser.shapes[shape](size), allowed))
        if times[-1] > allowed:
            told = ", ".join(f"{size // KIB} KiB {each:.3f} s" for size, each in zip(sizes, times, strict=False))
            return f"{name}, {shape}: {told}"
    return None


def sizes_to(largest: int, first: int) -> list[int]:
    """Return sizes from the first, each four times the one before, and the largest itself."""
    sizes = [min(first, largest // 4)]
    while sizes[-1] * 4 < largest:
        sizes.append(sizes[-1] * 4)
    return [*sizes, largest]


@pytest.mark.parametrize("name", PARSERS)
def test_four_times_the_content_takes_no_more_than_linear_time(name: str) -> None:
    parser = PARSERS[name]
    first = min(16 * KIB, parser.largest // 32)
    slow = [growth for shape in parser.shapes if (growth := growth_of(name, shape, [first, 4 * first])) is not None]
    assert not slow, "\n".join(slow)


@pytest.mark.nightly
@pytest.mark.parametrize("name", PARSERS)
def test_up_to_the_limit_time_grows_as_the_content_does(name: str) -> None:
    parser = PARSERS[name]
    sizes = sizes_to(parser.largest, 64 * KIB)
    slow = [growth for shape in parser.shapes if (growth := growth_of(name, shape, sizes)) is not None]
    assert not slow, "\n".join(slow)


def test_a_parser_that_is_quadratic_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def count_names(folder: Path) -> None:
        names = (folder / "body").read_bytes().split(b",")
        for _ in range(4):  # long enough that the noise that is allowed does not hide it on a fast machine
            assert not [name for name in names if names.count(name) > 1]

    parser = Parser(count_names, "body", {"names": lambda size: numbered(size, b"%d")}, 32 * KIB)
    monkeypatch.setitem(PARSERS, "quadratic", parser)
    assert "quadratic, names" in (growth_of("quadratic", "names", [8 * KIB, 32 * KIB]) or "")
