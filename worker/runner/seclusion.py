"""Network block for a runner: the kernel refuses every socket except those between processes of this machine.

This is a filter of system calls (seccomp) that a process puts on itself. Neither the process nor its children can
remove it. It needs no privilege and no namespace, so it also works in a container without any rights. It also refuses
the calls that would get around it: rings of asynchronous calls, sockets of other processes, and system calls of other
architectures.

`python -I -S worker/runner/seclusion.py` ends with 1 and prints the reason if the filter cannot be installed.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in the data that the kernel gives a filter for each call."""


class _Machine(NamedTuple):
    """Numbers of a machine's system calls; numbers from `most` on belong to another kind of program.

    `detours` are calls by which a process could use a socket that is not its own, or open one unnoticed.
    """

    audit: int
    seccomp: int
    socket: int
    detours: tuple[int, ...]
    most: int


_MACHINES = {
    # io_uring_setup, pidfd_getfd, ptrace, process_vm_writev
    "x86_64": _Machine(0xC000003E, 317, 41, (425, 438, 101, 311), 0x40000000),
    "aarch64": _Machine(0xC00000B7, 277, 198, (425, 438, 117, 271), 0xFFFFFFFF),
}


def seclude() -> str | None:
    """Block the network for this process and all its threads, for good; return the reason if that is impossible."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return f"there is no filter for {sys.platform} on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = _filter(machine)
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"privileges cannot be given up: {os.strerror(ctypes.get_errno())}"
    libc.syscall.restype = ctypes.c_long
    arguments = (ctypes.c_long(machine.seccomp), ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_ALL_THREADS))
    if libc.syscall(*arguments, ctypes.c_char_p(program)) != 0:
        return f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}"
    return None


def _filter(machine: _Machine) -> list[bytes]:
    """Return the instructions of the filter.

    A jump holds two numbers of instructions to skip: if the comparison is true, and if it is false. All refused calls
    jump to the end.
    """
    length = 10 + len(machine.detours)
    allow, refuse, no_family = length - 3, length - 2, length - 1
    instructions: list[bytes] = []

    def add(code: int, value: int, then: int = 0, otherwise: int = 0) -> None:
        instructions.append(struct.pack("HBBI", code, then, otherwise, value))

    def to(place: int) -> int:
        return place - len(instructions) - 1

    add(_LOAD, _MACHINE)
    add(_EQUAL, machine.audit, 0, to(refuse))
    add(_LOAD, _NUMBER)
    add(_AT_LEAST, machine.most, to(refuse), 0)
    for number in machine.detours:
        add(_EQUAL, number, to(refuse), 0)
    add(_EQUAL, machine.socket, 0, to(allow))
    add(_LOAD, _FIRST_ARGUMENT)
    add(_EQUAL, socket.AF_UNIX, to(allow), to(no_family))
    add(_RETURN, _ALLOW)
    add(_RETURN, _ERROR | errno.EPERM)
    add(_RETURN, _ERROR | errno.EAFNOSUPPORT)
    return instructions


if __name__ == "__main__":
    refused = seclude()
    print(refused or "runners have no network")
    sys.exit(refused is not None)
