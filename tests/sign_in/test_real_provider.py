"""A real provider (npm `oidc-provider`): sign-in, renewal, several teams, and every way to sign out."""

import re

import httpx
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.teams.tables import AuditRow, MembershipRow, PersonRow, PortalSessionRow
from tests.conftest import bearer
from tests.sign_in.conftest import CALLBACK, RealSignIn, follow, form_address, refusal


def test_a_person_signs_in_and_the_audit_trail_names_her(
    real: RealSignIn, sessions: sessionmaker[Session], admin_key: str
) -> None:
    real.set_claims("ada", name="Ada Lovelace", email="ada@example.com", groups=["research", "unknown"])
    with real.portal.visitor() as browser:
        arrived = real.sign_in(browser, "ada", then="/portal/team?x=1")
        assert arrived.status_code == 200 and arrived.url.path == "/portal/team" and arrived.url.query == b"x=1"
        assert "Ada Lovelace (admin)" in arrived.text and "gardeners" in arrived.text
        csrf = re.search(r'name="csrf" value="([^"]+)"', arrived.text)
        assert csrf is not None
        made = browser.post("/portal/team/keys", data={"csrf": csrf[1], "name": "ci", "role": "viewer"})
        assert made.status_code == 201
        trail = browser.get("/portal/team/audit?action=key.create").text
        assert "Ada Lovelace" in trail and "person:person_" in trail
    with httpx.Client(base_url=real.portal.url, headers=bearer(admin_key)) as api:
        entry = api.get("/v1/audit", params={"action": "key.create"}).json()["data"][0]
    with transaction(sessions) as session:
        person = session.scalars(select(PersonRow)).one()
        assert (person.issuer, person.subject, person.email) == (real.issuer, "ada", "ada@example.com")
    assert (entry["actor"], entry["person_id"], entry["key_id"]) == (f"person:{person.id}", person.id, None)
    assert entry["actor_name"] == "Ada Lovelace"


def test_a_session_that_is_over_is_renewed_silently_with_the_claims_of_now(
    real: RealSignIn, sessions: sessionmaker[Session]
) -> None:
    real.set_claims("ada", name="Ada", groups=["research"])
    with real.portal.visitor() as browser:
        real.sign_in(browser, "ada")
        real.set_claims("ada", name="Ada", groups=["visitors"])
        _let_sessions_end(sessions)
        begun = browser.get("/portal/team?x=1")
        assert begun.headers["location"] == "/portal/sign-in/oidc?silent=1&then=/portal/team%3Fx%3D1"
        renewed = follow(browser, begun)
        assert renewed.status_code == 200 and renewed.url.path == "/portal/team" and "Ada (viewer)" in renewed.text
        real.set_claims("ada", name="Ada", groups=[])
        _let_sessions_end(sessions)
        assert "belongs to no team" in refusal(follow(browser, browser.get("/portal/team")))
        with transaction(sessions) as session:
            assert session.scalars(select(MembershipRow)).all() == []
        browser.cookies.delete("_session")  # the provider's own: it knows nobody now
        asked = follow(browser, browser.get("/portal/team"))
        assert asked.status_code == 200 and "Your session has expired" in asked.text and asked.url.path == CALLBACK


def test_a_logout_at_the_provider_ends_the_sessions_here(real: RealSignIn, sessions: sessionmaker[Session]) -> None:
    real.set_claims("ada", groups=["research"])
    with real.portal.visitor() as browser, real.portal.visitor() as elsewhere:
        real.sign_in(browser, "ada")
        real.sign_in(elsewhere, "ada")
        asked = browser.get(f"{real.issuer}/session/end")
        xsrf = re.search(r'name="xsrf" value="([^"]+)"', asked.text)
        assert xsrf is not None, asked.text
        browser.post(form_address(asked), data={"xsrf": xsrf[1], "logout": "yes"})
        assert browser.get("/portal/jobs").status_code == 303
        assert elsewhere.get("/portal/jobs").status_code == 200, "another session of the provider ended too"
    with transaction(sessions) as session:
        ended = session.scalars(select(AuditRow.actor).where(AuditRow.action == "session.end")).all()
    assert ended == ["identity-provider"]


def _let_sessions_end(sessions: sessionmaker[Session]) -> None:
    with transaction(sessions) as session:
        session.execute(update(PortalSessionRow).values(expires_at=PortalSessionRow.created_at))
