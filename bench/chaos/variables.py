"""What the services of a fleet are told by their environment."""

from pathlib import Path

from bench.chaos.bystanders import NOBODYS_QUEUE
from bench.load_fleet import QUICK

PASSWORD = "a password of Redis"
SECRET = "a secret for a run of faults"
ACCESS_KEY, SECRET_KEY, BUCKET = "access", "secret", "secateur"
DISK_BYTES = 64 * 2**20
"""Of each worker's home: some ten times what a tiny job takes."""
SETTINGS = {
    **QUICK,
    "SECATEUR_WORKER_POLL_SECONDS": "2",
    "SECATEUR_WORKER_FRESH_SECONDS": "10",
    "SECATEUR_RETRY_DELAY_SECONDS": "1",
    "SECATEUR_DRAIN_SECONDS": "5",
    "SECATEUR_CANCEL_GRACE_SECONDS": "3",
    "SECATEUR_PEER_LOST_SECONDS": "8",
    "SECATEUR_RESUME_KEEP_SECONDS": "10",
    "SECATEUR_WORK_SWEEP_SECONDS": "5",
    "SECATEUR_UPLOAD_EXPIRY_SECONDS": "60",
    "SECATEUR_ORPHAN_SECONDS": "20",
    "SECATEUR_ORPHAN_SWEEP_SECONDS": "5",
    "SECATEUR_CACHE_MAX_BYTES": str(DISK_BYTES // 4),
    "SECATEUR_DATABASE_REQUEST_IDLE_SECONDS": "15",
    "SECATEUR_DATABASE_DISPATCHER_IDLE_SECONDS": "15",
    "SECATEUR_DATABASE_WORKER_IDLE_SECONDS": "15",
    "SECATEUR_WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    "SECATEUR_WEBHOOK_RETRY_DELAYS": ",".join(["1", "2", "4", *["8"] * 30]),
    "SECATEUR_WEBHOOK_TIMEOUT_SECONDS": "5",
    "SECATEUR_PRESIGNED_SECONDS": "0",
    "SECATEUR_HUB_PATIENCE_SECONDS": "10",
    "SECATEUR_QUEUES": f"default,{NOBODYS_QUEUE}",
    "SECATEUR_DEVICE": "cpu",
    "SECATEUR_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
"""Losses are noticed and tried again within seconds; nothing leaves this machine."""


def service_variables(
    root: Path, home: Path, *, postgres_port: int, redis_port: int, store_port: int, hub_port: int
) -> dict[str, str]:
    """Return the environment of a service with this home; models and texts may lie anywhere in `root`."""
    return {
        **SETTINGS,
        "SECATEUR_HOME": str(home),
        "SECATEUR_DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{postgres_port}/postgres",
        "SECATEUR_BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
        "SECATEUR_BROKER_PASSWORD": PASSWORD,
        "SECATEUR_SECRET_KEY": SECRET,
        "SECATEUR_STORE_URL": f"s3://{BUCKET}",
        "SECATEUR_STORE_ENDPOINT": f"http://127.0.0.1:{store_port}",
        "SECATEUR_STORE_REGION": "us-east-1",
        "SECATEUR_STORE_ACCESS_KEY": ACCESS_KEY,
        "SECATEUR_STORE_SECRET_KEY": SECRET_KEY,
        "SECATEUR_HUB_ENDPOINT": f"http://127.0.0.1:{hub_port}",
        "SECATEUR_ALLOWED_ROOTS": str(root),
        "UVICORN_HOST": "127.0.0.1",
        "UVICORN_LOG_LEVEL": "warning",
    }
