"""A hub on loopback, as a process that can be ended and frozen: `python -m bench.chaos.hub PORT FOLDER`.

Every repository of `seeds` and of `poisoned` holds the tiny model. The hub's own library cannot read the cards of the
latter.
"""

import signal
import sys
from pathlib import Path
from typing import Any

from bench.chaos.bodies import write_model
from tests.sources.hub_files import Repository
from tests.sources.hub_server import HubState, hub_server

SEEDS, POISONED = "seeds", "poisoned"
_CARD = b"---\nignore_metadata_errors: true\n---\n"


class _Organizations(dict[tuple[str, str], Repository]):
    """One repository for each organization, found under all of its names: no answer about one is kept for another."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        kind, name = key
        return super().get((kind, name.partition("/")[0]), default)


def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    state = HubState(repositories=_Organizations())
    for name, card in ((SEEDS, b""), (POISONED, _CARD)):
        files = {file.name: file.read_bytes() for file in write_model(folder / name, 0).iterdir()}
        state.add("model", name).commit(files | {"README.md": card})
    with hub_server(state=state, port=port):
        signal.pause()


if __name__ == "__main__":
    main()
