"""Shut the doors of the kernel through which a jailed job could take what nobody measures.

A user namespace of its own would let it mount file systems in memory, and System V segments belong to no process: both
hold memory that is counted for nobody. The rest of the list has no use in a training and a history of holes. A filter
of seccomp(2), written in its own small language; on other processors than x86-64 and 64-bit ARM there is none.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
CLONE_NEWUSER = 0x10000000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
# The second set of numbers that x86-64 has, "x32".
X32 = 0x40000000
# The same on both: mount_setattr, open_tree, move_mount, fsopen, io_uring_setup, memfd_secret.
SHARED = (442, 428, 429, 430, 425, 447)
CLONE3 = 435
# Machine to the kernel's name for it, the number of clone, and those of: unshare, setns, mount, umount2, pivot_root,
# shmget, msgget, semget, keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd.
MACHINES = {
    "x86_64": (0xC000003E, 56, (272, 308, 165, 166, 155, 29, 68, 64, 250, 248, 249, 321, 298, 323)),
    "aarch64": (0xC00000B7, 220, (97, 268, 40, 39, 41, 194, 186, 190, 219, 217, 218, 280, 241, 282)),
}


def refuse() -> bool:
    """Refuse them from now on, in this process and all that it starts; False where the machine is another.

    Raises:
        OSError: When the kernel takes no filter.
    """
    found = MACHINES.get(platform.machine())
    if found is None:
        return False
    code = _filter(*found)
    memory = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: a short, padding, a pointer
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(memory)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"can't filter system calls: {os.strerror(ctypes.get_errno())}")
    return True


def _filter(architecture: int, clone: int, refused: tuple[int, ...]) -> bytes:
    """The program; jumps are counted in steps to skip, when true and when false."""
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
        # its flags lie in memory, where a filter can't look; the C library goes back to clone
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),
    ]
    for number in (*refused, *SHARED):
        steps += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    steps += [
        (EQUAL, 0, 3, clone),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (ANY_BIT, 0, 1, CLONE_NEWUSER),
        (RETURN, 0, 0, REFUSE | errno.EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)
