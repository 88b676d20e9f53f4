"""The modules behind the commands, as tests import them."""

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """From a name below clinbundles.scripts, such as audit.run, to its module."""

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"clinbundles.scripts.{name}")

    return load
