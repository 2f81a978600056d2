"""`python -m tests.stores.publish SETTINGS FOLDER PREFIX`: publishes a folder, to be killed while it does."""

import sys
from pathlib import Path

from core.artifacts.store import open_store
from core.settings import Settings

if __name__ == "__main__":
    open_store(Settings.model_validate_json(sys.argv[1])).publish(Path(sys.argv[2]), sys.argv[3])
