"""Ways between the services and what they depend on, which can fall silent: no byte, no end, no refusal."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

_CHUNK_BYTES = 2**16
_OPEN_SECONDS = 10

Answer = TypeVar("Answer")
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(Protocol):
    """Something that takes connections at a port of its own."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...


class Network:
    """The thread in which all ways live. Held as a context; what is called from outside is passed to it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._servers: list[asyncio.Server] = []
        self._served: set[asyncio.Task[None] | None] = set()  # the loop's own references are weak

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(self, way: Way) -> int:
        """Return the port on loopback at which it takes connections from now on."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            self._served.add(task)
            try:
                await way.serve(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
                pass  # one of its ends is gone, or we end it
            finally:
                writer.transport.abort()
                self._served.discard(task)

        async def start() -> int:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        return self.do(start())

    def do(self, work: Coroutine[None, None, Answer]) -> Answer:
        """Have the thread do it."""
        done: Future[Answer] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return done.result(_OPEN_SECONDS)

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        await asyncio.sleep(0)
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # a connection that was just accepted begins only now


class Wire:
    """Passes what comes to a socket file or a port of loopback. A server that is away shows as a connection that ends
    at once.
    """

    def __init__(self, network: Network, target: Path | int) -> None:
        self._network = network
        self._target = target
        self._passes = asyncio.Event()
        self._passes.set()
        self._old: set[asyncio.Task[None]] = set()
        """Connections that were made while all passed."""
        self.port = network.open(self)

    def fall_silent(self) -> None:
        """Hold every byte, and every end, of the connections there are and of new ones."""

        async def hold() -> None:
            self._passes.clear()

        self._network.do(hold())

    def heal(self) -> None:
        """Drop the connections that were there when it fell silent; those made since go on."""

        async def drop() -> None:
            for task in self._old:
                task.cancel()
            self._passes.set()

        self._network.do(drop())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        task = asyncio.current_task()
        assert task is not None
        self._old.add(task)
        theirs: asyncio.StreamWriter | None = None
        try:
            from_them, theirs = await self._reach()
            pumps = [
                asyncio.create_task(self._pump(reader, theirs)),
                asyncio.create_task(self._pump(from_them, writer)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
        finally:
            self._old.discard(task)
            if theirs is not None:
                theirs.transport.abort()

    async def _reach(self) -> Streams:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(str(self._target))
        return await asyncio.open_connection("127.0.0.1", self._target)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # an end without a word is an end
            while data := await source.read(_CHUNK_BYTES):
                await self._passes.wait()
                target.write(data)
                await target.drain()
        await self._passes.wait()
        with contextlib.suppress(OSError):
            target.close()
            await target.wait_closed()
