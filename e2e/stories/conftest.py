"""Fixtures of all stories: a Ferroflow of their own, on free ports, with a data folder of its own."""

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server import Ferroflow  # noqa: E402


def _run(*flags):
    ferroflow = Ferroflow(tempfile.mkdtemp(prefix="ferroflow-story-", dir="/var/tmp"), *flags)
    ferroflow.start()
    return ferroflow


@pytest.fixture(scope="module")
def ferroflow():
    """A fresh Ferroflow for the tests of one file."""
    running = _run()
    yield running
    running.end()


@pytest.fixture
def fresh_ferroflow():
    """A fresh Ferroflow for one test, which may kill it."""
    running = _run()
    yield running
    running.end()
