"""The DAG of examples/pipelines, run by Airflow itself: `python -m bench.airflow [--upgrade]`.

Airflow lives in a virtual environment of its own, with a database of its own; it talks to the processes of a service on
loopback, as the tests of the examples do, whose runner prunes nothing and reports the figures it is told. Two runs by
`airflow dags test`: one whose gate is kept, one that misses it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.peer import peer_environment
from core.database import migrate
from core.settings import Settings
from tests.pipelines.service import EXAMPLES, Service, serving
from worker.embedded.postgres import postgres

_PACKAGE = "apache-airflow"
_DAG = "prune_smollm2"
_CLIENT = Path(__file__).parents[1] / "client"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.airflow", description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="look for a newer release of Airflow")
    given = parser.parse_args(arguments)
    python, releases = peer_environment(
        _PACKAGE, (_PACKAGE, "secateur"), also=("--editable", str(_CLIENT)), upgrade=given.upgrade
    )
    print(releases)
    with tempfile.TemporaryDirectory(prefix="secateur-airflow-") as name:
        folder = Path(name)
        airflow = _Airflow(python, folder)
        airflow.call("db", "migrate")
        with postgres(folder / "cluster") as url:
            migrate(Settings(database_url=url))
            with serving(url, folder) as service:
                ends = [_run(airflow, service, ratio) for ratio in (2.0, 3.0)]
    return 0 if ends == [True, False] else 1


class _Airflow:
    """Airflow's interpreter, and a home with the DAG in it."""

    def __init__(self, python: Path, folder: Path) -> None:
        self._python = python
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SECATEUR_", "PYTHONPATH"))}
        dags = folder / "airflow" / "dags"
        dags.mkdir(parents=True)
        shutil.copy(EXAMPLES / "airflow_dag.py", dags)
        self._environment = kept | {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

    def call(self, *arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environment = {**self._environment, **(variables or {})}
        return subprocess.run(
            [self._python, "-m", "airflow", *arguments], env=environment, capture_output=True, text=True, check=False
        )


def _run(airflow: _Airflow, service: Service, ratio: float) -> bool:
    """Whether the DAG succeeded at this ratio of perplexities, its gate being 2.4; says how it ended."""
    service.behave(ratio=ratio)
    with tempfile.TemporaryDirectory(prefix="secateur-models-") as models:
        variables = {"SECATEUR_URL": service.url, "SECATEUR_API_KEY": service.key, "SECATEUR_FOLDER": models}
        start = time.monotonic()
        done = airflow.call("dags", "test", _DAG, variables=variables | {"SECATEUR_POLL": "0.5"})
        seconds = time.monotonic() - start
        files = sorted(path.name for path in Path(models).rglob("*") if path.is_file())
    told = done.stdout + done.stderr
    if done.returncode not in (0, 1) or (done.returncode == 1 and "GateMissed" not in told):
        print(told, file=sys.stderr)
        raise SystemExit(f"the DAG did not run: exit code {done.returncode}")
    job = service.newest_jobs(1)[0]
    ended = {"job": job["status"], "run": job["metadata"]["run"], "files": files}
    print(json.dumps({"ratio": ratio, "exit_code": done.returncode, "seconds": round(seconds, 1), **ended}))
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
