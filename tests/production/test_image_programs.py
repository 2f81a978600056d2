"""Programs that the service starts, each of which the images have: they have no pip, no make, no git."""

import hashlib
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

PYTHON = "python"


def test_a_packaged_sample_is_fetched_by_an_image(tmp_path: Path, image_programs: dict[str, Path]) -> None:
    wheel = tmp_path / "index" / "a-sample" / "a_sample-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a_sample/words.txt", "words")
    content = wheel.read_bytes()
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}#sha256=0">{wheel.name}</a>')
    fetch = f"""
from pathlib import Path
from core.settings import Settings
from worker.samples.packages import PackagedFile, fetch

file = PackagedFile(title="words", requirement="A.Sample==1.0", wheel={wheel.name!r}, licence="none",
    sha256={hashlib.sha256(content).hexdigest()!r}, bytes={len(content)}, member="a_sample/words.txt")
print(fetch(file, Path({str(tmp_path)!r}, "home", "words.txt"), Settings(), lambda text: None).read_text())
"""
    with _served(tmp_path / "index") as url:
        tried = _python(image_programs["worker"], fetch, SECATEUR_PACKAGE_INDEX=url)
    assert (tried.returncode, tried.stdout) == (0, "words\n"), tried.stderr


def _python(programs: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(programs), **variables}
    return subprocess.run([programs / PYTHON, "-c", code], env=environment, capture_output=True, text=True)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
