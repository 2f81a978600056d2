"""Client of the service: blocking as `Client`, for event loops as `AsyncClient`, with the same methods."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from secateur.configuration import resolve
from secateur.operations import Operations
from secateur.transport.asynchronous import AsyncTransport
from secateur.transport.blocking import BlockingTransport, run
from secateur.transport.retries import RETRIES, TIMEOUT_SECONDS, OnRetry, RetryPolicy

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class AsyncClient(Operations):
    """A client for asyncio or trio, closed at the end (or used in an `async with`).

    `url` and `api_key` are optional: see `secateur.configuration`. `timeout` is the wait in seconds for an answer;
    calls that take the server long have a longer one. A call that fails temporarily is repeated up to `retries` times,
    and `on_retry` gets the failure and the pause.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        on_retry: OnRetry | None = None,
    ) -> None:
        super().__init__(AsyncTransport(resolve(url, api_key), RetryPolicy(timeout, retries, on_retry)))

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _waits(
    method: Callable[Concatenate[Operations, Arguments], Coroutine[Any, Any, Result]],
) -> "Callable[Concatenate[Client, Arguments], Result]":
    """Turn a coroutine method of `Operations` into a blocking one."""

    def waiting(self: "Client", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return run(method(self._operations, *args, **kwargs))

    return _described(waiting, method)


def _iterates(
    method: Callable[Concatenate[Operations, Arguments], AsyncIterator[Result]],
) -> "Callable[Concatenate[Client, Arguments], Iterator[Result]]":
    """Turn an asynchronous iterator of `Operations` into a blocking one."""

    def iterating(self: "Client", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Iterator[Result]:
        return _items(method(self._operations, *args, **kwargs))

    return _described(iterating, method)


def _items(items: AsyncIterator[Result]) -> Iterator[Result]:
    try:
        while True:
            try:
                yield run(_next(items))
            except StopAsyncIteration:
                return
    finally:
        if inspect.isasyncgen(items):
            run(items.aclose())


async def _next(items: AsyncIterator[Result]) -> Result:
    return await anext(items)


Described = TypeVar("Described", bound=Callable[..., Any])


def _described(function: Described, method: Callable[..., Any]) -> Described:
    functools.update_wrapper(function, method)
    function.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    function.__qualname__ = f"Client.{method.__name__}"
    return function


class Client:
    """A blocking client, for one thread at a time, closed at the end (or used in a `with`).

    `url` and `api_key` are optional: see `secateur.configuration`. `timeout` is the wait in seconds for an answer;
    calls that take the server long have a longer one. A call that fails temporarily is repeated up to `retries` times,
    and `on_retry` gets the failure and the pause. Every method raises `secateur.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        on_retry: OnRetry | None = None,
    ) -> None:
        self._transport = BlockingTransport(resolve(url, api_key), RetryPolicy(timeout, retries, on_retry))
        self._operations = Operations(self._transport)

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        run(self._transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    methods = _waits(Operations.methods)

    models = _iterates(Operations.models)
    model = _waits(Operations.model)
    add_model = _waits(Operations.add_model)
    upload_model = _waits(Operations.upload_model)
    delete_model = _waits(Operations.delete_model)
    inspect = _waits(Operations.inspect)
    discovery = _waits(Operations.discovery)
    plan = _waits(Operations.plan)

    part_costs = _waits(Operations.part_costs)
    measure_part_costs = _waits(Operations.measure_part_costs)
    request_samples = _waits(Operations.request_samples)
    sample_request = _waits(Operations.sample_request)
    wait_for_samples = _waits(Operations.wait_for_samples)

    datasets = _iterates(Operations.datasets)
    dataset = _waits(Operations.dataset)
    add_dataset = _waits(Operations.add_dataset)
    upload_dataset = _waits(Operations.upload_dataset)
    delete_dataset = _waits(Operations.delete_dataset)

    uploads = _iterates(Operations.uploads)
    upload = _waits(Operations.upload)
    abandon_upload = _waits(Operations.abandon_upload)

    submit = _waits(Operations.submit)
    jobs = _iterates(Operations.jobs)
    job = _waits(Operations.job)
    cancel = _waits(Operations.cancel)
    retry = _waits(Operations.retry)
    attempts = _iterates(Operations.attempts)
    events = _iterates(Operations.events)
    wait = _waits(Operations.wait)
    report = _waits(Operations.report)
    artifacts = _waits(Operations.artifacts)
    download = _waits(Operations.download)
    download_archive = _waits(Operations.download_archive)
    ways_to_run = _waits(Operations.ways_to_run)
    delete_artifacts = _waits(Operations.delete_artifacts)

    submit_sweep = _waits(Operations.submit_sweep)
    sweeps = _iterates(Operations.sweeps)
    sweep = _waits(Operations.sweep)
    sweep_results = _waits(Operations.sweep_results)
    cancel_sweep = _waits(Operations.cancel_sweep)
    resume_sweep = _waits(Operations.resume_sweep)
    wait_sweep = _waits(Operations.wait_sweep)

    triggers = _iterates(Operations.triggers)
    trigger = _waits(Operations.trigger)
    create_trigger = _waits(Operations.create_trigger)
    update_trigger = _waits(Operations.update_trigger)
    rotate_trigger = _waits(Operations.rotate_trigger)
    delete_trigger = _waits(Operations.delete_trigger)
    fire_trigger = _waits(Operations.fire_trigger)
    preview_trigger = _waits(Operations.preview_trigger)
    firings = _iterates(Operations.firings)
    trigger_versions = _iterates(Operations.trigger_versions)

    publish = _waits(Operations.publish)
    publications = _iterates(Operations.publications)
    publication = _waits(Operations.publication)
    cancel_publication = _waits(Operations.cancel_publication)
    wait_for_publication = _waits(Operations.wait_for_publication)
    retention = _waits(Operations.retention)
    set_retention = _waits(Operations.set_retention)
    clear_retention = _waits(Operations.clear_retention)
    preview_retention = _waits(Operations.preview_retention)

    keys = _iterates(Operations.keys)
    create_key = _waits(Operations.create_key)
    rotate_key = _waits(Operations.rotate_key)
    revoke_key = _waits(Operations.revoke_key)
    workload_rules = _iterates(Operations.workload_rules)
    create_workload_rule = _waits(Operations.create_workload_rule)
    delete_workload_rule = _waits(Operations.delete_workload_rule)
    team = _waits(Operations.team)
    people = _iterates(Operations.people)
    hub_token = _waits(Operations.hub_token)
    set_hub_token = _waits(Operations.set_hub_token)
    remove_hub_token = _waits(Operations.remove_hub_token)
    audit = _iterates(Operations.audit)
    workers = _iterates(Operations.workers)
    queues = _iterates(Operations.queues)
    identifiers = _waits(Operations.identifiers)

    webhooks = _iterates(Operations.webhooks)
    webhook = _waits(Operations.webhook)
    create_webhook = _waits(Operations.create_webhook)
    change_webhook = _waits(Operations.change_webhook)
    delete_webhook = _waits(Operations.delete_webhook)
    rotate_webhook_secret = _waits(Operations.rotate_webhook_secret)
    ping_webhook = _waits(Operations.ping_webhook)
    deliveries = _iterates(Operations.deliveries)
    delivery = _waits(Operations.delivery)
    replay_delivery = _waits(Operations.replay_delivery)
    replay_failed = _waits(Operations.replay_failed)
