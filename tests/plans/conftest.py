import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.settings import Settings
from core.storage import Store
from tests.plans.desk import Desk


@pytest.fixture
def desk(sessions: sessionmaker[Session], settings: Settings, store: Store, team: str) -> Desk:
    return Desk(sessions, settings, store, team)
