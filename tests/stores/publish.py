"""`python -m tests.stores.publish SETTINGS FOLDER PREFIX`: publishes a folder, to be killed while it does."""

import sys
from pathlib import Path

from core.settings import Settings
from core.storage import open_store

if __name__ == "__main__":
    open_store(Settings.model_validate_json(sys.argv[1])).publish(Path(sys.argv[2]), sys.argv[3])
