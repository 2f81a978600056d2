"""The product's owner with parts that start and end at once: `python -m tests.worker.light_serve serve …`.

Its API is run in the home, where a file says it is ready.
"""

import sys

import worker.embedded.serve
from core.settings import Settings
from secateur.cli import main


def light_commands(host: str, port: int, settings: Settings) -> dict[str, list[str]]:
    return {
        "api": [sys.executable, "-m", "http.server", "--bind", host, str(port)],
        "worker": ["sleep", "600"],
        "dispatcher": ["sleep", "600"],
    }


if __name__ == "__main__":
    worker.embedded.serve.part_commands = light_commands
    main()
