"""Figures of discoveries, for metrics."""

from collections.abc import Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.service.discoveries.states import OPEN
from core.service.discoveries.tables import DiscoveryRow, DiscoveryTotalRow


def open_discoveries(session: Session) -> Mapping[str, int]:
    """Return how many discoveries there are in each state that is not an end."""
    counted = select(DiscoveryRow.state, func.count()).where(DiscoveryRow.state.in_(OPEN)).group_by(DiscoveryRow.state)
    return dict.fromkeys(OPEN, 0) | dict(iter(session.execute(counted)))


def discovery_totals(session: Session) -> Sequence[DiscoveryTotalRow]:
    return session.scalars(select(DiscoveryTotalRow).order_by(DiscoveryTotalRow.error_code)).all()
