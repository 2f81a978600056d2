"""Hostile chat templates: each is refused with a reason, within its limits, and touches nothing."""

import json
import subprocess
import sys
from pathlib import Path

from tests.fuzz.template_opener import TEMPLATES

NOTHING = {"{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}"}
"""Templates to which the sandbox gives nothing in place of what they ask for."""


def test_a_hostile_template_is_refused_with_a_reason_and_touches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.fuzz.template_opener", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    ends = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(ends) == len(TEMPLATES), (len(ends), done.stderr[-1000:])
    lines = 0
    for number, source in enumerate(TEMPLATES):
        end = json.loads(ends[str(number)])
        assert end["touched"] == [], source
        if source in NOTHING:
            assert "an empty text from the template" in end["message"], end
            continue
        assert end["code"] == "unusable_model", (source, end)
        assert end["message"].startswith("the model's chat template "), end
        lines += "of the template)" in end["message"]
    assert lines > 0.8 * len(TEMPLATES), "most name the line at which they fail"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chats.jsonl"]
