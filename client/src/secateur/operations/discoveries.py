"""Discoveries of what models are, and the calls that wait for one."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, RootModel

from secateur.errors import NotFound
from secateur.operations.calls import Calls, ignore
from secateur.transport import segment
from secateur_wire.discoveries import Discovery

OnWait = Callable[[Discovery], None]
"""Function that is told of a discovery that is waited for."""

LOOK_SECONDS = 1.0

Found = TypeVar("Found", bound=BaseModel)


class DiscoveryOperations(Calls):
    """Operations on discoveries."""

    async def discovery(self, discovery_id: str) -> Discovery:
        """Return how far the discovery of a model's architecture is. Raises NotFound once it was forgotten."""
        return await self._transport.call("GET", f"discoveries/{segment(discovery_id)}", Discovery)

    async def _once_discovered(
        self,
        path: str,
        answer: type[RootModel[Found | Discovery]],
        body: Mapping[str, JsonValue],
        on_wait: OnWait | None,
    ) -> Found:
        """Return the answer of a call about a model, asked again until the server knows what the model is."""
        while True:
            given = (await self._transport.call("POST", path, answer, body=body, slow=True)).root
            if not isinstance(given, Discovery):
                return given
            await self._over(given, on_wait or ignore)

    async def _over(self, discovery: Discovery, on_wait: OnWait) -> None:
        """Wait until a discovery is over, well or not."""
        while discovery.state in ("waiting", "running"):
            on_wait(discovery)
            await self._transport.sleep(LOOK_SECONDS)
            try:
                discovery = await self.discovery(discovery.id)
            except NotFound:
                return
