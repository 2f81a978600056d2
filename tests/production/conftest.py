"""PostgreSQL and Redis from system packages, an S3 service, and the services of docker-compose.yml as processes."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import psycopg
import pytest

from bench.parts import free_port
from tests.production import manifests
from tests.production.files import Image, compose, filled_in, image
from tests.production.image_environment import write_environment
from tests.production.programs import needed
from worker.processes import ChildProcess, run, spawn

Answer = TypeVar("Answer")
SYSTEM_USER = "postgres"
PASSWORD = "a p@ss/word:50%#?"
"""Password of PostgreSQL and of Redis: any will do."""
ENOUGH_DISK = {"SECATEUR_DISK_WATERMARK_BYTES": "1000000"}


def eventually(look: Callable[[], Answer | None], seconds: float = 60) -> Answer:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.3)  # each look may be a process, and what is awaited needs the cores
    raise AssertionError(f"not within {seconds} s")


@dataclass
class Service:
    """The service of docker-compose.yml, on this machine: every host is loopback, every volume a folder.

    No part has more programs and modules than its image.
    """

    folder: Path
    ports: dict[str, int]
    variables: dict[str, str]
    programs: dict[str, Path]
    """Each image's own PATH."""
    started: dict[str, ChildProcess] = field(default_factory=dict)

    def target(self, name: str) -> str:
        target: str = compose()["services"][name]["build"]["target"]
        return target

    def image_of(self, name: str) -> Image:
        return image(self.target(name))

    def said(self, name: str) -> dict[str, str]:
        """Return the environment that the image and the file give a part."""
        said = dict(self.image_of(name).environment)
        for key, value in compose()["services"][name]["environment"].items():
            if value is not None:
                said[key] = filled_in(value, self.variables)
        return said

    def environment(self, name: str) -> dict[str, str]:
        said = self.said(name)
        home, temporary = self.folder / name, self.folder / f"{name}-tmp"
        home.mkdir(exist_ok=True)
        temporary.mkdir(exist_ok=True)
        for host, port in self.ports.items():
            said = {key: self._on_loopback(value, host, port) for key, value in said.items()}
        own = {key: value.replace("/data", str(home)) for key, value in said.items()}
        return own | {
            "PATH": str(self.programs[self.target(name)]),
            "TMPDIR": str(temporary),
            "UVICORN_PORT": str(self.ports["api"]),
            "SECATEUR_METRICS_PORT": str(self.ports["metrics"]),
            "OMP_NUM_THREADS": "1",
            **ENOUGH_DISK,
        }

    def _on_loopback(self, value: str, host: str, port: int) -> str:
        for own in (5432, 6379, 7070):
            value = value.replace(f"{host}:{own}", f"127.0.0.1:{port}")
        return value

    def command(self, name: str) -> list[str]:
        return list(compose()["services"][name].get("command") or self.image_of(name).command)

    def start(self, name: str) -> None:
        """Anew: what is in /tmp does not outlive a container."""
        shutil.rmtree(self.folder / f"{name}-tmp", ignore_errors=True)
        with open(self.folder / f"{name}.log", "ab") as log:
            process = spawn(
                self.command(name),
                name=name,
                stdout=log,
                stderr=subprocess.STDOUT,
                environment=self.environment(name),
            )
        self.started[name] = process

    def stop(self, name: str, seconds: float) -> int | None:
        """SIGTERM, as `docker stop` does; the exit code, None where it took longer than `seconds`."""
        process = self.started.pop(name)
        process.send(signal.SIGTERM)
        code = process.wait(seconds)
        process.end()
        return code

    def run(self, name: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return run(command or self.command(name), name=name, environment=self.environment(name))

    def has_begun(self, name: str) -> bool:
        """Tell whether a part gave a first sign of life: it takes connections, or touched its file."""
        if name == "api":
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.ports["api"])) == 0
        return any((self.folder / name).glob("*.alive"))

    def healthcheck(self, name: str) -> list[str]:
        own: list[str] | None = compose()["services"][name].get("healthcheck", {}).get("test")
        return own or self.image_of(name).healthcheck

    def is_healthy(self, name: str) -> bool:
        asked = self.healthcheck(name)
        return self.run(name, [word for word in asked if word != "CMD"]).returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"


