"""Base of all operations: creating calls, and lists page by page."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

from pydantic import BaseModel, JsonValue

from secateur.transport import CallContents, Transport
from secateur_wire.base import Page

PAGE_SIZE: Final = 100

Item = TypeVar("Item", bound=BaseModel)


class Calls:
    """Base class of every noun's operations."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def url(self) -> str:
        return self._transport.url

    def _create(
        self,
        path: str,
        answer: type[Item],
        body: Mapping[str, JsonValue] | None = None,
        *,
        idempotency_key: str | None = None,
        slow: bool = False,
    ) -> Item:
        key = idempotency_key or new_key()
        sent: CallContents = {"idempotency_key": key, "slow": slow}
        if body is not None:
            sent["body"] = body
        return self._transport.call("POST", path, answer, **sent)

    def _list(self, path: str, item: type[Item], filters: Mapping[str, str] | None = None) -> Iterator[Item]:
        params: dict[str, str | int] = {"limit": PAGE_SIZE, **(filters or {})}
        while True:
            page = self._transport.call("GET", path, Page[item], params=params)  # type: ignore[valid-type]
            yield from page.data
            if not page.has_more or page.next_after is None:
                return
            params["after"] = page.next_after


def given(**fields: JsonValue) -> dict[str, JsonValue]:
    return {name: value for name, value in fields.items() if value is not None}


def new_key() -> str:
    return str(uuid.uuid4())


def ignore(*_: object) -> None:
    pass
