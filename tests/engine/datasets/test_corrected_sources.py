"""Files of a source that are corrected after a run ended with an error."""

from pathlib import Path
from typing import Any

import pytest

from engine.datasets import DATA_SETS
from engine.errors import ConfigError, InputError
from tests.engine.datasets.test_converting import converted, files
from tests.engine.datasets.test_files_of_sources import sources
from tests.trees import TREES


@pytest.mark.parametrize("part", ["train", "test"])
def test_the_same_command_takes_a_corrected_file(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATA_SETS, "caltech256", DATA_SETS["caltech256"]._replace(shard_images=2))
    TREES["caltech256"](tmp_path / "in")
    converted("caltech256", tmp_path / "in", tmp_path / "whole")
    # The last image of a part: shards before it are written when the run ends.
    wrong = tmp_path / "in" / sources(tmp_path / "whole", part)[-1]
    content = wrong.read_bytes()
    wrong.write_bytes(b"")
    with pytest.raises(InputError, match="an empty file"):
        converted("caltech256", tmp_path / "in", tmp_path / "out")
    written = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.tar")}
    assert written
    wrong.write_bytes(content)
    lines: list[Any] = []
    converted("caltech256", tmp_path / "in", tmp_path / "out", log=lines.append)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    # Only the shard of that file changed, and it had not been written.
    now = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in written}
    assert now == written
    assert not [line for line in lines if "have changed" in line]
    # A complete folder stays what it is.
    wrong.write_bytes(content + b"\0")
    with pytest.raises(ConfigError, match="was made of other files than those"):
        converted("caltech256", tmp_path / "in", tmp_path / "out")


def test_shards_that_a_corrected_file_changes_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATA_SETS, "caltech256", DATA_SETS["caltech256"]._replace(shard_images=2))
    TREES["caltech256"](tmp_path / "in")
    converted("caltech256", tmp_path / "in", tmp_path / "one")
    last, first = (tmp_path / "in" / sources(tmp_path / "one", part)[-1] for part in ("train", "test"))
    twin = tmp_path / "in" / sources(tmp_path / "one", "train")[0]
    content = last.read_bytes()
    last.write_bytes(b"")
    with pytest.raises(InputError, match="an empty file"):
        converted("caltech256", tmp_path / "in", tmp_path / "out")
    last.write_bytes(content)
    # An image of test becomes one that a shard of train holds already: it has to go from there.
    first.write_bytes(twin.read_bytes())
    lines: list[str] = []
    found = converted("caltech256", tmp_path / "in", tmp_path / "out", log=lines.append)
    assert found.left_out == 1
    converted("caltech256", tmp_path / "in", tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert [line for line in lines if "have changed since this was begun; shards that are written again: " in line]
