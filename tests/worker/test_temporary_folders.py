"""Temporary folders in a home: what a process leaves there that is killed, the next one removes."""

import signal
import subprocess
import sys
from pathlib import Path

from worker.temporary_folders import temporary_folder

_HOLD = """
import sys, time
from pathlib import Path
from worker.temporary_folders import temporary_folder

with temporary_folder(Path(sys.argv[1]), "samples-") as folder:
    (folder / "weights").write_text("many")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_is_removed_and_what_is_used_is_not(tmp_path: Path) -> None:
    holders = [
        subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, used = (Path(holder.stdout.readline().strip()) for holder in holders if holder.stdout)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert (killed / "weights").exists()
        with temporary_folder(tmp_path, "samples-") as own:
            assert {used, own} == set(tmp_path.iterdir())
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    with temporary_folder(tmp_path, "samples-") as own:
        assert [own] == list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
