"""Clients that mean harm, or are broken: each attack on a server of HTTP/1.1, and what became of it."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

Figures = dict[str, str]


@dataclass(frozen=True)
class Target:
    """A server and a key that opens it; the empty key is none."""

    host: str
    port: int
    key: str

    def head(self, method: str, path: str, *headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", *headers]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def long_bodies(target: Target, *, clients: int, size: int) -> Figures:
    """Bodies of `size` bytes, half of them announced, half in chunks without an end."""

    async def send(number: int) -> str:
        announced = number % 2 == 0
        header = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
        async with target.connection() as (reader, writer):
            answered = asyncio.create_task(_status(reader))  # the answer comes before the end, and goes with a reset
            writer.write(target.head("POST", "/v1/jobs", "Content-Type: application/json", header))
            with contextlib.suppress(ConnectionError):
                for _ in range(size // 65536):
                    piece = b" " * 65536
                    writer.write(piece if announced else b"10000\r\n" + piece + b"\r\n")
                    await writer.drain()
            return await answered

    return _counted(await asyncio.gather(*(send(number) for number in range(clients))))


async def deep_json(target: Target, *, clients: int, levels: int) -> Figures:
    """Bodies of lists in lists."""
    body = b'{"parameters":' + b"[" * levels + b"]" * levels + b"}"

    async def send() -> str:
        async with target.connection() as (reader, writer):
            head = target.head("POST", "/v1/jobs", "Content-Type: application/json", f"Content-Length: {len(body)}")
            writer.write(head + body)
            return await _status(reader)

    return _counted(await asyncio.gather(*(send() for _ in range(clients))))


async def freezing(target: Target, path: str, *, clients: int, body: bytes, seconds: float) -> Figures:
    """Bodies that take long to parse, one after the other from each client, for so many seconds."""
    ends = time.monotonic() + seconds
    head = target.head("POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}")

    async def send() -> list[str]:
        statuses = []
        while time.monotonic() < ends:
            async with target.connection() as (reader, writer):
                answered = asyncio.create_task(_status_line(reader))
                with contextlib.suppress(ConnectionError):
                    writer.write(head + body)
                    await writer.drain()
                statuses.append(await answered)
        return statuses

    return _counted([status for each in await asyncio.gather(*(send() for _ in range(clients))) for status in each])


async def dripping(target: Target, *, clients: int, start: bytes, drop: bytes, pause: float, most: float) -> Figures:
    """`start`, then `drop` after `drop`, until the server ends it; `still open` where it has not after `most` seconds.

    The figures say what came back and how long the connections held.
    """

    async def drip() -> tuple[str, float]:
        began = time.monotonic()
        async with target.connection() as (reader, writer):
            ended = asyncio.create_task(_status(reader))
            writer.write(start)
            while not ended.done() and time.monotonic() - began < most:
                with contextlib.suppress(ConnectionError):
                    writer.write(drop)
                    await writer.drain()
                await asyncio.wait([ended], timeout=pause)
            if not ended.done():
                ended.cancel()
                return "still open", time.monotonic() - began
            return await ended, time.monotonic() - began

    told = await asyncio.gather(*(drip() for _ in range(clients)))
    return _counted([status for status, _ in told]) | {"longest": f"{max(seconds for _, seconds in told):.1f} s"}


async def watchers(
    target: Target, *, job: str, clients: int, events: int, tell: Callable[[int], None], most: float
) -> Figures:
    """Watchers of a job to which `tell(n)` adds an event with the number n, `events` times; one more watcher never
    reads. The figures say how many got every event, and whether the one that does not read was let go.
    """
    path = f"/v1/jobs/{job}/events"
    begun = asyncio.Semaphore(0)
    last = f'"number":{events - 1}'.encode()

    async def watch() -> bool:
        async with target.connection() as (reader, writer):
            writer.write(target.head("GET", path, "Accept: text/event-stream"))
            is_first = True
            async for line in reader:
                if is_first:
                    begun.release()
                    is_first = False
                if last in line.replace(b" ", b""):
                    return True
            return False

    async def stall() -> float:
        """Until the server gives up: seconds; `most` where it does not."""
        stalled = socket.create_connection((target.host, target.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        _, writer = await asyncio.open_connection(sock=stalled)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(target.head("GET", path, "Accept: text/event-stream"))
        began = time.monotonic()
        try:
            while time.monotonic() - began < most:
                await asyncio.sleep(0.1)
                writer.write(b"\r\n")  # a connection that is gone answers with a reset
                if writer.transport.is_closing():
                    break
            return time.monotonic() - began
        finally:
            writer.transport.abort()

    stalled = asyncio.create_task(stall())
    watching = [asyncio.create_task(watch()) for _ in range(clients)]
    for _ in range(clients):
        await begun.acquire()
    began = time.monotonic()
    for number in range(events):
        await asyncio.to_thread(tell, number)
    done, waiting = await asyncio.wait(watching, timeout=most)
    seconds = time.monotonic() - began
    for task in waiting:
        task.cancel()
    complete = sum(task.result() for task in done)
    held = await stalled
    return {
        "got every event": f"{complete} of {clients}",
        "last one after": f"{seconds:.1f} s",
        "stalled reader": "still held" if held >= most else f"let go after {held:.1f} s",
    }


async def _status(reader: asyncio.StreamReader) -> str:
    """Return the status of an answer once the connection is over, or `closed` or `reset` where none came."""
    status = await _status_line(reader)
    with contextlib.suppress(ConnectionError):
        await reader.read()
    return status


async def _status_line(reader: asyncio.StreamReader) -> str:
    """Return the status of an answer as soon as it comes, or `closed` or `reset` where none does."""
    try:
        line = await reader.readline()
    except ConnectionError:
        return "reset"
    return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"


def _counted(outcomes: Sequence[str]) -> Figures:
    return {outcome: str(count) for outcome, count in sorted(Counter(outcomes).items())}
