"""A run that is the same whoever starts it: a shell, one in the background, a scheduler, or another run."""

import os
import random
import signal
import sys

_OF_TERMINALS = (
    *("CI", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "DISPLAY", "FORCE_COLOR", "LANGUAGE", "LINES", "NO_COLOR"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONUNBUFFERED", "PYTHONUTF8"),
    *("PYTHONWARNINGS", "TERM", "TRACEPARENT", "TZ"),
)
"""Variables that change what a program prints, and when."""
_OF_PROGRAMS = ("AWS_", "CELERY_", "GITHUB_", "HF_", "LC_", "OTEL_", "PG", "SECATEUR_", "UVICORN_")
"""How variables begin that are settings of the product, or of a library of it."""


def start_alike() -> None:
    """Have this process, and those it starts, begin with the same signals, umask and variables."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:  # as `&` of a shell and nohup leave them
            signal.signal(number, lambda *_: None)  # still ignored here, and not in what is started
    os.umask(0o022)
    for name in list(os.environ):
        if name in _OF_TERMINALS or name.startswith(_OF_PROGRAMS):
            del os.environ[name]
    os.environ["LANG"] = "C.UTF-8"


def draw_alike() -> None:
    """Have whatever draws from a library's own generator draw the same numbers, whatever was drawn before."""
    random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.manual_seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
