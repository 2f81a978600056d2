"""Wall clocks that are wrong, for one process and all that it starts."""

from pathlib import Path


def wrong_clock(shift: str | Path) -> dict[str, str]:
    """Return the environment of a process whose wall clock, and that of all it starts, is wrong by so many seconds,
    such as `+3600`: monotonic clocks go on, as they do in life.

    Of a file, the seconds are read again once a second: what is written there makes the clock of a running process
    jump. The times of files stay as they are. Raises FileNotFoundError where libfaketime is not installed.
    """
    found = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if found is None:
        raise FileNotFoundError("libfaketime is not installed (apt-get install libfaketime)")
    kept = ("FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_DISABLE_SHM", "NO_FAKE_STAT", "FAKETIME_CACHE_DURATION")
    said = {"FAKETIME_TIMESTAMP_FILE" if isinstance(shift, Path) else "FAKETIME": str(shift)}
    return {"LD_PRELOAD": str(found), **dict.fromkeys(kept, "1"), **said}
