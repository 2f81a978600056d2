"""`python -m tests.stores.publish SETTINGS FOLDER PREFIX`: publishes a folder, and dies in the middle of a file."""

import os
import signal
import sys
from pathlib import Path

from core.settings import Settings
from core.storage import open_store, s3

if __name__ == "__main__":
    s3._WATCH_SECONDS = 0.01  # looked at often enough to be met
    store = open_store(Settings.model_validate_json(sys.argv[1]))

    def die_midway() -> None:
        if list(store.unfinished()):
            os.kill(os.getpid(), signal.SIGKILL)

    store.publish(Path(sys.argv[2]), sys.argv[3], watch=die_midway)
