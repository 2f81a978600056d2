"""A service that the examples find: API and worker as processes, the samples they name, and a runner that is told what
to report.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.parts import free_port
from core.database import session_factory, transaction
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.service.teams.bootstrap import create_team
from core.service.teams.keys import create_key
from core.service.teams.principal import Principal
from core.service.teams.schemas import WorkloadRuleBody
from core.service.teams.workload_rules import create_rule
from core.settings import Settings
from tests.conftest import settings_for
from tests.forked_processes import write_warm_program
from tests.model_folders import write_llama, write_text
from tests.serving import served
from tests.sign_in.stand_in import StandIn
from tests.worker.conftest import eventually, impatient
from tests.worker.forked_parts import fork_part
from worker.embedded.serve import part_commands, part_environment
from worker.processes import ChildProcess

EXAMPLES = Path(__file__).parents[2] / "examples" / "pipelines"
PROGRAMS = [str(Path(sys.executable).parent)]
"""Folders in which a pipeline's machine looks for programs."""
_OWN_PROGRAMS = "programs"
"""Folder in which it looks first: of some thirty commands each would take longer to load the client than to run."""
_ADMITTED = {"repository_id": "74", "repository_owner_id": "65"}
_SECATEUR = "import sys; sys.argv[0] = 'secateur'; from secateur.cli import main; main()"


@dataclass(frozen=True)
class Ended:
    """How a step ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Service:
    """Where the service is, and what its runner is told."""

    url: str
    key: str
    told: Path
    issuer: StandIn
    """Issuer of the runs' identity tokens, whose pushes a rule of the team admits."""
    audience: str

    def behave(self, **behaviour: Any) -> None:
        """What the stand-in runner does from now on."""
        self.told.write_text(json.dumps(behaviour))

    @property
    def environment(self) -> dict[str, str]:
        """Of a pipeline's machine, with `secateur` on its path."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
        path = os.pathsep.join([str(self.told.parent / _OWN_PROGRAMS), *PROGRAMS, kept["PATH"]])
        return {**kept, "PATH": path, "SECATEUR_URL": self.url, "SECATEUR_API_KEY": self.key}

    def step(self, command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> Ended:
        """A step of a pipeline, in the folder of its run."""
        done = subprocess.run(
            command,
            cwd=folder,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def run_token(self, **changes: Any) -> str:
        """Return an identity token that the issuer gives to a run."""
        return self.issuer.sign(self.issuer.claims(**{**self.run_claims(), **changes}))

    def run_claims(self) -> dict[str, Any]:
        once = {"jti": str(time.monotonic_ns()), "aud": self.audience}
        return self.issuer.claims(**_ADMITTED, event_name="push", ref="refs/heads/leaf", **once)

    def use_here(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """Make this process a pipeline's machine, in the folder of its run."""
        monkeypatch.chdir(folder)
        monkeypatch.setenv("SECATEUR_URL", self.url)
        monkeypatch.setenv("SECATEUR_API_KEY", self.key)

    def job(self, job_id: str) -> dict[str, Any]:
        return self._get(f"jobs/{job_id}")

    def newest_jobs(self, count: int) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._get(f"jobs?limit={count}")["data"]
        return listed

    def _get(self, path: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/v1/{path}", headers={"Authorization": f"Bearer {self.key}"})
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


@contextmanager
def serving(database_url: str, folder: Path) -> Iterator[Service]:
    """The service on a migrated database, everything else of it in `folder`."""
    with ExitStack() as parts:
        issuer = StandIn()
        issuer.issuer = parts.enter_context(served(issuer.app()))
        settings = impatient(settings_for(database_url, folder / "home"))
        settings = settings.model_copy(update={"workload_issuers": [issuer.issuer]})
        key, audience = _fill(settings)
        service = Service(f"http://127.0.0.1:{free_port()}", key, folder / "told.json", issuer, audience)
        service.behave()
        write_warm_program(folder / _OWN_PROGRAMS / "secateur", "-c", _SECATEUR)
        parts.callback(_start("api", settings, service).end, grace_seconds=5)
        parts.callback(_start("worker", settings, service).end)
        eventually(lambda: _answers(service))
        yield service


def _fill(settings: Settings) -> tuple[str, str]:
    """Put under the samples' names what the stand-in needs of them; the key of a member, and the audience of a rule."""
    sessions = session_factory(settings)
    model = write_llama(settings.models_root / "tiny", layers=30, context=2048)
    text = write_text(settings.datasets_root / "numbers.txt", words=20_000)
    assert settings.secret_key is not None
    with transaction(sessions) as session:
        team = create_team(session, "gardeners")
        register_model(session, team, read_model(ModelBody(name="smollm2-135m", path=str(model.resolve())), settings))
        for name in ("wikipedia-calibration", "wikipedia-articles"):
            register_dataset(session, team, read_dataset(DatasetBody(name=name, path=str(text.resolve())), settings))
        secret = settings.secret_key.encode()
        key = create_key(session, team, role="member", name="ci", expires_at=None, secret=secret).key
        body = WorkloadRuleBody(name="oak", issuer=settings.workload_issuers[0], claims=_ADMITTED)
        rule = create_rule(session, Principal(team, "key_of_admin", "admin"), body, settings)
    sessions.kw["bind"].dispose()
    return key, rule.audience


def _start(name: str, settings: Settings, service: Service) -> ChildProcess:
    """`api` or `worker` with the command line of `secateur serve`, the worker's runner being the stand-in."""
    command = part_commands("127.0.0.1", httpx.URL(service.url).port or 0, settings)[name]
    command = ["tests.worker.stand_in_worker" if word == "worker.app" else word for word in command]
    variables = {
        **part_environment(settings),
        "SECATEUR_SECRET_KEY": settings.secret_key or "",
        "SECATEUR_WORKLOAD_ISSUERS": ",".join(settings.workload_issuers),
        "STAND_IN": json.dumps({"from": str(service.told)}),
    }
    with open(settings.home / f"{name}.log", "ab") as log:
        return fork_part(command, name=name, log=log, environment={**os.environ, **variables})


def _answers(service: Service) -> bool:
    try:
        return httpx.get(f"{service.url}/healthz").is_success
    except httpx.TransportError:
        return False
