"""Celery's `redis://` transport, read by a plain loop instead of an event loop.

With the event loop, all messages between a worker and its pool's process pass through the loop, and the loop stops
while Redis is unavailable. With a plain loop the pool has threads of its own, so the worker can look for jobs itself.
"""

import gc
from typing import Any

from kombu.transport import redis
from redis.exceptions import OutOfMemoryError

from core.service.jobs.folder_broker import LONGEST_WAIT_SECONDS

_WAIT_OF_BUSY_SECONDS = 0.05
"""Longest wait in seconds of a busy worker: nothing wakes it when it may take the next hint."""


class RedisChannel(redis.Channel):
    def _after_fork(self) -> None:
        """Also close the connection that Celery leaves open in a replacement process of the pool.

        While that process has a copy of the connection, the worker keeps getting its events after Redis has gone. The
        worker takes them for a hint as soon as it is free, reads from a closed connection, and ends.
        """
        if "client" in self.__dict__:
            self.client.connection.disconnect()
        super()._after_fork()  # type: ignore[no-untyped-call]
        gc.collect()  # Pools forget their connections in a forked process, and are parts of reference cycles.


class RedisTransport(redis.Transport):
    """Transport that treats a full Redis as unavailable.

    A worker waits for it, where Celery's own transport would end.
    """

    Channel = RedisChannel
    implements = redis.Transport.implements.extend(asynchronous=False)
    connection_errors = (*redis.Transport.connection_errors, OutOfMemoryError)

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:
        """Return to the consumer's loop soon, so that it notices a request to stop, or takes the next hint."""
        is_busy = not all(channel.qos.can_consume() for channel in self.channels)
        longest = _WAIT_OF_BUSY_SECONDS if is_busy else LONGEST_WAIT_SECONDS
        timeout = min(timeout or longest, longest)
        super().drain_events(connection, timeout=timeout)  # type: ignore[no-untyped-call]
