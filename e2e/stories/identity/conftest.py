"""Two tenants for the tests of a file."""

from types import SimpleNamespace

import pytest
from tenants import settle


@pytest.fixture(scope="module")
def world(ferroflow):
    ann, bob, has = settle(ferroflow)
    return SimpleNamespace(ferroflow=ferroflow, ann=ann, bob=bob, has=has)
