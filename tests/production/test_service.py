"""The service as docker-compose.yml describes it, without containers: the very commands, environments and checks of
health, over PostgreSQL, Redis and an S3 service; one real job; a backup that is restored; an end by SIGTERM. And as
deploy/kubernetes describes it: a pod that ends while it is at the job, and all but workers after the restore.
"""

import json
import shutil
import signal
import subprocess
import urllib.request
from functools import partial
from pathlib import Path

from psycopg.conninfo import make_conninfo
from s3fs import S3FileSystem
from transformers import AutoModelForCausalLM

from secateur import Client
from tests.production.conftest import PASSWORD, KubernetesService, Service, eventually
from tests.production.programs import needed
from tests.runner.models import write_model

PARTS = ("api", "dispatcher", "worker-cpu")


def admin(service: Service) -> str:
    made = service.run("api", ["secateur", "keys", "create", "--role", "admin", "--name", "first"])
    assert made.returncode == 0, made.stdout
    return made.stdout.split()[-1]


def prepare(service: Service) -> None:
    prepared = service.run("prepare")
    assert prepared.returncode == 0, prepared.stdout


def start(service: Service, *names: str) -> None:
    for name in names:
        service.start(name)
    for name in names:  # a check of health is a process: none is asked before there is something to find
        eventually(partial(service.has_begun, name))
        eventually(partial(service.is_healthy, name))


def start_pods(service: KubernetesService, *names: str) -> None:
    """Start them as deploy/kubernetes says: first what waits for the schema."""
    for name in names:
        waited = service.waits(name)
        assert waited.returncode == 0, waited.stdout
    start(service, *names)


def end_pod_at_job(service: Service, pods: KubernetesService, client: Client, job: str) -> None:
    """Have the worker's pod end while it is at the job, which it gives back in time; and a container start, to which
    nothing is left of it.
    """
    eventually(lambda: client.job(job).status == "running")
    grace = pods.container("worker-cpu").pod["spec"]["terminationGracePeriodSeconds"]
    assert pods.stop("worker-cpu", grace) == 0, pods.log("worker-cpu")[-3000:]
    assert client.job(job).status == "queued"
    shutil.rmtree(service.folder / "worker-cpu")
    start(service, "worker-cpu")


def stop(service: Service) -> None:
    ends = {name: service.stop(name, 30) for name in reversed(PARTS)}
    assert ends == {"api": -signal.SIGTERM, "dispatcher": 0, "worker-cpu": 0}, ends
    assert "Application shutdown complete" in service.log("api"), "uvicorn ends by the signal, but in good order"


def s3(service: Service) -> S3FileSystem:
    url = f"http://127.0.0.1:{service.ports['store']}"
    where = {"endpoint_url": url, "client_kwargs": {"region_name": "us-east-1"}, "skip_instance_cache": True}
    return S3FileSystem(key="access", secret="secret", use_listings_cache=False, **where)


def test_a_job_from_upload_to_download_a_backup_and_a_restore(service: Service, tmp_path: Path) -> None:
    pods = KubernetesService(service.folder, service.ports, service.variables, service.programs, service.started)
    prepare(service)
    start(service, "api", "dispatcher")
    start_pods(pods, "worker-cpu")
    key = admin(service)
    job = run_a_job(service, pods, key, tmp_path)
    check_logs_and_metrics(service, job)
    saved = back_up(service, tmp_path)
    stop(service)
    lose_everything(service)
    restore(service, pods, saved)
    start_pods(pods, "api", "dispatcher")
    with Client(service.url, key) as client:
        assert client.job(job).status == "succeeded"
        again = client.download(job, tmp_path / "restored")
    first = {file.name: file.read_bytes() for file in (tmp_path / "artifact").iterdir() if file.is_file()}
    assert {file.name for file in again} == set(first)
    assert all(file.read_bytes() == first[file.name] for file in again)


def run_a_job(service: Service, pods: KubernetesService, key: str, tmp_path: Path) -> str:
    folder = write_model(tmp_path / "tiny", layers=2)
    text = tmp_path / "words.txt"
    text.write_text("\n\n".join(" ".join(f"w{(7 * n + k) % 92 + 4}" for k in range(50)) for n in range(40)))
    with Client(service.url, key) as client:
        client.upload_model("tiny", folder)
        client.upload_dataset("words", text)
        eventually(lambda: [worker for worker in client.workers() if worker.queue == "cpu"])
        submitted = client.submit(
            model="tiny",
            method="sparsegpt",
            sparsity=0.5,
            calibration={"dataset": "words", "samples": 8, "sequence_length": 32},
            evaluation={"datasets": ["words"], "samples": 8, "sequence_length": 32},
            queue="cpu",
        )
        end_pod_at_job(service, pods, client, submitted.id)
        ended = client.wait(submitted.id)
        assert ended.status == "succeeded", (ended.error, service.log("worker-cpu")[-3000:])
        assert ended.attempt == 2
        client.download(submitted.id, tmp_path / "artifact")
    assert s3(service).find("secateur"), "nothing is in the bucket"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "artifact")
    zeros = sum(int((weight == 0).sum()) for weight in model.parameters())
    assert zeros > 0
    return submitted.id


def check_logs_and_metrics(service: Service, job: str) -> None:
    lines = [json.loads(line) for line in service.log("worker-cpu").splitlines() if line.startswith("{")]
    of_job = [line for line in lines if line.get("job") == job]
    assert {line["attempt"] for line in of_job} == {1, 2}
    assert all(line["worker"].startswith("worker_") for line in of_job)
    requests = [json.loads(line) for line in service.log("api").splitlines() if '"event": "request"' in line]
    submitted = next(line for line in requests if (line["route"], line["method"]) == ("/v1/jobs", "POST"))
    assert submitted["request_id"] == of_job[0]["request_id"], "a job's lines do not lead back to its request"
    with urllib.request.urlopen(f"http://127.0.0.1:{service.ports['metrics']}/metrics") as answer:
        seen = answer.read().decode()
    assert 'secateur_workers{queue="cpu",state="idle"} 1.0' in seen

    def is_counted() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.ports['metrics']}/metrics") as again:
            return 'method="sparsegpt",outcome="succeeded",queue="cpu"} 1.0' in again.read().decode()

    eventually(is_counted)


def database(service: Service, name: str = "secateur") -> list[str]:
    where = make_conninfo(
        host="127.0.0.1", port=service.ports["postgres"], user="secateur", password=PASSWORD, dbname=name
    )
    return [f"--dbname={where}"]


def back_up(service: Service, folder: Path) -> Path:
    """The database first: what it names is in the store by then, whatever is published meanwhile."""
    subprocess.run(
        [needed("pg_dump"), "--format=custom", f"--file={folder / 'secateur.dump'}", *database(service)], check=True
    )
    s3(service).get("secateur/", str(folder / "bucket"), recursive=True)
    return folder


def lose_everything(service: Service) -> None:
    subprocess.run(
        [needed("psql"), "--quiet", *database(service, "postgres"), "--command=DROP DATABASE secateur WITH (FORCE)"],
        check=True,
    )
    s3(service).rm("secateur", recursive=True)


def restore(service: Service, pods: KubernetesService, saved: Path) -> None:
    subprocess.run(
        [needed("psql"), "--quiet", *database(service, "postgres"), "--command=CREATE DATABASE secateur"], check=True
    )
    subprocess.run(
        [needed("pg_restore"), "--exit-on-error", *database(service), str(saved / "secateur.dump")], check=True
    )
    prepare(pods)  # makes the bucket
    s3(service).put(f"{saved / 'bucket'}/", "secateur/", recursive=True)
