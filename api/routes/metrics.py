"""Route of the metrics for Prometheus: of this process, and of the fleet from the database."""

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
    """Return the metrics in Prometheus' text format.

    No key is needed; `SECATEUR_METRICS_PORT` moves this to a port of its own.
    """
    return Response(generate_latest(state.metrics), media_type=CONTENT_TYPE_LATEST)
