"""Parsers of foreign bytes are given content that is to make them slow, and are not."""

import contextlib
import time
from pathlib import Path

import pytest

from core.engine.datasets.image_codec import UnreadableImage
from secateur_wire.errors import SecateurError
from tests.fuzz.complexity_cases import MIB, PARSERS, with_content

_MOST_SECONDS = 15.0
"""Of a processor, for a MiB: the slowest takes one of them. Whose time grows with the square of the content takes many
times this.
"""


@pytest.mark.parametrize("name", PARSERS)
def test_no_content_of_a_mebibyte_takes_long(name: str) -> None:
    parser = PARSERS[name]

    def read(folder: Path) -> float:
        began = time.thread_time()
        with contextlib.suppress(SecateurError, UnreadableImage):
            parser.read(folder)
        return time.thread_time() - began

    for shape, content in parser.shapes.items():
        seconds = with_content(parser, content(min(MIB, parser.largest)), read)
        assert seconds < _MOST_SECONDS, shape
