"""Visit of a newcomer: steps with their seconds and clicks, and pictures of each on a desktop, in dark, and a phone."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import Locator, Page, ViewportSize

from bench.portal_pages import save_picture

WAIT_SECONDS: Final = 3600
"""Longest wait for a step: jobs take minutes, and longer where the machine has other work."""
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 800}
_PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
_VIEWS: Final[Mapping[str, tuple[ViewportSize, Literal["light", "dark"]]]] = {
    "desktop": (DESKTOP, "light"),
    "desktop, dark": (DESKTOP, "dark"),
    "phone": (_PHONE, "light"),
}
_SETTLE_MILLISECONDS: Final = 500


@dataclass(frozen=True)
class Step:
    """Step of a part of the script: what is reached, the seconds and clicks until then, and its pictures."""

    part: str
    name: str
    seconds: float
    clicks: int | None = None
    pictures: Mapping[str, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        clicks = "" if self.clicks is None else f", {self.clicks} clicks"
        return f"{self.part}: {self.seconds:6.1f} s{clicks}: {self.name}"


@dataclass
class Visit:
    """Visitor of one part of the script. Its clock stands still while pictures are taken."""

    part: str
    page: Page
    pictures: Path
    steps: list[Step] = field(default_factory=list)
    clicks: int = 0
    _began: float = field(default_factory=time.monotonic)

    def click(self, target: Locator) -> None:
        target.click()
        self.clicks += 1

    def reach(self, name: str) -> None:
        """Note a step, and take its pictures."""
        reached = time.monotonic()
        self.steps.append(Step(self.part, name, reached - self._began, self.clicks, self._look(name)))
        print(self.steps[-1], flush=True)
        self._began += time.monotonic() - reached

    def note(self, name: str) -> None:
        """Note a step that shows no page."""
        self.steps.append(Step(self.part, name, time.monotonic() - self._began, self.clicks))
        print(self.steps[-1], flush=True)

    def _look(self, name: str) -> dict[str, Path]:
        """Take a picture of each view, and return to the first."""
        stem = f"{self.part}-{len(self.steps) + 1}-{name}".replace(" ", "-")
        taken = {view: self.pictures / f"{stem}-{view.replace(', ', '-')}.png" for view in _VIEWS}
        for view, file in reversed(taken.items()):
            size, scheme = _VIEWS[view]
            self.page.emulate_media(color_scheme=scheme)
            self.page.set_viewport_size(size)
            self.page.wait_for_timeout(_SETTLE_MILLISECONDS)
            save_picture(self.page.screenshot(), file)
        return taken


@dataclass(frozen=True)
class Ended:
    """Command that ended: its exit code, what it printed on both streams, and its seconds."""

    code: int
    printed: str
    seconds: float


def run_secateur(arguments: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a command of Secateur to its end."""
    began = time.monotonic()
    done = subprocess.run(
        secateur_command(arguments),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_SECONDS,
    )
    return Ended(done.returncode, done.stdout, time.monotonic() - began)


def secateur_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a command of Secateur, as it is installed beside this interpreter."""
    return [str(Path(sys.executable).with_name("secateur")), *arguments]
