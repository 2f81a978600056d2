"""Small models with mistakes in their configs: each is refused, or right; none hangs, crashes or leaves its process."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

from tests.forked_processes import warm_python

CASES = int(os.environ.get("ARCHITECTURE_FUZZ_CASES", "24"))
"""A case takes half a second; a night has time for many more."""


def test_no_config_hangs_crashes_or_gives_wrong_logits(tmp_path: Path) -> None:
    answer = subprocess.run(
        [*warm_python(), "-m", "tests.fuzz.architecture_opener", "0", str(CASES), "2", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    outcomes = [json.loads(line) for line in answer.stdout.splitlines()]
    assert len(outcomes) == CASES
    ends = Counter(" ".join(each["how"].partition(":")[0].split()[:3]) for each in outcomes)
    print(*(f"{count} {how}" for how, count in ends.most_common()), sep="\n")
    assert not [each for each in outcomes if each["how"].split()[0] not in ("right", "refused")]
    assert ends["right"] > CASES // 10
    assert all(any(end.startswith(f"refused {stage}") for end in ends) for stage in ("describe", "discover", "open"))
