"""Settings of all processes in one object, read from `SECATEUR_*` environment variables."""

import json
import os
import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.device_kinds import DEVICE_KINDS, device_kind, find_kind
from secateur_wire.teams import Role

ALL_TEAMS = "*"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_DEVICE_ID = re.compile(r"\d+|(GPU|MIG)-[0-9a-f-]+")


class Settings(BaseSettings):
    """Settings of all processes; durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", extra="ignore")

    home: Path = Field(Path(".secateur"), description="Everything embedded lives here.")
    database_url: str | None = Field(
        None, description="postgresql+psycopg://…, several hosts as HOST:PORT,HOST:PORT; unset: the embedded server."
    )
    peer_lost_seconds: int = Field(
        20,
        ge=5,
        description="A database or Redis from which nothing comes, not even TCP's own answers, is lost after this "
        "long, and the connection given up.",
    )
    database_request_lock_seconds: float = Field(
        3, ge=0, description="A request waits this long for what another transaction holds, then answers 503."
    )
    database_request_statement_seconds: float = Field(
        30, ge=0, description="Longest statement of a request, then it answers 503."
    )
    database_request_idle_seconds: float = Field(
        120,
        ge=0,
        description="A request's transaction that stands still for this long is ended; here and below, 0: never.",
    )
    database_dispatcher_lock_seconds: float = Field(
        5, ge=0, description="The dispatcher leaves what another transaction holds to its next round after this long."
    )
    database_dispatcher_statement_seconds: float = Field(300, ge=0, description="Its longest statement.")
    database_dispatcher_idle_seconds: float = Field(
        120, ge=0, description="Its transaction that stands still for this long is ended."
    )
    database_worker_lock_seconds: float = Field(
        30,
        ge=0,
        description="A worker waits this long for what another transaction holds, its turn to claim included, then "
        "tries again.",
    )
    database_worker_statement_seconds: float = Field(60, ge=0, description="Its longest statement.")
    database_worker_idle_seconds: float = Field(
        60, ge=0, description="Its transaction that stands still for this long is ended."
    )
    database_migration_lock_seconds: float = Field(
        5, ge=0, description="A migration that waits longer for a lock gives up: others would queue behind it."
    )
    database_migration_statement_seconds: float = Field(
        0, ge=0, description="Its longest statement: an index of a large table takes its time."
    )
    database_migration_idle_seconds: float = Field(
        600, ge=0, description="Its transaction that stands still for this long is ended."
    )
    broker_url: str | None = Field(None, description="redis://…; unset: Celery's filesystem transport in home.")
    broker_password: SecretStr | None = Field(
        None, description="Redis' password, as it is: in the URL some characters would have to be escaped."
    )
    host: str = Field("127.0.0.1", description="Address `secateur serve` listens on.")
    port: int = Field(8000, description="Port `secateur serve` listens on.")
    trusted_proxies: Annotated[list[IPv4Network | IPv6Network], NoDecode] = Field(
        default_factory=list,
        description="Networks of reverse proxies, such as 127.0.0.1/32, separated by commas, whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed; unset: nobody's.",
    )
    secret_key: str | None = Field(None, description="HMAC key of API keys; unset: generated once in home.")
    signing_key: Path | None = Field(
        None,
        description="Private key (PEM) with which workers sign artifacts; unset: the embedded server has its own, "
        "another signs nothing.",
    )
    signing_public_keys: Path | None = Field(
        None, description="Public keys (PEM, any number in one file) that the API gives to those who verify artifacts."
    )

    queues: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: ["default"],
        description="Queues jobs may name, separated by commas: one per device kind.",
    )
    worker_queue: str = Field("default", description="The queue a worker takes jobs from.")
    device: str | None = Field(None, description="cpu or cuda; unset: cuda where there is one.")
    devices: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="GPUs that `python -m worker` starts a worker each for, separated by commas: numbers as "
        "`nvidia-smi` counts them, such as 0,1,2,3, or UUIDs; unset: one worker, with the first GPU that it sees.",
    )
    threads: int | None = Field(
        None, description="Threads of a runner; unset: `OMP_NUM_THREADS`, or the cores of the machine."
    )

    lease_seconds: float = Field(60, description="A worker silent for this long has lost its job.")
    lease_renew_seconds: float = Field(15, description="Between signs of life of a running job.")
    dispatch_interval_seconds: float = Field(2, gt=0, description="Between rounds of the dispatcher.")
    hint_stale_seconds: float = Field(30, description="A queued job is hinted at again after this long.")
    worker_poll_seconds: float = Field(
        10, gt=0, description="Between an idle worker's own looks for jobs, which need no hint."
    )
    cancel_grace_seconds: float = Field(10, description="Between SIGINT and SIGKILL for a cancelled runner.")
    retry_delay_seconds: float = Field(5, description="Before a job is tried again after a passing failure.")
    max_attempts: int = Field(3, description="Attempts at a job before a passing failure is final.")
    job_time_limit_seconds: float = Field(24 * 3600, description="Longest attempt; a job may ask for less.")
    session_seconds: float = Field(
        12 * 3600, description="How long a browser that signed in with an API key stays signed in to the portal."
    )
    idempotency_seconds: float = Field(24 * 3600, description="How long an Idempotency-Key is remembered.")
    worker_fresh_seconds: float = Field(60, description="A worker silent for this long is not counted on.")
    activation_budget_bytes: int = Field(
        4 * 2**30, description="Activations a runner holds in memory; what is more spills to its work folder."
    )
    drain_seconds: float = Field(20, description="Given to a running block to finish when a worker shuts down.")
    disk_watermark_bytes: int = Field(
        2 * 2**30, description="A worker with less free space on its work folder's disk claims nothing."
    )
    worker_memory_bytes: int | None = Field(
        None, description="Memory a worker says it has; unset: that of its control group, or the machine."
    )
    admission_max_wait_seconds: float = Field(
        600, description="A job that no worker of its queue has room for is tried by the largest after this long."
    )
    resume_keep_seconds: float = Field(
        24 * 3600,
        description="A job that failed or was cancelled keeps what a retry goes on from on its worker for this long.",
    )
    work_sweep_seconds: float = Field(60, description="Between two sweeps of a worker's work folders.")

    discovery_seconds: float = Field(
        120, gt=0, description="Longest look of a worker's child at an architecture that nobody listed."
    )
    discovery_memory_bytes: int = Field(
        16 * 2**30, gt=0, description="Address space that the child may take, its libraries included."
    )
    discovery_attempts: int = Field(
        2, ge=1, description="Looks at an architecture before one that ends without an answer is final."
    )
    discovery_poll_seconds: float = Field(2, gt=0, description="Between a worker's own looks for discoveries.")
    sample_poll_seconds: float = Field(2, gt=0, description="Between a worker's own looks for requested samples.")
    discoveries_per_team: int = Field(8, ge=1, description="Discoveries of one team that are not over.")
    discovery_keep_days: float = Field(180, gt=0, description="Discoveries nobody used for so long are removed.")

    store_url: str | None = Field(None, description="s3://bucket[/prefix]; unset: a folder in home.")
    store_endpoint: str | None = Field(None, description="Of an S3-compatible service that is not Amazon's.")
    store_region: str | None = Field(None, description="The bucket's region.")
    store_access_key: str | None = Field(None, description="Key of the store; unset: the machine's own (a role's).")
    store_secret_key: SecretStr | None = Field(None, description="Secret that goes with the key.")
    store_public_endpoint: str | None = Field(
        None, description="Where clients reach the bucket, for presigned downloads; unset: at store_endpoint."
    )
    presigned_seconds: int = Field(
        900, description="How long a presigned download is valid; 0: downloads go through the API."
    )

    hub_endpoint: str = Field("https://huggingface.co", description="The hub models and texts are fetched from.")
    hub_token: SecretStr | None = Field(
        None, description="The operator's token of the hub, used for no team but those of `SECATEUR_HUB_TOKEN_TEAMS`."
    )
    hub_token_teams: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Names of the teams the operator's token is used for where they have none of their own, separated "
        "by commas; `*`: all. `secateur serve` with the embedded database: `default` where this is unset.",
    )
    hub_search_seconds: float = Field(
        2, description="How long a search for models on the hub may take, for the page of a new job; 0: none is made."
    )
    hub_max_bytes: int = Field(500 * 10**9, description="Largest repository that is fetched.")
    hub_revision_keep_days: float = Field(
        90, gt=0, description="What is remembered of a model of the hub is forgotten this long after its last use."
    )
    hub_patience_seconds: float = Field(
        60, description="How long a fetch waits for bytes from a hub that gives none before its attempt ends."
    )
    package_index: str | None = Field(
        None,
        description="Index of packages that samples come in; unset: that of pip's configuration, else pip's default.",
    )
    tasks_root: Path | None = Field(
        None, description="Local copies of zero-shot tasks, `TASK/SPLIT.jsonl`; unset: `tasks` in home."
    )
    fetch_memory_bytes: int = Field(8 * 2**30, description="Of a fetcher, which decodes the hub's datasets.")
    cache_max_bytes: int = Field(500 * 10**9, description="Of fetched models and texts a worker keeps.")

    max_body_bytes: int = Field(2**20, description="Largest body of a request, parts of uploads apart.")
    slow_client_seconds: float = Field(
        20,
        description="For a request's headers; for its body, besides a second for each 16 KiB of it; and for a client "
        "that takes nothing of its answer.",
    )
    upload_part_bytes: int = Field(16 * 2**20, description="Largest part of an upload: one request.")
    form_upload_bytes: int = Field(
        256 * 2**20, description="Largest upload by the portal's form where a browser runs no JavaScript: one request."
    )
    upload_max_bytes: int = Field(500 * 10**9, description="Largest upload, all files together.")
    check_memory_bytes: int = Field(
        1280 * 2**20, description="Of an API process for checks of datasets and models, 640 MiB each."
    )
    upload_expiry_seconds: float = Field(24 * 3600, description="An upload nobody goes on with is removed.")
    requests_per_minute: int = Field(6000, description="Of one API key; 0: no limit.")
    requests_burst: int = Field(600, description="Requests of one API key within a second.")
    event_streams: int = Field(
        2000,
        ge=4,
        description="Open event streams of an API process. One team may have half of them, one key or person an "
        "eighth. At most half of the process's descriptors.",
    )

    oidc_issuer: str | None = Field(
        None,
        description="Issuer of an OpenID Connect provider, with whose accounts people sign in to the portal, such as "
        "https://sso.example.com/realms/main; unset: with API keys alone.",
    )
    oidc_client_id: str | None = Field(None, description="Client that the provider knows this service as.")
    oidc_client_secret: SecretStr | None = Field(
        None, description="Its secret; unset: the client is public, and proves itself by PKCE alone."
    )
    oidc_scopes: str = Field("openid profile email", description="Scopes that are asked for, separated by spaces.")
    oidc_claim: str = Field(
        "groups", description="Claim whose values give teams and roles: of the ID token, else of the user information."
    )
    oidc_roles: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description='Value of the claim → team and role, as JSON: `{"research": "default:admin"}`. The team '
        "must exist. Who has no such value is refused.",
    )
    oidc_session_seconds: float = Field(
        3600,
        gt=0,
        description="How long a person stays signed in; then the provider is asked again, silently, and gives the "
        "claims of now.",
    )
    oidc_hides_keys: bool = Field(
        False,
        description="Whether the sign-in page has no form for API keys; `/portal/sign-in?with=key` shows it. The API "
        "takes keys as ever.",
    )

    workload_issuers: Annotated[list[str], NoDecode] = Field(
        default_factory=list,
        description="Issuers of pipelines' identity tokens, such as https://token.actions.githubusercontent.com,"
        "https://gitlab.com, separated by commas, which teams may name in their rules; unset: none.",
    )
    workload_key_seconds: float = Field(
        3600, ge=60, le=86_400, description="How long a key is valid that a pipeline gets for its identity token."
    )

    webhook_allowed_networks: Annotated[list[IPv4Network | IPv6Network], NoDecode] = Field(
        default_factory=list,
        description="Networks, besides public addresses, that webhooks may be sent to, and over http too: such as "
        "10.0.0.0/8, separated by commas.",
    )
    webhook_retry_delays: Annotated[list[float], NoDecode] = Field(
        default_factory=lambda: [5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0],
        min_length=1,
        description="Seconds between the attempts at a delivery, each varied by up to a fifth; after the last it is "
        "given up.",
    )
    webhook_timeout_seconds: float = Field(
        15,
        gt=0,
        description="For one attempt at a delivery, from the look at the name to the end of the answer's head.",
    )
    webhook_connections: int = Field(64, ge=1, description="Deliveries a dispatcher sends at the same time.")
    webhook_disable_days: float = Field(5, description="An endpoint that only failed for this long is disabled.")
    webhook_retention_days: float = Field(30, description="Deliveries that ended longer ago are removed.")
    trigger_payload_bytes: int = Field(2**20, description="Largest payload that fires a trigger.")
    trigger_firings_per_minute: int = Field(120, description="Of one trigger; 0: no limit.")
    trigger_history_days: float = Field(90, description="Firings of triggers are kept, and known again, this long.")

    event_retention_days: float = Field(90, description="Events of jobs that ended longer ago are removed.")
    generated_keep_days: float = Field(
        30,
        description="Texts that models wrote for calibration are removed this long after their last use; in a bucket, "
        "after they were written.",
    )
    orphan_seconds: float = Field(24 * 3600, description="Age at which stored files no row names are swept.")
    orphan_sweep_seconds: float = Field(600, description="Between two sweeps of stored files no row names.")
    metrics_port: int | None = Field(
        None, description="A port of its own for /metrics, on all addresses; unset: on the API's; 0: no metrics."
    )
    log_format: Literal["logfmt", "json"] = Field("logfmt", description="Form of log lines.")
    otlp_endpoint: str | None = Field(None, description="OpenTelemetry collector (OTLP over HTTP); unset: no traces.")
    allowed_roots: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="Folders, besides models and datasets in home, that models and texts may be registered from; "
        "separated like PATH.",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str | None) -> str | None:
        if value and find_kind(value) is None:
            raise ValueError(f"there is no device {value!r}: use {' or '.join(DEVICE_KINDS)}")
        return value

    @model_validator(mode="after")
    def _devices_to_share_out(self) -> Self:
        for device in self.devices:
            if _DEVICE_ID.fullmatch(device) is None:
                raise ValueError(f"{device!r} is not a GPU: use its number, or its UUID as nvidia-smi prints it")
        if len(set(self.devices)) < len(self.devices):
            raise ValueError(f"{','.join(self.devices)} names a GPU twice, but each GPU has one worker")
        if self.devices and self.device and not device_kind(self.device).has_own_memory:
            raise ValueError(f"SECATEUR_DEVICES names GPUs, but SECATEUR_DEVICE is {self.device}: set only one of them")
        return self

    @field_validator("oidc_roles", mode="before")
    @classmethod
    def _parse_roles(cls, value: object) -> object:
        try:
            return json.loads(value or "{}") if isinstance(value, str) else value
        except ValueError:
            raise ValueError('must be JSON such as {"research": "default:admin"}') from None

    @model_validator(mode="after")
    def _sign_in_is_complete(self) -> Self:
        for each in self.workload_issuers:
            _require_issuer("SECATEUR_WORKLOAD_ISSUERS", each)
        for value, target in self.oidc_roles.items():
            team, _, role = target.rpartition(":")
            if not team or role not in get_args(Role):
                raise ValueError(
                    f"SECATEUR_OIDC_ROLES: {value!r} leads to {target!r}, which is no team and role: write such as "
                    f'"default:member", with the role {", ".join(get_args(Role))}'
                )
        if self.oidc_issuer is None:
            return self
        _require_issuer("SECATEUR_OIDC_ISSUER", self.oidc_issuer)
        if not self.oidc_client_id:
            raise ValueError("SECATEUR_OIDC_CLIENT_ID is needed where SECATEUR_OIDC_ISSUER is set")
        if not self.oidc_roles:
            raise ValueError(
                "SECATEUR_OIDC_ROLES is needed where SECATEUR_OIDC_ISSUER is set: without it nobody belongs to a team"
            )
        if "openid" not in self.oidc_scopes.split():
            raise ValueError("SECATEUR_OIDC_SCOPES must have openid among them")
        return self

    @field_validator("allowed_roots", mode="before")
    @classmethod
    def _split_like_path(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator(
        *("devices", "hub_token_teams", "queues", "trusted_proxies", "workload_issuers"),
        *("webhook_allowed_networks", "webhook_retry_delays"),
        mode="before",
    )
    @classmethod
    def _split_at_commas(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @property
    def models_root(self) -> Path:
        return self.home / "models"

    @property
    def datasets_root(self) -> Path:
        return self.home / "datasets"

    @property
    def local_tasks(self) -> Path:
        return self.tasks_root or self.home / "tasks"

    @property
    def store_root(self) -> Path:
        return self.home / "artifacts"

    @property
    def work_root(self) -> Path:
        return self.home / "work"

    @property
    def cache_root(self) -> Path:
        """Return the folder of models and texts from hub and store, by content; it may be deleted at any time."""
        return self.home / "cache"


def _require_issuer(setting: str, issuer: str) -> None:
    """Raise ValueError for an address that is no issuer's: those use https, or are on this machine."""
    url = urlsplit(issuer)
    if url.scheme != "https" and (url.scheme != "http" or url.hostname not in _LOOPBACK):
        raise ValueError(f"{setting}: {issuer!r} must begin with https://")
    if url.query or url.fragment:
        raise ValueError(f"{setting}: {issuer!r} must have no part after ? or #")


@lru_cache
def get_settings() -> Settings:
    return Settings()  # pyright: ignore[reportCallIssue]
