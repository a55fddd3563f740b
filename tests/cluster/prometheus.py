"""A real Prometheus that scrapes a Ray, and promtool: Debian's, unpacked by `make prometheus`."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.faults.driver import started
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
BIN = ROOT / "build/prometheus/usr/bin"
ALERTS = ROOT / "cluster/prometheus/alerts.yaml"
DASHBOARD = ROOT / "cluster/grafana/vaal.json"
needs_prometheus = pytest.mark.skipif(not (BIN / "prometheus").exists(), reason="run make prometheus")


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "promtool", *words], capture_output=True, text=True, check=False, env=os.environ)


class Prometheus:
    """The API of a server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """What the API answers. Raises where it does not, as to an expression that is wrong."""
        with urlopen(f"{self._url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def now(self, expression: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def history(self, expression: str, begin: float) -> list[tuple[dict[str, str], list[float]]]:
        """The labels and the values of each series since then, one a second."""
        times = {"start": str(begin), "end": str(time.time()), "step": "1"}
        found = self.ask("query_range", query=expression, **times)["result"]
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in found]


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[Prometheus]:
    """A server with the alerts of cluster/ that looks at these targets every second."""
    jobs = [{"job_name": "ray", "static_configs": [{"targets": targets}]}]
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(ALERTS)]}
    (folder / "prometheus.yaml").write_text(json.dumps({**config, "scrape_configs": jobs}))
    address = f"127.0.0.1:{free_port()}"
    words = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb"]
    with started([str(BIN / "prometheus"), *words, f"--web.listen-address={address}"], {}):
        server, deadline = Prometheus(f"http://{address}"), time.monotonic() + 30
        while True:
            try:
                server.now("up")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield server
