"""Metrics for Prometheus: of this process, and of the fleet as the database knows it."""

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.dependencies import State
from api.http.routing import Router

router = Router(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text."}},
)
def metrics(state: State) -> Response:
    """Figures in Prometheus' text format. Needs no key; `SECATEUR_METRICS_PORT` moves it to a port of its own."""
    return Response(generate_latest(state.metrics), media_type=CONTENT_TYPE_LATEST)
