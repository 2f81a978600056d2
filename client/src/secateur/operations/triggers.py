"""Operations on triggers: create, change, fire, read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from secateur.operations.calls import Calls, new_key
from secateur.transport import segment
from secateur_wire.triggers import Firing, IssuedTrigger, Trigger, TriggerPreview, TriggerSecret


class TriggerOperations(Calls):
    """Operations on triggers, templates of jobs that a pipeline, the hub or a schedule fires."""

    def triggers(self) -> Iterator[Trigger]:
        """Iterate over the team's triggers, newest first, without their secrets."""
        return self._list("triggers", Trigger)

    def trigger(self, trigger: str) -> Trigger:
        """Return a trigger by name or id."""
        return self._transport.call("GET", f"triggers/{segment(trigger)}", Trigger)

    def create_trigger(self, /, name: str, template: Mapping[str, JsonValue], **definition: Any) -> IssuedTrigger:
        """Create a trigger: `create_trigger("nightly", {"model": "oak", …}, schedule={"cron": "0 3 * * *"})`.

        `definition` may also have `placeholders`, `event_id`, `hub`, `signing`, `description` and `enabled`. Only this
        answer has its URL and its other secrets.
        """
        body = {"name": name, "template": dict(template), **definition}
        return self._create("triggers", IssuedTrigger, body, slow=True)

    def update_trigger(self, trigger: str, /, **changes: Any) -> IssuedTrigger:
        """Change the given fields; None removes a value. Secrets that it did not need before are in the answer."""
        return self._transport.call("PATCH", f"triggers/{segment(trigger)}", IssuedTrigger, body=changes, slow=True)

    def rotate_trigger(self, trigger: str, secrets: Sequence[TriggerSecret] = ("url",)) -> IssuedTrigger:
        """Replace secrets (url, signing, hub) by new ones; the old ones become invalid at once."""
        return self._create(f"triggers/{segment(trigger)}/rotate", IssuedTrigger, {"secrets": list(secrets)})

    def delete_trigger(self, trigger: str) -> None:
        """Delete a trigger with its history; its jobs stay."""
        self._transport.delete(f"triggers/{segment(trigger)}")

    def fire_trigger(
        self, trigger: str, payload: Mapping[str, JsonValue] | None = None, *, event_id: str | None = None
    ) -> Firing:
        """Fire a trigger with a payload as its sender would send it.

        The same `event_id` creates no second job, and returns the first. Without it, each call is a new event, which
        its retries share.
        """
        path = f"triggers/{segment(trigger)}/fire"
        return self._create(path, Firing, payload or {}, idempotency_key=event_id or new_key(), slow=True)

    def preview_trigger(self, trigger: str, payload: Mapping[str, JsonValue] | None = None) -> TriggerPreview:
        """Return the job that a payload would create, without creating it."""
        path = f"triggers/{segment(trigger)}/preview"
        return self._transport.call("POST", path, TriggerPreview, body=payload or {}, slow=True)

    def firings(self, trigger: str) -> Iterator[Firing]:
        """Iterate over a trigger's firings, newest first."""
        return self._list(f"triggers/{segment(trigger)}/firings", Firing)
