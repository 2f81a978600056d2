"""The commands of the pages under Start, run as they stand; the nightly's prune the real sample model."""

import re
from pathlib import Path

from tests.pipelines.service import EXAMPLES, Service

START = EXAMPLES.parents[1] / "docs" / "start"
SHOWN = "http://127.0.0.1:8000"
FIRST = ("secateur serve\n", "secateur samples\n")
"""What stands alone on the pages before all else: a server, and what it is tried with."""


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
