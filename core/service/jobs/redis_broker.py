"""Celery's `redis://` transport, read by a plain loop in place of an event loop.

With the event loop everything between a worker and its pool's process passes through the loop, and that stands still
while Redis is away. Read this way the pool has threads of its own, so that a worker can look for jobs by itself.
"""

import gc
from typing import Any

from kombu.transport import redis
from redis.exceptions import OutOfMemoryError

from core.service.jobs.folder_broker import LONGEST_WAIT_SECONDS

_WAIT_OF_BUSY_SECONDS = 0.05
"""Seconds that a worker busy with a job waits at most: nothing wakes it when it may take the next hint."""


class RedisChannel(redis.Channel):
    def _after_fork(self) -> None:
        """Close the connection too, which Celery leaves open in a pool's process that replaces one that was killed.

        While that has a copy, the worker is told of it again and again once Redis has gone, takes this for a hint as
        soon as it can take one, reads where nothing is connected, and ends.
        """
        if "client" in self.__dict__:
            self.client.connection.disconnect()
        super()._after_fork()  # type: ignore[no-untyped-call]
        gc.collect()  # pools forget their connections in a forked process, and are parts of cycles


class RedisTransport(redis.Transport):
    """A Redis that is full is away like any other: a worker waits for it, where Celery's own would end."""

    Channel = RedisChannel
    implements = redis.Transport.implements.extend(asynchronous=False)
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Return to the consumer's loop soon: there it sees that it is to end, or that it may take the next hint."""
        is_busy = not all(channel.qos.can_consume() for channel in self.channels)
        longest = _WAIT_OF_BUSY_SECONDS if is_busy else LONGEST_WAIT_SECONDS
        timeout = min(timeout or longest, longest)
        super().drain_events(connection, timeout=timeout)  # type: ignore[no-untyped-call]
