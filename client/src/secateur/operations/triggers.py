"""Triggers: made, changed, fired, looked at."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from secateur.operations.calls import Calls, new_key
from secateur.transport import segment
from secateur_wire.triggers import Firing, IssuedTrigger, Trigger, TriggerPreview, TriggerSecret, TriggerVersion


class TriggerOperations(Calls):
    """Templates of jobs that a pipeline, the hub or the clock fires."""

    def triggers(self) -> AsyncIterator[Trigger]:
        """Iterate over the team's triggers, newest first, without their secrets."""
        return self._list("triggers", Trigger)

    async def trigger(self, trigger: str) -> Trigger:
        """Return a trigger by name or id."""
        return await self._transport.call("GET", f"triggers/{segment(trigger)}", Trigger)

    async def create_trigger(self, /, name: str, template: Mapping[str, JsonValue], **definition: Any) -> IssuedTrigger:
        """Create a trigger: `create_trigger("nightly", {"model": "oak", …}, schedule={"cron": "0 3 * * *"})`.

        `definition` may also hold `placeholders`, `event_id`, `hub`, `signing`, `description` and `enabled`. Its URL
        and other secrets are in the answer, and nowhere else ever.
        """
        body = {"name": name, "template": dict(template), **definition}
        return await self._create("triggers", IssuedTrigger, body, slow=True)

    async def update_trigger(self, trigger: str, /, **changes: Any) -> IssuedTrigger:
        """Change what is given; None takes away. Secrets that it did not need before are in the answer."""
        return await self._transport.call(
            "PATCH", f"triggers/{segment(trigger)}", IssuedTrigger, body=changes, slow=True
        )

    async def rotate_trigger(self, trigger: str, secrets: Sequence[TriggerSecret] = ("url",)) -> IssuedTrigger:
        """Replace secrets (of url, signing, hub) by new ones; the old ones are invalid at once."""
        return await self._create(f"triggers/{segment(trigger)}/rotate", IssuedTrigger, {"secrets": list(secrets)})

    async def delete_trigger(self, trigger: str) -> None:
        """Delete a trigger with its history; its jobs stay."""
        await self._transport.delete(f"triggers/{segment(trigger)}")

    async def fire_trigger(
        self, trigger: str, payload: Mapping[str, JsonValue] | None = None, *, event_id: str | None = None
    ) -> Firing:
        """Fire a trigger with the payload its sender would send.

        The same `event_id` again makes no second job and names the first; unset, each call is an event of its own,
        which the retries of the call share.
        """
        path = f"triggers/{segment(trigger)}/fire"
        return await self._create(path, Firing, payload or {}, idempotency_key=event_id or new_key(), slow=True)

    async def preview_trigger(self, trigger: str, payload: Mapping[str, JsonValue] | None = None) -> TriggerPreview:
        """Return the job that a payload would make, without making it."""
        path = f"triggers/{segment(trigger)}/preview"
        return await self._transport.call("POST", path, TriggerPreview, body=payload or {}, slow=True)

    def firings(self, trigger: str) -> AsyncIterator[Firing]:
        """Iterate over a trigger's firings, newest first."""
        return self._list(f"triggers/{segment(trigger)}/firings", Firing)

    def trigger_versions(self, trigger: str) -> AsyncIterator[TriggerVersion]:
        """Iterate over the definitions a trigger had, newest first: who gave each, and what it changed."""
        return self._list(f"triggers/{segment(trigger)}/versions", TriggerVersion)
