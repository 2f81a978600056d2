"""A DAG that prunes a model: submit, wait, check the gates, download.

Put it into the folder of DAGs of Airflow 3. The workers need the package `secateur`, SECATEUR_URL and SECATEUR_API_KEY;
SECATEUR_FOLDER is where the model goes. Airflow signs no identity tokens for its tasks, so a member's key has to be
stored: in Airflow's secrets backend, with a date on which it expires.

No operator is needed: every task calls the SDK. Tasks hand on the job's id alone, and each may run again, on another
machine: submitting twice with the id of the run is one job, and a download that was cut off goes on. `airflow dags test
prune_smollm2` runs all of it in one process, without a scheduler.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import PokeReturnValue, dag, task

from secateur import Client, summarise


@dag(schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["secateur"])
def prune_smollm2() -> None:
    @task(retries=3, retry_delay=timedelta(seconds=30))
    def submit(run_id: str | None = None) -> str:
        """Airflow fills in `run_id`."""
        with Client() as client:
            job = client.submit(
                idempotency_key=run_id,
                model="smollm2-135m",
                method="wanda",
                sparsity=0.5,
                calibration={"dataset": "wikipedia-calibration", "samples": 32, "sequence_length": 512},
                evaluation={"datasets": ["wikipedia-articles"], "samples": 32},
                gates={"max_perplexity_ratio": 2.4},
                metadata={"run": run_id or ""},
            )
        return job.id

    @task.sensor(poke_interval=float(os.environ.get("SECATEUR_POLL", "30")), timeout=6 * 3600, mode="reschedule")
    def wait(job_id: str) -> PokeReturnValue:
        """Hold no slot of a worker between two looks."""
        with Client() as client:
            return PokeReturnValue(is_done=client.job(job_id).finished)

    @task
    def check(job_id: str) -> dict[str, Any]:
        """Return the summary; fail, and with it the run, where a gate was missed or the job did not succeed."""
        with Client() as client:
            job = client.job(job_id).raise_for_status()
            return summarise(job, client.report(job_id), url=client.url).document()

    @task(retries=3)
    def download(job_id: str) -> str:
        folder = Path(os.environ["SECATEUR_FOLDER"], job_id)
        with Client() as client:
            client.download(job_id, folder)
        return str(folder)

    job_id = submit()
    wait(job_id) >> check(job_id) >> download(job_id)


prune_smollm2()
