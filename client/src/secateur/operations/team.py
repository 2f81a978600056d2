"""Operations on the team, its keys, its audit trail, the fleet, and identifiers."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from secateur.operations.calls import Calls, given
from secateur.transport import segment
from secateur_wire.base import Page
from secateur_wire.fleet import Queue, Worker
from secateur_wire.identifiers import Identifier, IdentifierKind
from secateur_wire.teams import AuditEntry, CreatedKey, HubToken, Key, Person, Role, Team, WorkloadRule


class TeamOperations(Calls):
    """Operations on the team, its keys, its audit trail and the fleet."""

    def keys(self) -> Iterator[Key]:
        """Iterate over the team's API keys, newest first. Needs an admin key, as all calls on keys do."""
        return self._list("keys", Key)

    def create_key(self, name: str, *, role: Role = "member", expires_at: datetime | None = None) -> CreatedKey:
        """Create an API key; only this answer has its secret."""
        body = given(name=name, role=role, expires_at=expires_at.isoformat() if expires_at else None)
        return self._create("keys", CreatedKey, body)

    def rotate_key(self, key_id: str, *, grace_seconds: float | None = None) -> CreatedKey:
        """Create a successor of a key with its name and role; the old key stays valid for `grace_seconds`."""
        return self._create(f"keys/{segment(key_id)}/rotate", CreatedKey, given(grace_seconds=grace_seconds))

    def revoke_key(self, key_id: str) -> Key:
        """Revoke a key permanently."""
        return self._transport.call("DELETE", f"keys/{segment(key_id)}", Key)

    def workload_rules(self) -> Iterator[WorkloadRule]:
        """Iterate over the team's rules for pipelines, newest first. Needs an admin key, as all calls on rules do."""
        return self._list("workload-rules", WorkloadRule)

    def create_workload_rule(
        self, name: str, *, issuer: str, claims: Mapping[str, str], role: Role = "member"
    ) -> WorkloadRule:
        """Create a rule: pipelines whose identity token has these claims get keys of the team for a short time."""
        body = given(name=name, issuer=issuer, claims=dict(claims), role=role)
        return self._create("workload-rules", WorkloadRule, body)

    def delete_workload_rule(self, rule_id: str) -> None:
        """Delete a rule; keys that pipelines got by it are revoked."""
        self._transport.delete(f"workload-rules/{segment(rule_id)}")

    def team(self) -> Team:
        """Return the team of this key: its quotas and their use."""
        return self._transport.call("GET", "team", Team)

    def people(self) -> Iterator[Person]:
        """Iterate over the people of the team, newest first. Needs an admin key."""
        return self._list("people", Person)

    def hub_token(self) -> HubToken:
        """Return the owner of the team's hub token. Needs an admin key, as all calls on it do."""
        return self._transport.call("GET", "team/hub-token", HubToken)

    def set_hub_token(self, token: str) -> HubToken:
        """Set the token with which the team's models and datasets are fetched; it is never shown again."""
        return self._transport.call("PUT", "team/hub-token", HubToken, body={"token": token})

    def remove_hub_token(self) -> HubToken:
        """Remove the team's hub token."""
        return self._transport.call("DELETE", "team/hub-token", HubToken)

    def audit(self, *, action: str | None = None, object_id: str | None = None) -> Iterator[AuditEntry]:
        """Iterate over the changes in the team, newest first, of one kind or to one object. Needs an admin key."""
        filters = {name: value for name, value in (("action", action), ("object_id", object_id)) if value}
        return self._list("audit", AuditEntry, filters)

    def workers(self) -> Iterator[Worker]:
        """Iterate over the workers with a recent heartbeat."""
        return self._list("workers", Worker)

    def queues(self) -> Iterator[Queue]:
        """Iterate over the queues, with the waiting and running jobs of each."""
        return self._list("queues", Queue)

    def identifiers(self, kind: IdentifierKind, shortened: str) -> Page[Identifier]:
        """Return the ids of this kind with a beginning, newest first, with or without the word before the underscore.

        The beginning `-` stands for the job that this key submitted last.
        """
        params: dict[str, str | int] = {"kind": kind, "shortened": shortened}
        return self._transport.call("GET", "identifiers", Page[Identifier], params=params)
