"""A dispatcher that advances sweeps and does nothing else: `python -m tests.sweeps.advancing SETTINGS`."""

import sys

from core.database import session_factory
from core.service.jobs.resolution.context import ServiceContext
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.sweeps.advance import advance_sweeps
from core.settings import Settings
from core.storage import open_store


def main() -> None:
    settings = Settings.model_validate_json(sys.argv[1])
    sessions = session_factory(settings)
    context = ServiceContext(sessions, open_store(settings), settings, HubLookup(settings, sessions))
    while True:
        advance_sweeps(context, send_hint=lambda job, queue: None)


if __name__ == "__main__":
    main()
