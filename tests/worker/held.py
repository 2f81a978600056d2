"""A stand-in runner that waits in one of its tasks until the test lets it go."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Held:
    """Waits in `task`; a file in `folder` says that it may go on."""

    task: str
    folder: Path

    @property
    def behaviour(self) -> dict[str, str]:
        """The stand-in's behaviour, as it is given one."""
        return {"hang_in": self.task, "until": str(self._go_on)}

    def let_go(self) -> None:
        self._go_on.touch()

    @property
    def _go_on(self) -> Path:
        return self.folder / "go on"
