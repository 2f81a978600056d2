"""Steps of a sweep, for the dispatcher: results of ended jobs are recorded, the next job is queued.

Each step is one transaction that holds the sweep's row and queues one job at most, together with its point's row. A
dispatcher that is killed in the middle has done the step or not; two of them take turns, or pass each other by.
"""

from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.errors import SecateurError
from core.service.duties.isolation import IsolatedRows, RowTask, is_tried
from core.service.duties.team_threads import TeamThreads
from core.service.jobs.hints import SendHint, hint_or_note
from core.service.jobs.resolution.hub_lookup import HubLookup
from core.service.sweeps.records import change_status
from core.service.sweeps.steps import Coming, coming_bodies, step
from core.service.sweeps.tables import SweepRow
from core.service.sweeps.validation import find_on_hub, names_on_hub
from core.settings import Settings
from core.storage import Store

DUTY: Final = "sweeps"


def advance_sweeps(
    sessions: sessionmaker[Session],
    settings: Settings,
    *,
    store: Store,
    hub: HubLookup,
    send_hint: SendHint,
    threads: TeamThreads | None = None,
) -> int:
    """Take every running sweep as far as it goes now; returns how many jobs were queued here.

    Sweeps that name something on the hub come last; with `threads` they are advanced there, and not waited for.
    """
    rows = IsolatedRows(sessions, DUTY)
    under_way = [] if threads is None else threads.under_way(DUTY)
    with transaction(sessions) as session:
        running = session.execute(
            select(SweepRow.id, SweepRow.team_id)
            .where(SweepRow.status == "running", SweepRow.id.not_in(under_way), is_tried(DUTY, SweepRow.id))
            .order_by(SweepRow.id)
        ).all()
    tasks = []
    for sweep_id, team_id in running:
        turn = _Turn(sessions, settings, store, hub, send_hint, sweep_id)
        tasks.append(RowTask(sweep_id, turn.advance, _park, team_id, turn.look))
    return sum(rows.run_all(tasks, threads))


def _park(sweep_id: str, session: Session, reason: SecateurError) -> bool:
    row = session.get(SweepRow, sweep_id, with_for_update={"key_share": True})
    if row is not None and row.status == "running":
        change_status(session, row, "failed", error=reason.problem())
    return True


class _Turn:
    """Turn of one sweep. The hub is asked while no row is held."""

    def __init__(
        self,
        sessions: sessionmaker[Session],
        settings: Settings,
        store: Store,
        hub: HubLookup,
        send_hint: SendHint,
        sweep_id: str,
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._store = store
        self._hub = hub
        self._send_hint = send_hint
        self._sweep_id = sweep_id
        self._coming: Coming | None = None
        self._may_wait = False

    def look(self) -> bool:
        """Read what the next step needs; return whether the hub has to be asked for it."""
        with transaction(self._sessions) as session:
            self._coming = coming_bodies(session, self._sweep_id)
        self._may_wait = self._asks_hub()
        return self._may_wait

    def advance(self) -> int:
        """Take the sweep as far as it goes, or to where it would wait and did not before; how many jobs it queued."""
        queued = 0
        while True:
            findings = None
            if self._coming is not None:
                team_id, bodies = self._coming
                findings = find_on_hub(self._hub, team_id, bodies)
            with transaction(self._sessions) as session:
                stepped = step(session, self._sweep_id, store=self._store, settings=self._settings, hub=findings)
            if stepped.job is not None:
                queued += 1
                hint_or_note(self._send_hint, self._sessions, stepped.job.id, stepped.job.queue)
            if not stepped.goes_on:
                return queued
            with transaction(self._sessions) as session:
                self._coming = coming_bodies(session, self._sweep_id)
            if not self._may_wait and self._asks_hub():
                return queued

    def _asks_hub(self) -> bool:
        return self._coming is not None and any(names_on_hub(self._hub, body) for body in self._coming[1])
