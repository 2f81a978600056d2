"""The definitions a trigger had: who gave each, and what it changed."""

from typing import Any

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
