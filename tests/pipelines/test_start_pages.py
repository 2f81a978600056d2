"""The commands of the pages under Start, run as they stand; the nightly's prune the real sample model."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from bench.parts import free_port
from tests.pipelines.service import EXAMPLES, Service

START = EXAMPLES.parents[1] / "docs" / "start"
SHOWN = "http://127.0.0.1:8000"
FIRST = ("secateur serve\n", "secateur samples\n")
"""What stands alone on the pages before all else: a server, and what it is tried with."""
READY_SECONDS = 120


def blocks(page: str) -> list[str]:
    """Every block of commands of a page."""
    return re.findall(r"^```sh\n(.*?)^```", (START / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)


def script(url: str, *pages: str) -> str:
    """Return what the pages show after the server was started, for a server at another address."""
    shown = [block for page in pages for block in blocks(page) if block not in FIRST]
    return "\n".join(["set -eu", *shown]).replace(SHOWN, url)


def test_what_the_pages_show_works(service: Service, tmp_path: Path) -> None:
    assert [blocks("rest.md")[0], blocks("rest.md")[2]] == list(FIRST) and blocks("portal.md") == [FIRST[0]]
    service.behave(ratio=2.0)
    (tmp_path / ".secateur").mkdir()
    (tmp_path / ".secateur" / "api-key").write_text(service.key)
    done = service.step(["bash", "-c", script(service.url, "rest.md", "pipeline.md")], tmp_path)
    assert done.code == 0, done.err
    (downloaded,) = tmp_path.glob("job_*")
    assert (downloaded / "model.safetensors").is_file() and '"perplexity"' in done.out
    assert {"pruned", "gates.xml", "summary.md"} <= {each.name for each in tmp_path.iterdir()}


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_what_the_pages_show_prunes_the_sample_model(samples: Path, tmp_path: Path) -> None:
    home = tmp_path / ".secateur"
    home.mkdir()
    for folder in ("models", "datasets", "downloads"):
        (home / folder).symlink_to(samples / folder)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("SECATEUR_")}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    url = f"http://127.0.0.1:{free_port()}"
    serve = f"exec {blocks('rest.md')[0].strip()} --port {httpx.URL(url).port}"
    with (
        (tmp_path / "serve.log").open("wb") as log,
        subprocess.Popen(["bash", "-c", serve], cwd=tmp_path, env=variables, stdout=log, stderr=log) as server,
    ):
        try:
            _wait_until_ready(url)
            for commands in (FIRST[1], script(url, "rest.md", "pipeline.md")):
                subprocess.run(["bash", "-c", commands], cwd=tmp_path, env=variables, check=True)
        finally:
            server.terminate()
    (downloaded,) = tmp_path.glob("job_*")
    assert (downloaded / "config.json").is_file() and (tmp_path / "pruned" / "model.safetensors").is_file()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise TimeoutError(f"{url} is not ready after {READY_SECONDS} s")
