"""The first team and the first key of an embedded server."""

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import new_id
from core.service.teams.keys import authenticate, create_key
from core.service.teams.server_secret import server_secret, write_private
from core.service.teams.tables import TeamRow
from core.settings import Settings
from secateur_wire.errors import Unauthenticated

DEFAULT_TEAM = "default"
_BOOTSTRAP_LOCK = 0x5ECA7EB3


def create_team(session: Session, name: str, *, max_running: int | None = None) -> str:
    """Return the id of the team with this name; create the team if it does not exist."""
    session.execute(
        insert(TeamRow)
        .values(id=new_id("team"), name=name, max_running=max_running)
        .on_conflict_do_nothing(index_elements=["name"])
    )
    return session.scalars(select(TeamRow.id).where(TeamRow.name == name)).one()


def bootstrap(session: Session, settings: Settings) -> None:
    """Require that the default team exists and that `home/api-key` (0600) has a valid admin key of it; create both."""
    session.execute(select(func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))
    team_id = create_team(session, DEFAULT_TEAM)
    secret = server_secret(settings)
    file = settings.home / "api-key"
    if file.exists():
        try:
            authenticate(session, file.read_text().strip(), secret)
            return
        except Unauthenticated:
            pass  # A key from another database is invalid here, and is replaced.
    created = create_key(session, team_id, role="admin", name="bootstrap", expires_at=None, secret=secret)
    settings.home.mkdir(parents=True, exist_ok=True)
    write_private(file, created.key)
