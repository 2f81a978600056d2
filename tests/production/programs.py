"""Programs of system packages that tests need."""

import shutil
from pathlib import Path

import pytest


def needed(name: str) -> str:
    """Return where a program is; `.ci/run` installs them."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = next((str(place / name) for place in places if (place / name).exists()), None) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install postgresql pgbouncer redis-server prometheus kustomize)")
    return found
