"""Events of the hub's webhooks (version 3, https://huggingface.co/docs/hub/webhooks), and which are new commits."""

from dataclasses import dataclass
from typing import Any

from core.service.triggers.json_pointer import MISSING, look_up
from core.service.triggers.schemas import HubSource

_DEFAULT_BRANCH = "refs/heads/main"
"""Default branch, which every repository of the hub has."""
_CONTENT = "repo.content"


@dataclass(frozen=True)
class HubEvent:
    """Event of the hub: `ignored` is the reason it does not fire the trigger; else `event_id` is the commit's."""

    event_id: str | None
    ignored: str | None


def read_hub_event(source: HubSource, payload: Any) -> HubEvent:
    """Read an event. Its sender knows the hub's secret: a payload not understood is ignored, with the reason."""
    scope, action = _text(payload, "/event/scope"), _text(payload, "/event/action")
    kind, name, head = (_text(payload, f"/repo/{each}") for each in ("type", "name", "headSha"))
    if None in (scope, action, kind, name):
        return _ignored("not an event of the hub: it lacks event.scope, event.action, repo.type or repo.name")
    if (kind, name) != (source.type, source.repository):
        return _ignored(f"an event of the {kind} {name}; this trigger watches the {source.type} {source.repository}")
    if action != "update" or not (scope == _CONTENT or str(scope).startswith(f"{_CONTENT}.")):
        return _ignored(f"{action} of {scope}; this trigger waits for new commits ({_CONTENT})")
    refs = look_up(payload, "/updatedRefs")
    moved = [each for each in refs if isinstance(each, dict)] if isinstance(refs, list) else []
    if not any(each.get("ref") == _DEFAULT_BRANCH and each.get("newSha") for each in moved):
        names = ", ".join(str(each.get("ref"))[:100] for each in moved[:5]) or "no branch"
        return _ignored(f"a change of {names}; this trigger waits for commits on {_DEFAULT_BRANCH}")
    if head is None:
        return _ignored("the event lacks repo.headSha")
    return HubEvent(f"{kind}:{name}@{head}"[:255], None)


def _ignored(reason: str) -> HubEvent:
    return HubEvent(None, reason)


def _text(payload: Any, pointer: str) -> str | None:
    value = look_up(payload, pointer)
    return value[:200] if value is not MISSING and isinstance(value, str) else None
