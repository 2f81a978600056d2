"""Detection of a database or Redis that vanished without closing its connections: power loss, lost packets.

The kernel probes idle connections, and gives up connections whose data nobody acknowledges. Both take
`peer_lost_seconds`, and at most a fifth more. Unix sockets need no probes: there the kernel reports the end at once.
"""

import socket
from typing import Any

from core.settings import Settings

_PROBES = 3


def _idle_and_interval(settings: Settings) -> tuple[int, int]:
    """Return the idle seconds before the first probe, and the seconds between probes."""
    interval = max(1, settings.peer_lost_seconds // 5)
    return max(1, settings.peer_lost_seconds - _PROBES * interval), interval


def postgres_keepalives(settings: Settings) -> dict[str, int]:
    """Return libpq's socket options for a connection."""
    idle, interval = _idle_and_interval(settings)
    return {
        "keepalives": 1,
        "keepalives_idle": idle,
        "keepalives_interval": interval,
        "keepalives_count": _PROBES,
        "tcp_user_timeout": settings.peer_lost_seconds * 1000,
    }


def redis_keepalives(settings: Settings) -> dict[str, Any]:
    """Return the TCP socket options of Redis clients, and the interval at which an idle connection is checked."""
    idle, interval = _idle_and_interval(settings)
    values = {
        "TCP_KEEPIDLE": idle,
        "TCP_KEEPINTVL": interval,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": settings.peer_lost_seconds * 1000,
    }
    options = {
        getattr(socket, name): value for name, value in values.items() if hasattr(socket, name)
    }  # options that this system knows
    return {
        "socket_keepalive": True,
        "socket_keepalive_options": options,
        "health_check_interval": max(1, settings.peer_lost_seconds // 2),
    }
