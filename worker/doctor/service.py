"""Checks of what the settings name: home, database, broker, store, port."""

import os
import pwd
import shutil
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy.exc import SQLAlchemyError

from core.database import has_schema
from core.service.jobs.broker import broker_answers, celery_app
from core.settings import Settings
from core.storage import open_store
from worker.doctor.finding import Finding, missing, ok, warning
from worker.embedded.postgres import PACKAGE, SYSTEM_USER, PostgresFailed, binary
from worker.embedded.serve import ServeFailed, check_port, is_serving
from worker.machine import nearest_existing
from worker.processes import run

_ELSEWHERE: Final = "set SECATEUR_HOME to a folder that you may write to"


def check_home(settings: Settings) -> Finding:
    """Return whether the folder of everything embedded is there, or can be made."""
    what, home = "home", settings.home.resolve()
    lowest = nearest_existing(home)
    if not lowest.is_dir():
        return missing(what, f"{lowest} is no folder", _ELSEWHERE)
    if not os.access(lowest, os.W_OK | os.X_OK):
        return missing(what, f"{lowest} cannot be written to", _ELSEWHERE)
    return ok(what, f"{home}{'' if home.exists() else ', made by the first command that needs it'} (SECATEUR_HOME)")


def check_database(settings: Settings) -> Finding:
    """Return whether the configured database has the schema of this version, or PostgreSQL can be started here."""
    what = "database"
    if settings.database_url is None:
        try:
            started = run([binary("postgres"), "--version"], name="postgres")
        except PostgresFailed as error:
            return missing(what, str(error), f"pip install {PACKAGE}, or set SECATEUR_DATABASE_URL")
        said = started.stdout.strip()
        if started.returncode != 0:
            return missing(what, f"PostgreSQL does not start: {said}", "set SECATEUR_DATABASE_URL")
        return ok(what, f"{said}, from the package {PACKAGE}")
    try:
        is_migrated = has_schema(settings)
    except (SQLAlchemyError, ValueError) as error:
        return missing(what, str(error).partition("\n")[0], "start PostgreSQL, or correct SECATEUR_DATABASE_URL")
    if not is_migrated:
        return warning(what, "has no schema of this version yet", "run python -m worker.prepare, or secateur serve")
    return ok(what, "answers, and has the schema")


def check_user(settings: Settings) -> Finding:
    """Return whether there is a user that the embedded PostgreSQL can run as."""
    what = "user of PostgreSQL"
    if settings.database_url is not None:
        return ok(what, "not needed: SECATEUR_DATABASE_URL names a database")
    if os.geteuid() != 0:
        return ok(what, f"{pwd.getpwuid(os.geteuid()).pw_name}, as all else")
    if any(user.pw_name == SYSTEM_USER for user in pwd.getpwall()):
        return ok(what, f"{SYSTEM_USER}: PostgreSQL refuses to run as root")
    if shutil.which("useradd") is not None:
        return ok(what, f"{SYSTEM_USER}, made at the first start: PostgreSQL refuses to run as root")
    return missing(
        what,
        f"PostgreSQL refuses to run as root, there is no user {SYSTEM_USER}, and no useradd to make it",
        f"make the user {SYSTEM_USER}, or use another user than root",
    )


def check_broker(settings: Settings) -> Finding:
    """Return whether the broker of hints answers."""
    what = "broker"
    if settings.broker_url is None:
        return ok(what, "folders in home")
    address = urlsplit(settings.broker_url)
    where = f"{address.hostname}:{address.port or 6379}"
    if broker_answers(celery_app(settings)):
        return ok(what, f"{where} answers")
    return missing(
        what,
        f"{where} does not answer: jobs start seconds late, and API keys are limited by each process for itself",
        "start Redis, or correct SECATEUR_BROKER_URL and SECATEUR_BROKER_PASSWORD",
    )


def check_store(settings: Settings) -> Finding:
    """Return whether artifacts can be stored."""
    what = "store"
    where = settings.store_url or str(settings.store_root.resolve())
    if settings.store_url is None and not settings.home.exists():
        return ok(what, f"{where}, made with home")
    try:
        is_usable = open_store(settings).is_usable()
    except ValueError as error:
        return missing(what, str(error), "correct SECATEUR_STORE_URL")
    if is_usable:
        return ok(what, where)
    if settings.store_url is None:
        return missing(what, f"{where} cannot be written to", "make it a folder that you may write to")
    return missing(
        what,
        f"{where} does not answer, or refuses the key",
        "correct SECATEUR_STORE_URL, SECATEUR_STORE_ENDPOINT and the key; python -m worker.prepare makes the bucket",
    )


def check_serve_port(settings: Settings) -> Finding:
    """Return whether `secateur serve` can listen on its port."""
    what = "port"
    if is_serving(settings.home.resolve()):
        return ok(what, "this home is being served")
    try:
        check_port(settings.host, settings.port)
    except ServeFailed as error:
        return warning(what, str(error), "secateur serve --port NUMBER, or set SECATEUR_PORT")
    return ok(what, f"{settings.port} on {settings.host} is free")
