"""Calls in a thread with fewer rights or mounts of its own: both go with it, whatever ends it."""

import ctypes
import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

NOBODY = 65534
CLONE_NEWNS = 0x00020000
NUMBERS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147)}
"""Of the system calls setgroups, setresgid and setresuid."""


@contextmanager
def confined(confine, *arguments):
    """A function that calls others in a thread which ``confine(*arguments)`` has changed.

    Skips the test where the system refuses.
    """
    with ThreadPoolExecutor(1) as thread:
        if not thread.submit(confine, *arguments).result():
            pytest.skip("needs to be root, and on Linux")
        yield lambda function, *values: thread.submit(function, *values).result()


def as_nobody():
    """Be a user without privileges, in this thread alone."""
    if os.geteuid() != 0:
        return True
    library, numbers = ctypes.CDLL(None, use_errno=True), NUMBERS.get(platform.machine())
    if numbers is None:
        return False
    groups, group, user = numbers  # not through the C library, which changes every thread
    return (
        library.syscall(groups, 0, None) == 0
        and library.syscall(group, NOBODY, NOBODY, NOBODY) == 0
        and library.syscall(user, NOBODY, NOBODY, NOBODY) == 0
    )


def with_small_disk(folder):
    """See a disk of 600 KiB at ``folder``."""
    return _apart() and system("mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder)


def with_read_only(folder):
    """See ``folder`` on a file system that is read-only."""
    return (
        _apart()
        and system("mount", "--bind", folder, folder)
        and system("mount", "-o", "remount,ro,bind", folder)
    )


def _apart():
    """See mounts that no other thread sees."""
    return ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0 and system("mount", "--make-rprivate", "/")


def system(*words):
    """Whether a command of the system succeeded."""
    return subprocess.run([*map(str, words)], check=False, capture_output=True).returncode == 0
