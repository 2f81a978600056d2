"""The definitions a trigger had: who gave each, and what it changed."""

from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.triggers.tables import TriggerRow, TriggerVersionRow
from tests.triggers.conftest import Fixed


def versions(trigger: Fixed, **query: Any) -> list[dict[str, Any]]:
    answer = trigger.api.get(f"{trigger.path}/versions", params=query).json()
    listed: list[dict[str, Any]] = answer["data"]
    return listed


def test_every_change_is_a_version_with_what_it_changed_and_who_made_it(trigger: Fixed, admin_key: str) -> None:
    (made,) = versions(trigger)
    assert (made["number"], made["changes"]) == (1, []) and made["actor"].startswith("key:key_")
    template = {**made["definition"]["template"], "sparsity": 0.4, "priority": 3}
    changes = {"template": template, "placeholders": {"commit": made["definition"]["placeholders"]["commit"]}}
    trigger.api.patch(trigger.path, json=changes).raise_for_status()
    trigger.api.patch(trigger.path, json={"description": ""}).raise_for_status()  # which it was
    admin = {"Authorization": f"Bearer {admin_key}"}
    trigger.api.patch(trigger.path, json={"enabled": False}, headers=admin).raise_for_status()
    trigger.api.post(f"{trigger.path}/rotate", json={}).raise_for_status()
    newest, changed, first = versions(trigger)
    assert [newest["changes"]] == [[{"field": "enabled", "before": True, "after": False}]]
    assert newest["actor"] != changed["actor"] == made["actor"]
    assert {each["field"]: (each["before"], each["after"]) for each in changed["changes"]} == {
        "template.sparsity.$payload": ("sparsity", None),
        "template.sparsity": (None, 0.4),
        "template.priority": (None, 3),
        **{
            f"placeholders.sparsity.{name}": (value, None)
            for name, value in first["definition"]["placeholders"]["sparsity"].items()
        },
    }
    assert first == made
    (page,) = versions(trigger, limit=1)
    assert page == newest, "its changes are told though the version before is on the next page"


def test_what_a_release_without_versions_did_is_written_down_with_the_next_change(
    trigger: Fixed, sessions: sessionmaker[Session]
) -> None:
    with transaction(sessions) as session:
        session.execute(delete(TriggerVersionRow))
    trigger.api.patch(trigger.path, json={"description": "one"}).raise_for_status()
    with transaction(sessions) as session:
        session.execute(update(TriggerRow).values(description="by an old process"))
    trigger.api.patch(trigger.path, json={"description": "two"}).raise_for_status()
    told = [
        (each["number"], each["actor"] is None, each["definition"].get("description")) for each in versions(trigger)
    ]
    assert told == [(4, False, "two"), (3, True, "by an old process"), (2, False, "one"), (1, True, "")]
