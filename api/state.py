"""State of an API process, built once from the settings and shared by all requests."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread
from celery import Celery
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session, sessionmaker

from api.process.listener import EventListener
from api.process.metrics import metrics_registry
from api.process.open_streams import OpenStreams
from api.process.rate_limits import Rates
from api.process.readiness import ReadinessChecks
from api.process.refused_keys import RefusedKeys
from core.database import session_factory
from core.http.address_policy import AddressPolicy
from core.service.jobs.broker import celery_app
from core.service.jobs.hints import SendHint, hint_sender
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.hub_lookup import HubFindings, HubLookup
from core.service.registry.check_slots import CheckSlots
from core.service.sources.hub_search import HubSearch
from core.service.teams.installation import open_own_store
from core.service.teams.openid.provider import Provider
from core.service.teams.openid.workloads import WorkloadIdentities
from core.service.teams.principal import Actor
from core.service.teams.server_secret import server_secret
from core.service.triggers.context import TriggerContext
from core.settings import Settings
from core.signing import public_keys
from core.storage import OwnedStore
from secateur_wire.provenance import SigningKey

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class TeamSlots:
    """Threads for one kind of work. A team may use only some of them, so that it does not block other teams."""

    def __init__(self, slots: int, slots_of_a_team: int) -> None:
        self._slots = CapacityLimiter(slots)
        self._slots_of_a_team = slots_of_a_team
        self._teams: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()

    async def run(self, team_id: str, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return the result of a function, called in a thread once both the team and the process have a free slot."""
        team = self._teams.setdefault(team_id, CapacityLimiter(self._slots_of_a_team))
        async with team:
            return await to_thread.run_sync(function, *arguments, limiter=self._slots)


@dataclass(frozen=True)
class ApiState:
    """State that the routes share.

    `send_hint` tells workers of a new job, `listener` wakes streams of a job's events, which `streams` counts, `rates`
    limits callers, `refused_keys` records refused keys, `hub` is asked before a request's transaction begins,
    `hub_search` finds models there, `openid` is the provider of people's accounts, `workloads` has the issuers of
    pipelines' tokens, `address_policy` checks whether a URL may be called, `triggers` has the resources for firing, and
    `check_slots` limits checks of datasets and models.
    """

    settings: Settings
    secret: bytes
    sessions: sessionmaker[Session]
    store: OwnedStore
    broker: Celery
    send_hint: SendHint
    listener: EventListener
    streams: OpenStreams
    rates: Rates
    refused_keys: RefusedKeys
    readiness: ReadinessChecks
    metrics: CollectorRegistry
    signing_keys: Sequence[SigningKey]
    hub: HubLookup
    hub_search: HubSearch
    address_policy: AddressPolicy
    triggers: TriggerContext
    check_slots: CheckSlots
    openid: Provider | None
    workloads: WorkloadIdentities
    part_slots: TeamSlots = field(default_factory=lambda: TeamSlots(4, slots_of_a_team=2))
    """Slots for parts of uploads on their way to the store, each in memory, and for the check of a complete file;
    arriving parts are on disk."""
    parser_slots: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(1))
    """Slots for bodies that are parsed in a thread: two threads at once would be no faster, and delay other work."""
    watch_slots: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(3))
    """Slots for event streams that read new events."""
    search_slots: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))
    """Slots for searches on the hub, each in a thread of its own; no request waits for one."""

    def request(self, session: Session, caller: Actor, findings: HubFindings | None = None) -> RequestContext:
        """Return the context in which a caller's request is checked; `findings` are its results from the hub."""
        return RequestContext(session, caller, self.store, self.settings, findings or HubFindings())


def build_state(settings: Settings) -> ApiState:
    broker = celery_app(settings)
    sessions = session_factory(settings)
    secret = server_secret(settings)
    store = open_own_store(settings, sessions)
    check_slots = CheckSlots(settings.check_memory_bytes)
    hub = HubLookup(settings, sessions, check_slots)
    return ApiState(
        settings=settings,
        secret=secret,
        sessions=sessions,
        store=store,
        broker=broker,
        send_hint=hint_sender(broker),
        listener=EventListener(settings),
        streams=OpenStreams(settings),
        rates=Rates(settings),
        refused_keys=RefusedKeys(sessions),
        readiness=ReadinessChecks(sessions, store, broker, worker_fresh_seconds=settings.worker_fresh_seconds),
        metrics=metrics_registry(settings, sessions, store, broker),
        signing_keys=public_keys(settings),
        hub=hub,
        hub_search=HubSearch(settings),
        address_policy=AddressPolicy(tuple(settings.webhook_allowed_networks)),
        triggers=TriggerContext(sessions=sessions, store=store, settings=settings, hub=hub, secret=secret),
        check_slots=check_slots,
        openid=Provider(settings) if settings.oidc_issuer else None,
        workloads=WorkloadIdentities(settings, secret),
    )
