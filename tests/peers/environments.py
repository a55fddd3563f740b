"""Environments of peers: real programs of others, never in the product's own environment."""

from pathlib import Path

import pytest

PEERS = Path(__file__).parents[2] / "build/peers"


def environment(peer: str) -> Path:
    """The Python of a peer; the test is skipped where the peer is not there."""
    python = PEERS / peer / "bin/python"
    if not python.exists():
        pytest.skip(f"run make peer-{peer}")
    return python
