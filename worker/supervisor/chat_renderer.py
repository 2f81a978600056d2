"""Conversations rendered by a model's chat template, in a secluded child, and kept in the node's cache."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from core.engine.datasets.chat.conversations import Frame, RenderedRow, Rendering
from core.engine.datasets.chat.render import RenderAnswer, RenderQuestion, answered_lines
from core.engine.datasets.chat.template import ChatTemplate, read_template
from core.pipeline.messages import ModelSource, TextSource
from core.settings import Settings
from core.storage import MANIFEST
from secateur_wire.errors import RunFailed, SecateurError, UnusableDataset, UnusableModel
from worker.fetcher.protocol import TEXT_FILE
from worker.node_cache import NodeCache
from worker.supervisor.secluded_child import ask_child

RENDERER: tuple[str, ...] = (sys.executable, "-m", "core.engine.datasets.chat.render")

_SECONDS: Final = 300.0
"""Time limit of the child, which ends by itself before."""
_KEPT_AS: Final = {"conversations": "conversations", "questions": "questions with references"}
"""Words in the keys of kept rows, which change where the rows do."""
_ERRORS: Final[dict[str, type[SecateurError]]] = {each.code: each for each in (UnusableModel, UnusableDataset)}


class ChatRenderer:
    """Renderer of conversations for the attempts of a worker; `on_wait` is called while a child works."""

    def __init__(
        self,
        settings: Settings,
        cache: NodeCache,
        *,
        on_wait: Callable[[], None],
        command: Sequence[str] = RENDERER,
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._on_wait = on_wait
        self._command = command

    def template_of(self, model: ModelSource, name: str, param: str) -> ChatTemplate:
        """Return a model's chat template; raises UnusableDataset, about the dataset `name`, for a model without one."""
        template = read_template(model.path)
        if template is None:
            raise UnusableDataset(
                f"{param}: {name!r} is of conversations, but the model {model.name} has no chat template to render "
                "them by: use a text, or a model that was tuned for chat",
                param=param,
            )
        return template

    def frame(self, model: ModelSource, name: str, param: str) -> tuple[Frame, ChatTemplate]:
        """Return a template's words around a question and its answer; raises as `fill`."""
        template = self.template_of(model, name, param)
        _, last = self._ask(template, "frame", None, param)
        if last.frame is None:
            raise _no_answer()
        return last.frame, template

    def known_frame(self, model: ModelSource) -> Frame | None:
        """Return a template's words around a question and its answer; None where the template does not tell them."""
        try:
            return self.frame(model, model.name, "model")[0]
        except (UnusableModel, UnusableDataset):
            return None

    def key(self, text: TextSource, template: ChatTemplate, wanted: Literal["conversations", "questions"]) -> str:
        """Return the key in the cache of a set that a template has rendered."""
        facts = [template.sha256, text.sha256, text.format, _KEPT_AS[wanted]]
        return f"chat-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}"

    def fill(
        self,
        key: str,
        text: TextSource,
        template: ChatTemplate,
        wanted: Literal["conversations", "questions"],
        param: str,
    ) -> None:
        """Render conversations into the cache, unless they are there.

        Raises UnusableModel where the template fails, UnusableDataset where no conversation is left, and
        DiscoveryFailed where the child gives no answer.
        """
        with self._cache.fill(key, text.path.stat().st_size) as folder:
            if folder is None:
                return
            rows, last = self._ask(template, wanted, text, param)
            if last.rendering is None:
                raise _no_answer()
            with (folder / TEXT_FILE).open("w", encoding="utf-8") as target:
                target.writelines(f"{row.model_dump_json()}\n" for row in _checked(rows))
            (folder / MANIFEST).write_text(last.rendering.model_dump_json(indent=2))

    def source(self, text: TextSource, entry: Path) -> TextSource:
        """Return the source of a set of conversations that was rendered into the cache."""
        rendering = Rendering.model_validate_json((entry / MANIFEST).read_bytes())
        return TextSource(
            name=text.name,
            path=entry / TEXT_FILE,
            format="jsonl",
            sha256=text.sha256,
            origin=text.origin | {"rendering": rendering.model_dump(mode="json", exclude_none=True)},
            rendering=rendering,
        )

    def _ask(
        self,
        template: ChatTemplate,
        wanted: Literal["conversations", "questions", "frame"],
        text: TextSource | None,
        param: str,
    ) -> tuple[Iterator[bytes], RenderAnswer]:
        question = RenderQuestion(
            wanted=wanted,
            source=template.source,
            special_tokens=dict(template.special_tokens),
            path=None if text is None else text.path,
            name="" if text is None else text.name,
            format="" if text is None else text.format,
        )
        output = ask_child(
            self._command,
            question.model_dump_json(),
            name="chat",
            settings=self._settings,
            on_wait=self._on_wait,
            seconds=_SECONDS,
        )
        try:
            rows, last = answered_lines(output)
        except ValueError as error:
            raise _no_answer() from error
        if last.failure is not None:
            kind = _ERRORS.get(last.failure.code, UnusableDataset)
            raise kind(last.failure.message, param="model" if kind is UnusableModel else param)
        return rows, last


def _checked(rows: Iterator[bytes]) -> Iterator[RenderedRow]:
    """Yield the rows of a child, which has run a stranger's program; raises RunFailed for one that is none."""
    for row in rows:
        try:
            yield RenderedRow.model_validate_json(row)
        except ValidationError as error:
            raise _no_answer() from error


def _no_answer() -> RunFailed:
    return RunFailed("the child process that renders conversations gave no sound answer")
