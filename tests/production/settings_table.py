"""The table of settings in docs/settings.md: `python -m tests.production.settings_table` writes it anew."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bench.page import write_section
from core.settings import Settings
from tests.production.files import ROOT

PAGE = ROOT / "docs" / "settings.md"
GROUPS: dict[str, tuple[str, ...]] = {
    "Say where everything is": ("home", "database_url", "broker_", "host", "port", "allowed_roots"),
    "Serve behind a proxy, keep secrets, sign artifacts": ("trusted_proxies", "secret_key", "signing_"),
    "Let people and pipelines in": ("session_", "oidc_", "workload_", "requests_"),
    "Use devices, memory and disks": (
        *("queues", "worker_queue", "device", "threads", "worker_memory", "activation_", "disk_", "admission_"),
    ),
    "Decide when a job is tried again, given up or moved": (
        *("lease_", "retry_", "max_attempts", "job_time", "cancel_", "drain_", "resume_", "worker_fresh"),
    ),
    "Store artifacts in a bucket": ("store_", "presigned_"),
    "Fetch models, texts and samples": ("hub_", "package_index", "tasks_root", "fetch_", "cache_"),
    "Bound what clients send": (
        *("max_body", "slow_client", "upload_", "form_upload", "check_memory", "idempotency_"),
    ),
    "Examine models that nobody listed": ("discover",),
    "Send webhooks": ("webhook_",),
    "Fire triggers": ("trigger_",),
    "Remove what is old": ("event_", "generated_", "orphan_"),
    "Watch it": ("metrics_port", "log_format", "otlp_"),
    "Notice sooner that there is work": ("dispatch_", "hint_", "worker_poll", "sample_poll", "work_sweep"),
    "Bound waits for the database": ("database_", "peer_lost"),
}
"""Purposes of an operator, each with the beginnings of the settings for it."""
_SIZES = ((2**30, "GiB"), (2**20, "MiB"))


def settings_table() -> str:
    """Return a table for each of `GROUPS`; raises ValueError where a setting has no group."""
    parts: dict[str, list[str]] = {title: ["| variable | default | what |", "|:--|:--|:--|"] for title in GROUPS}
    for name, field in Settings.model_fields.items():
        parts[_group(name)].append(f"| `SECATEUR_{name.upper()}` | {_default(field)} | {field.description} |")
    return "\n\n".join(f"## {title}\n\n" + "\n".join(rows) for title, rows in parts.items())


def _group(name: str) -> str:
    for title, beginnings in GROUPS.items():
        if name.startswith(beginnings):
            return title
    raise ValueError(f"{name} has no group in {__name__}.GROUPS")


def _default(field: FieldInfo) -> str:
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value == []:
        return ""
    if isinstance(value, list):
        return f"`{','.join(f'{each:g}' if isinstance(each, float) else str(each) for each in value)}`"
    assert not isinstance(value, SecretStr), "a secret has no default"
    if isinstance(value, int) and value >= 2**20:
        for size, unit in _SIZES:
            if value % size == 0:
                return f"`{value}` ({value // size} {unit})"
        return f"`{value}` ({value / 1e9:g} GB)"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{Path(value) if isinstance(value, Path) else value}`"


if __name__ == "__main__":
    write_section(PAGE, "settings", settings_table())
