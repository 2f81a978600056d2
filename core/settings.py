"""The one settings object, read from `SECATEUR_*` environment variables."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="SECATEUR_", extra="ignore")

    home: Path = Field(Path(".secateur"), description="Everything embedded lives here.")
    database_url: str | None = Field(None, description="postgresql+psycopg://…; unset: the embedded server.")
    broker_url: str | None = Field(None, description="redis://…; unset: Celery's filesystem transport in home.")
    host: str = "127.0.0.1"
    port: int = 8000
    secret_key: str | None = Field(None, description="HMAC key of API keys; unset: generated once in home.")

    worker_queue: str = "default"
    device: str | None = Field(None, description="cpu or cuda; unset: cuda where there is one.")
    threads: int | None = Field(None, description="Threads of a runner; unset: the cores of the machine.")

    lease_seconds: float = 60
    lease_renew_seconds: float = 15
    dispatch_interval_seconds: float = 2
    hint_stale_seconds: float = 30
    cancel_grace_seconds: float = 10
    retry_delay_seconds: float = 5
    max_attempts: int = 3
    job_time_limit_seconds: float = 24 * 3600
    idempotency_seconds: float = 24 * 3600
    worker_fresh_seconds: float = 60
    activation_budget_bytes: int = 4 * 2**30
    max_body_bytes: int = 2**20
    allowed_roots: Annotated[list[Path], NoDecode] = Field(
        default_factory=list,
        description="Folders, besides models and datasets in home, that models and texts may be registered from; "
        "separated like PATH.",
    )

    @field_validator("allowed_roots", mode="before")
    @classmethod
    def _split_like_path(cls, value: object) -> object:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @property
    def models_root(self) -> Path:
        return self.home / "models"

    @property
    def datasets_root(self) -> Path:
        return self.home / "datasets"

    @property
    def store_root(self) -> Path:
        return self.home / "artifacts"

    @property
    def work_root(self) -> Path:
        return self.home / "work"


@lru_cache
def get_settings() -> Settings:
    return Settings()  # pyright: ignore[reportCallIssue]
