"""Exports that need not work out again what is the same for all of them."""

import pytest
from tests.fakes.exporter import torchlib_once


@pytest.fixture(scope="session", autouse=True)
def quick_exports() -> None:
    torchlib_once()
