"""Environment of Alembic: a connection from `core.database.migrate`, or otherwise the configured database."""

from alembic import context
from sqlalchemy import Connection

import core.service.discoveries.tables
import core.service.duties.tables
import core.service.jobs.metrics_tables
import core.service.jobs.tables
import core.service.publications.tables
import core.service.questions.tables
import core.service.registry.tables
import core.service.retention.tables
import core.service.samples.tables
import core.service.sources.hub_tables
import core.service.sweeps.tables
import core.service.teams.tables
import core.service.triggers.tables
import core.service.webhooks.tables  # noqa: F401
from core.database import Base, create_engine_from
from core.settings import Settings


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    engine = create_engine_from(Settings(), "migration")
    with engine.connect() as own:
        run(own)
    engine.dispose()
