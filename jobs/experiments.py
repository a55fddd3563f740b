"""`python -m jobs.experiments PAGE CURVES...`: what others published and what was run here, as a page for docs/."""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.storage.location import Location


def main(arguments: Sequence[str]) -> int:
    """Write the page. Returns the exit status."""
    from engine.config.texts import plural
    from engine.errors import ConfigError, VaalError
    from engine.simulation.experiments_page import charts_of, page_of
    from engine.storage.location import Location

    parser = argparse.ArgumentParser(prog="python -m jobs.experiments", description=__doc__)
    parser.add_argument("page", help="the Markdown file to write: docs/experiments.md")
    named = "NAME.parquet: curves.parquet of experiments/NAME.toml; NAME@KEY=VALUE.parquet: that with --set KEY=VALUE"
    parser.add_argument("curves", nargs="*", help=named)
    folder_of = "folder of the experiments, with published.toml if it has figures of others"
    parser.add_argument("--experiments", default="experiments", help=folder_of)
    given = parser.parse_args(arguments)
    try:
        curves, sha256 = _read([Location.of(file) for file in given.curves])
        if not given.page.endswith(".md"):
            raise ConfigError(f"{given.page}: the charts go beside the page, into a folder of its name; end it in .md")
        page, folder = Location.of(given.page), Location.of(given.page.removesuffix(".md"))
        experiments = Location.of(given.experiments)
        text = page_of(experiments, curves, folder.name, sha256)
        charts = charts_of(experiments, curves)
        for name, chart in charts.items():
            (folder / name).write_bytes(chart)
        page.write_bytes(text.encode())
        sys.stdout.write(f"{page}: {plural(len(curves), 'file')} of curves, {plural(len(charts), 'chart')}\n")
        if old := [name for name in folder.children() if name.endswith(".svg") and name not in charts]:
            sys.stderr.write(f"note: {folder} has charts that this page does not show: {', '.join(old)}\n")
    except VaalError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    return 0


def _read(files: list["Location"]) -> tuple[dict[str, "pa.Table"], dict[str, str]]:
    """Curves with what made them, and the SHA-256 of their file, by its name without .parquet."""
    from engine.errors import ConfigError
    from engine.simulation.simulate import CURVES_SCHEMA

    curves: dict[str, pa.Table] = {}
    places: dict[str, Location] = {}
    sha256: dict[str, str] = {}
    for file in files:
        stem = file.name.removesuffix(".parquet")
        if stem in curves:
            why = f"a file of that name is given before: {places[stem]}"
            raise ConfigError(f"{file}: {why}; the name says which experiment it is of, so give one of them")
        places[stem] = file
        table = file.read_typed_table(CURVES_SCHEMA, "give curves.parquet as vaal simulate writes it")
        curves[stem] = table.replace_schema_metadata(file.read_table().schema.metadata)
        sha256[stem] = hashlib.sha256(file.read_bytes()).hexdigest()
    return curves, sha256


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
