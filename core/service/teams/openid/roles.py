"""Teams and roles that the claims of a person give, by the operator's setting."""

from collections.abc import Mapping
from typing import Any, cast

from core.service.teams.principal import RANK
from core.settings import Settings
from secateur_wire.errors import Unauthenticated
from secateur_wire.teams import Role


def roles_of(claims: Mapping[str, Any], settings: Settings) -> dict[str, Role]:
    """Return the role in each team, by the team's name: the highest where several values name the same team.

    There is none where no value of the claim leads to a team. Raises Unauthenticated where the claim is an e-mail
    address that nobody verified.
    """
    value = claims.get(settings.oidc_claim)
    if settings.oidc_claim == "email" and claims.get("email_verified") is not True:
        raise Unauthenticated("the provider did not verify the e-mail address of your account: ask your operator")
    values = value if isinstance(value, list) else [value]
    roles: dict[str, Role] = {}
    for each in values:
        target = settings.oidc_roles.get(each) if isinstance(each, str) else None
        if target is None:
            continue
        team, _, named = target.rpartition(":")
        role = cast(Role, named)
        if team not in roles or RANK[role] > RANK[roles[team]]:
            roles[team] = role
    return roles
