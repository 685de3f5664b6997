"""For all tests: what shortens them and changes nothing that they see."""

import gc
import os

import pytest

# What tests write need not survive a loss of power.
os.fsync = lambda _: None
# torch and its like leave half a million objects, through which each full collection goes.
gc.set_threshold(20_000, 20, 20)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file run in one process, where they share what its fixtures made."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
