"""Conversations rendered for a worker: kept by content, and nothing taken from a child that is not sound."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.engine.datasets.chat.conversations import RenderedRow
from core.engine.datasets.chat.render import answered_lines
from core.pipeline.messages import ModelSource, TextSource
from core.settings import Settings
from secateur_wire.errors import DiscoveryFailed, UnusableModel
from tests.chat import TEMPLATE, add_template, write_conversations
from worker.node_cache import NodeCache
from worker.supervisor.chat_renderer import RENDERER, ChatRenderer


@pytest.fixture
def text(tmp_path: Path) -> TextSource:
    file = write_conversations(tmp_path / "chats.jsonl", 5)
    return TextSource(name="chats", path=file, format="chat_jsonl", sha256="5" * 64)


def renderer(folder: Path, *command: str) -> ChatRenderer:
    cache = NodeCache(folder / "cache", max_bytes=2**30)
    return ChatRenderer(Settings(home=folder / "home"), cache, on_wait=lambda: None, command=command or RENDERER)


def model(folder: Path, template: str = TEMPLATE) -> ModelSource:
    folder.mkdir(exist_ok=True)
    return ModelSource(path=add_template(folder, template), name="tiny", revision="r")


def test_a_set_is_rendered_once_for_each_template(text: TextSource, tmp_path: Path) -> None:
    first = renderer(tmp_path)
    template = first.template_of(model(tmp_path / "tiny"), "chats", "calibration.dataset")
    key = first.key(text, template, "conversations")
    first.fill(key, text, template, "conversations", "calibration.dataset")
    renderer(tmp_path, "/bin/false").fill(key, text, template, "conversations", "calibration.dataset")
    entry = NodeCache(tmp_path / "cache", max_bytes=2**30).find(key)
    assert entry is not None
    with entry:
        source = first.source(text, entry.path)
    assert source.rendering is not None and source.rendering.conversations == 5 and source.sha256 == text.sha256
    other = first.template_of(model(tmp_path / "other", TEMPLATE + " "), "chats", "calibration.dataset")
    assert first.key(text, other, "conversations") != key


UNSOUND = [
    '{"line": 1, "text": 3}',
    '{"line": 1, "text": "a", "spans": [[0, 9]]}',
    '{"line": 1, "text": "ab", "spans": [[1, 2], [0, 1]]}',
    '{"line": 1, "text": "\\ud800"}',
    "{}",
]


def test_a_row_that_is_not_sound_is_refused() -> None:
    for row in UNSOUND:
        with pytest.raises(ValidationError):
            RenderedRow.model_validate_json(row)
    for output in (b"", b"nothing", b'{"line": 1, "text": "a"}\nnothing'):
        with pytest.raises(ValueError, match=r"."):
            answered_lines(output)


def test_a_child_that_dies_and_a_template_that_fails_are_errors_of_their_own(text: TextSource, tmp_path: Path) -> None:
    dying = renderer(tmp_path, "/bin/false")
    template = dying.template_of(model(tmp_path / "tiny"), "chats", "calibration.dataset")
    with pytest.raises(DiscoveryFailed):
        dying.fill("chat-" + "1" * 64, text, template, "conversations", "calibration.dataset")
    with pytest.raises(UnusableModel, match=r"chat template fails.*line 2 of the template"):
        renderer(tmp_path).frame(model(tmp_path / "broken", "\n{{ nothing.x }}"), "chats", "calibration.dataset")
