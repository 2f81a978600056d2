"""Launcher of a command that dies with its starter: `python -I -S launch.py PARENT SIGNAL USER COMMAND…`.

This is a wrapper instead of a `preexec_fn`, because the supervisor has threads, and Python code between fork and exec
is not safe then. It imports only the standard library and starts in about 15 ms. The process keeps its id through the
exec.

PARENT  process id of the starter; if it is gone before the death signal is set, the command is never run
SIGNAL  number of the signal the kernel sends when the starting thread ends (Linux; elsewhere only the group is ours)
USER    account to run as, or `-` to stay
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PARENT_ENDED = 125
NOT_STARTED = 127


def main(arguments: list[str]) -> int:
    parent, death_signal, user, *command = arguments
    if user != "-":
        import pwd

        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if not dies_with(int(parent), int(death_signal)):  # after setuid, which clears the setting
        return PARENT_ENDED
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return NOT_STARTED


def dies_with(parent: int, death_signal: int) -> bool:
    """Have the kernel send this process the signal when its parent ends (Linux); return False if it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    return os.getppid() == parent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
