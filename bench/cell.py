"""Inside of a cell in this project's environment: `python -m bench.cell MODULE:FUNCTION SPEC.json RESULT.json`.

The function is called with the spec, once threads are set; what it returns becomes the result.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

import torch

if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    spec = json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(spec["threads"])
    Path(sys.argv[3]).write_text(json.dumps(getattr(import_module(module), function)(spec)))