class KubernetesService(Service):
    """The same of deploy/kubernetes: what its containers run and see, and how they are asked whether they live."""

    def container(self, name: str) -> manifests.Container:
        return manifests.containers(manifests.BASE)[name]

    def said(self, name: str) -> dict[str, str]:
        own = {"SECATEUR_STORE_ENDPOINT": "http://store:7070"}  # an overlay's, where the store is not Amazon's
        secrets = {
            "PGPASSWORD": self.variables["POSTGRES_PASSWORD"],
            "SECATEUR_BROKER_PASSWORD": self.variables["REDIS_PASSWORD"],
            "SECATEUR_SECRET_KEY": self.variables["SECATEUR_SECRET_KEY"],
            "SECATEUR_STORE_ACCESS_KEY": self.variables["STORE_ACCESS_KEY"],
            "SECATEUR_STORE_SECRET_KEY": self.variables["STORE_SECRET_KEY"],
        }
        return self.container(name).environment(manifests.settings(manifests.BASE) | own, secrets)

    def command(self, name: str) -> list[str]:
        return self.container(name).command

    def waits(self, name: str) -> subprocess.CompletedProcess[str]:
        """Run to its end what a pod runs before its container."""
        return self.run(name, manifests.containers(manifests.BASE, init=True)[name].command)

    def is_healthy(self, name: str) -> bool:
        return all(self._answers(name, self.container(name).said[probe]) for probe in self._probes(name))

    def _probes(self, name: str) -> list[str]:
        return [key for key in self.container(name).said if key.endswith("Probe")]

    def _answers(self, name: str, probe: dict[str, Any]) -> bool:
        if "exec" in probe:
            return self.run(name, probe["exec"]["command"]).returncode == 0
        assert probe["httpGet"]["port"] == "http"
        try:
            with urllib.request.urlopen(self.url + probe["httpGet"]["path"]) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in pytest's own temporary folder, where PostgreSQL's user may not go."""
    with TemporaryDirectory(prefix="secateur-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def postgres_port(folder: Path) -> Iterator[int]:
    """A cluster of the system's PostgreSQL that asks for a password, as docker-compose.yml starts it."""
    data, port = folder / "postgres", free_port()
    data.mkdir()
    user = SYSTEM_USER if os.geteuid() == 0 else None
    if user:
        shutil.chown(data, user, user)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    made = run(
        [
            needed("initdb"),
            *("--username=secateur", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
            *(f"--pwfile={secret}", "-D", str(data)),
        ],
        name="initdb",
        user=user,
        folder=folder,
    )
    assert made.returncode == 0, made.stdout
    said: list[str] = compose()["services"]["postgres"]["command"]
    own = ["-D", str(data), "-p", str(port), "-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
    with open(folder / "postgres.log", "wb") as log:
        server = spawn(
            [needed(said[0]), *said[1:], *own],
            name="postgres",
            stdout=log,
            stderr=subprocess.STDOUT,
            user=user,
            folder=folder,
        )
    try:
        asked = [needed("pg_isready"), "--host=127.0.0.1", f"--port={port}", "--username=secateur"]
        eventually(lambda: run(asked, name="pg_isready").returncode == 0)
        where = f"host=127.0.0.1 port={port} user=secateur dbname=postgres"
        with psycopg.connect(where, password=PASSWORD, autocommit=True) as connection:  # the container's image makes it
            connection.execute("CREATE DATABASE secateur")
        yield port
    finally:
        server.end(grace_seconds=20, first=2)


@pytest.fixture
def redis_port(folder: Path) -> Iterator[int]:
    data, port = folder / "redis", free_port()
    data.mkdir()
    said = [filled_in(word, {"REDIS_PASSWORD": PASSWORD}) for word in compose()["services"]["redis"]["command"]]
    own = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data)]
    with open(folder / "redis.log", "wb") as log:
        server = spawn([needed(said[0]), *said[1:], *own], name="redis", stdout=log, stderr=subprocess.STDOUT)
    try:
        environment = {"REDISCLI_AUTH": PASSWORD, "PATH": os.environ["PATH"]}
        check = [needed("redis-cli"), "-p", str(port), "ping"]
        eventually(lambda: "PONG" in run(check, name="redis-cli", environment=environment).stdout)
        yield port
    finally:
        server.end(grace_seconds=10)


@pytest.fixture
def store_port() -> Iterator[int]:
    from moto.server import ThreadedMotoServer  # slow to import, and few tests need it

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="session")
def image_programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("images")
    return {image: write_environment(folder / image, image) for image in ("api", "worker")}


@pytest.fixture
def service(
    folder: Path, postgres_port: int, redis_port: int, store_port: int, image_programs: dict[str, Path]
) -> Iterator[Service]:
    ports = {
        "postgres": postgres_port,
        "redis": redis_port,
        "store": store_port,
        "api": free_port(),
        "metrics": free_port(),
    }
    variables = {
        "POSTGRES_PASSWORD": PASSWORD,
        "REDIS_PASSWORD": PASSWORD,
        "STORE_ACCESS_KEY": "access",
        "STORE_SECRET_KEY": "secret",
        "SECATEUR_SECRET_KEY": "a secret for tests",
        "SECATEUR_QUEUES": "default,cpu",
    }
    running = Service(folder, ports, variables, image_programs)
    yield running
    for process in running.started.values():
        process.end(grace_seconds=30)
