"""Logging of every process: one line an event to stderr, logfmt or JSON, the service's own and the libraries' alike.

The code that starts something binds its context (`request_id`; `worker`, `job`, `attempt`) with
`structlog.contextvars`, and every line written meanwhile carries it.
"""

import logging
import sys

import structlog
from structlog.typing import Processor

from core.settings import Settings

OURS = ("api", "core", "worker")
"""Packages that log from INFO up; libraries log from WARNING up."""

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Handler that writes to the current `sys.stderr`."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr


def configure_logs(settings: Settings) -> None:
    """Set up logging at the start of a process; calling it again does no harm.

    Tracebacks are plain: they never hold the values of variables, keys among them.
    """
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for before in [each for each in root.handlers if isinstance(each, _Stderr)]:
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error"):  # it has put up handlers of its own before the application is made
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # `api.http.request_log` writes that line, with more in it
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
