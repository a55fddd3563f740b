"""Peers' environments below build/peers: each is made by `make peer-NAME` from tests/peers/NAME/requirements.txt."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "build/peers"


def python_of(name: str) -> Path:
    """The Python of a peer's environment, whether or not it is there."""
    return PEERS / name / "bin/python"


def needs_peer(name: str) -> pytest.MarkDecorator:
    """Skips a test where the environment is missing."""
    return pytest.mark.skipif(not python_of(name).exists(), reason=f"run make peer-{name}")


def environment(name: str) -> Path:
    """The Python of a peer, for a helper or a fixture; skips the test where the environment is missing."""
    if not python_of(name).exists():
        pytest.skip(f"run make peer-{name}")
    return python_of(name)
