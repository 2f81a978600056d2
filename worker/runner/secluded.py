"""Launcher of a command without network and within limits: `python -m worker.runner.secluded MEMORY FILE COMMAND…`.

MEMORY  bytes of address space it may use, including what it loads
FILE    bytes it may write to one file

The process runs at low priority and leaves no core dump. It keeps its id through the exec.
"""

import os
import resource
import sys

from core.seclusion import seclude

_NICE = 10


def main(arguments: list[str]) -> None:
    memory, file, *command = arguments
    os.nice(_NICE)
    for limit, most in (
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_FSIZE, int(file)),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (allowed, allowed))
    if (refused := seclude()) is not None:
        print(f"This process is not kept from the network: {refused}.", file=sys.stderr)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
