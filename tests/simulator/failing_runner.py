"""The runner on simulated devices, one of which fails: `python -m tests.simulator.failing_runner FAULT`.

FAULT is `memory` (an allocation on sim:1 fails), `fault` (an operator on it fails) or `none`.
"""

import sys

from tests.simulator.backend import simulate
from worker.runner.__main__ import finish

if __name__ == "__main__":
    with simulate() as (_, device):
        match sys.argv[1]:
            case "memory":
                device.fails_allocation = lambda number, nbytes: number == 50
            case "fault":
                device.fault_after(20)
        finish()
