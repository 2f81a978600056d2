"""The inside of a cell that runs in this project's environment: spec from a file, threads set, result to a file."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do `work` on the spec named first on the command line; write what it returns to the file named second."""
    spec_file, result_file = map(Path, sys.argv[1:])
    spec = json.loads(spec_file.read_text())
    torch.set_num_threads(spec["threads"])
    result_file.write_text(json.dumps(work(spec)))
