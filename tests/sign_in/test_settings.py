"""Settings of the sign-in: a mistake ends the start, with what would be right."""

import re

import pytest
from pydantic import ValidationError

from core.service.teams.openid.roles import roles_of
from core.settings import Settings

COMPLETE = {
    "SECATEUR_OIDC_ISSUER": "https://sso.example.com",
    "SECATEUR_OIDC_CLIENT_ID": "secateur",
    "SECATEUR_OIDC_ROLES": '{"research": "default:admin", "guests": "a team: with colon:viewer"}',
}


def read(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> Settings:
    for name, value in {**COMPLETE, **changes}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    return Settings()


def test_roles_are_read_from_the_environment_and_the_highest_of_a_team_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = '{"a": "default:viewer", "b": "default:admin", "c": "default:member", "d": "a team: with colon:viewer"}'
    settings = read(monkeypatch, SECATEUR_OIDC_ROLES=roles)
    assert roles_of({"groups": ["a", "b", "c", "d", "x"]}, settings) == {
        "default": "admin",
        "a team: with colon": "viewer",
    }
    assert roles_of({"groups": "a"}, settings) == {"default": "viewer"}
    assert roles_of({}, settings) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SECATEUR_OIDC_ISSUER": "http://sso.example.com"}, "must begin with https://"),
        ({"SECATEUR_OIDC_CLIENT_ID": None}, "SECATEUR_OIDC_CLIENT_ID is needed"),
        ({"SECATEUR_OIDC_ROLES": None}, "nobody belongs to a team"),
        ({"SECATEUR_OIDC_ROLES": '{"research": "default:owner"}'}, "with the role viewer, member, admin"),
        ({"SECATEUR_OIDC_SCOPES": "profile"}, "must have openid"),
    ],
)
def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], reason: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(reason)):
        read(monkeypatch, **changes)
