"""Traces: from a request through the queue to the runner's tasks, carried as W3C trace context.

Without `otlp_endpoint` nothing of OpenTelemetry is imported and nothing is measured. A trace passes through the queue
in `jobs.traceparent`, and reaches the runner as TRACEPARENT in its environment. The runner has no network and sends
nothing: the process that started it measures its tasks.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from core.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Kind = Literal["server", "consumer", "internal"]
TRACES_PATH = "/v1/traces"

_provider: "TracerProvider | None" = None


def configure(settings: Settings, service: str) -> None:
    """Send spans to the configured collector, as `secateur-<service>`; do nothing if none is configured.

    Call this at the start of a process, after any fork, because a thread does the sending.
    """
    global _provider
    if settings.otlp_endpoint is None or _provider is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = {"service.name": f"secateur-{service}", "service.version": version("secateur-server")}
    _provider = TracerProvider(resource=Resource.create(resource))
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint.rstrip("/") + TRACES_PATH, timeout=5)
    _provider.add_span_processor(BatchSpanProcessor(exporter))


def flush() -> None:
    """Send what has been measured so far; a collector that is away costs at most two seconds."""
    if _provider is not None:
        _provider.force_flush(2000)


def shutdown() -> None:
    """Send the remaining spans and stop sending."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


@contextmanager
def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator["Span | None"]:
    """Measure the body as a span, a child of the current one or of `parent`; yields None if traces are off.

    `parent` is a W3C traceparent; an unreadable one begins a new trace.
    """
    if _provider is None:
        yield None
        return
    from opentelemetry.trace import SpanKind

    with _provider.get_tracer("secateur").start_as_current_span(
        name, context=_context(parent), kind=SpanKind[kind.upper()], attributes=_known(attributes)
    ) as current:
        yield current


def record(
    name: str, seconds: float, *, attributes: Mapping[str, Any] | None = None, parent: str | None = None
) -> None:
    """Record a span that has just ended and took `seconds`."""
    if _provider is None:
        return
    now = time.time_ns()
    ended = _provider.get_tracer("secateur").start_span(
        name, context=_context(parent), attributes=_known(attributes), start_time=now - int(seconds * 1e9)
    )
    ended.end(now)


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the current span; None outside of a span, or if traces are off."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace's id, for log lines."""
    return traceparent.split("-")[1] if traceparent else None


def _context(traceparent: str | None) -> Any:
    if traceparent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _known(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (attributes or {}).items() if value is not None}
