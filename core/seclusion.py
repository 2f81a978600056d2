"""Filters of system calls (seccomp) that a process puts on itself, for good: off the network, or off everything.

`seclude` is for runners: the kernel refuses every socket except those between processes of this machine, and the calls
that would get around it: rings of asynchronous calls, memory and sockets of other processes, and system calls of other
architectures. `seal` is for a process that reads what strangers wrote and has all it needs: it may compute, start
threads, and use the descriptors it has. It opens nothing, starts no process and reaches no other process.

Neither the process nor its children can remove a filter. It needs no privilege and no namespace, so it also works in a
container without any rights.

`python -I -S core/seclusion.py` ends with 1 and prints the reason if the filter cannot be installed.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets in the data that the kernel gives a filter for each call."""
_CLONE_THREAD = 0x10000


class _Machine(NamedTuple):
    """Numbers of a machine's system calls; numbers from `most` on belong to another kind of program.

    `detours` are calls by which a process could use a socket or the memory of another one, or open one unnoticed.
    `sealed` are the calls of a process that computes with the descriptors it has; `clone` may start threads.
    """

    audit: int
    seccomp: int
    socket: int
    clone: int
    clone3: int
    detours: tuple[int, ...]
    sealed: tuple[int, ...]
    most: int


_MACHINES = {
    # detours: io_uring_setup, pidfd_getfd, ptrace, process_vm_readv, process_vm_writev
    # sealed, a line each: descriptors; memory; signals; time and order; threads; ends; facts of itself
    "x86_64": _Machine(
        *(0xC000003E, 317, 41, 56, 435),
        (425, 438, 101, 310, 311),
        (
            *(0, 1, 3, 5, 7, 8, 17, 19, 20, 271),
            *(9, 10, 11, 12, 25, 28),
            *(13, 14, 15, 131, 219),
            *(24, 35, 96, 228, 229, 230),
            *(202, 218, 273, 324, 334),
            *(60, 231),
            *(39, 98, 99, 110, 186, 204, 318),
        ),
        0x40000000,
    ),
    "aarch64": _Machine(
        *(0xC00000B7, 277, 198, 220, 435),
        (425, 438, 117, 270, 271),
        (
            *(63, 64, 57, 80, 62, 67, 65, 66, 73),
            *(222, 226, 215, 214, 216, 233),
            *(134, 135, 139, 132, 128),
            *(124, 101, 169, 113, 114, 115),
            *(98, 96, 99, 283, 293),
            *(93, 94),
            *(172, 165, 179, 173, 178, 123, 278),
        ),
        0xFFFFFFFF,
    ),
}


def seclude() -> str | None:
    """Block the network for this process and all its threads, for good; return the reason if that is impossible."""
    return _install(_off_the_network)


def seal() -> str | None:
    """Leave this process and its threads the descriptors they have and nothing else, for good.

    Returns the reason if that is impossible.
    """
    return _install(_off_everything)


def _install(instructions_for: Callable[[_Machine], list[bytes]]) -> str | None:
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        return f"there is no filter for {sys.platform} on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = instructions_for(machine)
    code = ctypes.create_string_buffer(b"".join(instructions))
    program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(code))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"privileges cannot be given up: {os.strerror(ctypes.get_errno())}"
    libc.syscall.restype = ctypes.c_long
    arguments = (ctypes.c_long(machine.seccomp), ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_ALL_THREADS))
    if libc.syscall(*arguments, ctypes.c_char_p(program)) != 0:
        return f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}"
    return None


class _Filter:
    """Filter under construction, for calls of one machine only.

    A jump holds two numbers of instructions to skip: if the comparison is true, and if it is false. The last
    instructions end the filter: `ends` are what the call comes to, and calls of another machine come to the second.
    """

    def __init__(self, machine: _Machine, length: int, *ends: int) -> None:
        self.places = [length - len(ends) + number for number in range(len(ends))]
        self._ends = ends
        self._instructions: list[bytes] = []
        self.add(_LOAD, _MACHINE)
        self.jump(_EQUAL, machine.audit, None, self.places[1])
        self.add(_LOAD, _NUMBER)
        self.jump(_AT_LEAST, machine.most, self.places[1], None)

    def add(self, code: int, value: int, then: int = 0, otherwise: int = 0) -> None:
        self._instructions.append(struct.pack("HBBI", code, then, otherwise, value))

    def jump(self, code: int, value: int, then: int | None, otherwise: int | None) -> None:
        """Add a comparison that jumps to a place, or goes on (None)."""
        here = len(self._instructions) + 1
        self.add(code, value, *(0 if place is None else place - here for place in (then, otherwise)))

    def ended(self) -> list[bytes]:
        for value in self._ends:
            self.add(_RETURN, value)
        assert len(self._instructions) == self.places[-1] + 1
        return self._instructions


def _off_the_network(machine: _Machine) -> list[bytes]:
    ends = (_ALLOW, _ERROR | errno.EPERM, _ERROR | errno.EAFNOSUPPORT)
    built = _Filter(machine, 10 + len(machine.detours), *ends)
    allow, refuse, no_family = built.places
    for number in machine.detours:
        built.jump(_EQUAL, number, refuse, None)
    built.jump(_EQUAL, machine.socket, None, allow)
    built.add(_LOAD, _FIRST_ARGUMENT)
    built.jump(_EQUAL, socket.AF_UNIX, allow, no_family)
    return built.ended()


def _off_everything(machine: _Machine) -> list[bytes]:
    """Return a filter that allows `sealed` alone; the C library starts threads by `clone` where it has no `clone3`."""
    ends = (_ALLOW, _ERROR | errno.EPERM, _ERROR | errno.ENOSYS)
    built = _Filter(machine, 11 + len(machine.sealed), *ends)
    allow, refuse, no_call = built.places
    for number in machine.sealed:
        built.jump(_EQUAL, number, allow, None)
    built.jump(_EQUAL, machine.clone3, no_call, None)
    built.jump(_EQUAL, machine.clone, None, refuse)
    built.add(_LOAD, _FIRST_ARGUMENT)
    built.jump(_ANY_BIT, _CLONE_THREAD, allow, refuse)
    return built.ended()


if __name__ == "__main__":
    refused = seclude() or seal()
    print(refused or "runners have no network, and readers nothing but what they are handed")
    sys.exit(refused is not None)
