"""The node's cache: least recently used first, never what is in use, by processes that know nothing of each other."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from secateur_wire.errors import DiskFull
from worker.node_cache import NodeCache

_HOLD = """
import sys, time
from pathlib import Path
from worker.node_cache import NodeCache
entry = NodeCache(Path(sys.argv[1]), max_bytes=1000).find(sys.argv[2])
print(entry is not None, flush=True)
time.sleep(600)
"""


def key(number: int) -> str:
    return f"model-{number:064x}"


def add(cache: NodeCache, number: int, size: int) -> None:
    with cache.fill(key(number), size) as folder:
        assert folder is not None
        (folder / "weights").write_bytes(bytes(size))


def there(cache: NodeCache, *numbers: int) -> list[int]:
    """Those of the numbers that are there, without using them."""
    return [number for number in numbers if (cache._root / "entries" / key(number)).is_dir()]


@pytest.fixture
def cache(tmp_path: Path) -> NodeCache:
    return NodeCache(tmp_path / "cache", max_bytes=1000)


def test_the_least_recently_used_goes_first(cache: NodeCache) -> None:
    for number in (1, 2, 3):
        add(cache, number, 300)
        time.sleep(0.02)
    with cache.find(key(1)) or pytest.fail("not there"):
        pass
    add(cache, 4, 300)
    assert there(cache, 1, 2, 3, 4) == [1, 3, 4]
    add(cache, 5, 600)
    assert there(cache, 1, 3, 4, 5) == [4, 5]


def test_what_another_process_uses_stays_until_that_ends_however_it_ends(cache: NodeCache) -> None:
    add(cache, 1, 400)
    add(cache, 2, 400)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(cache._root), key(1)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "True\n"
    assert cache.reclaimable_bytes() == 400
    add(cache, 3, 500)
    assert there(cache, 1, 2, 3) == [1, 3]
    with cache.find(key(3)) or pytest.fail("not there"), pytest.raises(DiskFull) as caught, cache.fill(key(4), 200):
        pytest.fail("there is no room")
    assert "other jobs use 900 of the 1000" in caught.value.message
    holder.kill()
    holder.wait()
    holder.stdout.close()
    add(cache, 4, 200)
    assert there(cache, 1, 3, 4) == [3, 4]


def test_an_entry_held_for_filling_is_seen_by_nobody_and_not_removed(cache: NodeCache) -> None:
    with cache.fill(key(1), 500) as folder:
        assert folder is not None
        (folder / "half").write_bytes(bytes(250))
        assert cache.find(key(1)) is None
        with pytest.raises(DiskFull), cache.fill(key(2), 600):
            pytest.fail("there is no room: what is on its way counts in full")
    assert there(cache, 1, 2) == [1]


def test_what_a_failed_fill_left_is_there_for_the_next_and_may_be_removed(cache: NodeCache) -> None:
    def fail(number: int, size: int) -> None:
        with cache.fill(key(number), size) as folder:
            assert folder is not None
            (folder / "half").write_bytes(bytes(size // 2))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail(1, 500)
    with cache.fill(key(1), 500) as folder:
        assert folder is not None and (folder / "half").stat().st_size == 250
    with pytest.raises(RuntimeError):
        fail(2, 400)
    add(cache, 3, 900)
    assert there(cache, 1, 2, 3) == [3] and not any((cache._root / "partial").iterdir())


def test_reclaiming_frees_the_disk_as_far_as_asked(cache: NodeCache) -> None:
    for number in (1, 2):
        add(cache, number, 300)
    cache.reclaim(0)
    assert there(cache, 1, 2) == [1, 2]
    with cache.find(key(2)) or pytest.fail("not there"):
        cache.reclaim(2**62)  # more than any disk has
        assert there(cache, 1, 2) == [2]
    cache.reclaim(2**62)
    assert there(cache, 1, 2) == []
