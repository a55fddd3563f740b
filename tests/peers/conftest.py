"""One Label Studio for all tests of a run."""

from collections.abc import Iterator

import pytest

from tests.peers.label_studio import LabelStudio, label_studio


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    with label_studio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running
