"""`python -m jobs.experiments PAGE CURVES...`: what others published and what was run here, as a page for docs/."""

import argparse
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Write the page. Returns the exit status."""
    from engine.errors import ConfigError, VaalError
    from engine.simulation.experiments_page import charts_of, page_of
    from engine.simulation.simulate import CURVES_SCHEMA
    from engine.storage.location import Location

    parser = argparse.ArgumentParser(prog="python -m jobs.experiments", description=__doc__)
    parser.add_argument("page", help="the Markdown file to write: docs/experiments.md")
    named = "NAME.parquet: curves.parquet of experiments/NAME.toml; NAME@KEY=VALUE.parquet: that with --set KEY=VALUE"
    parser.add_argument("curves", nargs="*", help=named)
    parser.add_argument("--experiments", default="experiments", help="folder of the experiments and published.toml")
    given = parser.parse_args(arguments)
    files = [Location.of(file) for file in given.curves]
    try:
        curves = {
            file.name.removesuffix(".parquet"): file.read_typed_table(CURVES_SCHEMA).replace_schema_metadata(
                file.read_table().schema.metadata
            )
            for file in files
        }
        if len(curves) < len(files):
            raise ConfigError("two of the files have the same name: it says which experiment they are of")
        if not given.page.endswith(".md"):
            raise ConfigError(f"{given.page}: the charts go beside the page, into a folder of its name; end it in .md")
        page, folder = Location.of(given.page), Location.of(given.page.removesuffix(".md"))
        text = page_of(Location.of(given.experiments), curves, folder.name)
        for name, chart in charts_of(curves).items():
            (folder / name).write_bytes(chart)
        page.write_bytes(text.encode())
    except VaalError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
