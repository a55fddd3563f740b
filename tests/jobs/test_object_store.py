"""A whole round with the pool and the campaign on S3, over HTTP."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from typer.testing import CliRunner, Result

from engine.simulation.demo_pools import DemoPool
from jobs.cli import app
from tests.servers import s3_server


def vaal(*arguments: str) -> Result:
    """A command that needs no Ray, in this process."""
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.timeout(300)
def test_a_round_on_s3(pool: DemoPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A server in Python takes its time over a request: three shards are enough.
    files = sorted(Path(pool.shards[0]).parent.glob("*.tar"))[:3]
    labels = tmp_path / "labels.csv"
    with pool.labels.open() as rows:
        labels.write_text("".join(row for row in rows if row.startswith(("shard,", *(file.name for file in files)))))
    with s3_server("bucket") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        s3 = fs.S3FileSystem(
            endpoint_override=environment["AWS_ENDPOINT_URL"], access_key="key", secret_key="secret", region="us-east-1"
        )
        for file in files:
            with s3.open_output_stream(f"bucket/pool/{file.name}") as stream:
                stream.write(file.read_bytes())
        campaign = "s3://bucket/campaigns/one"
        shards = "s3://bucket/pool/digits-{00000..00002}.tar"
        settings = [w for s in (*pool.settings, "train.max_steps=12") for w in ("--set", s)]
        made = vaal("init", campaign, "--pool", shards, "--labels", str(labels), *settings, "--json")
        assert json.loads(made.stdout)["config"]["pool"]["root"] == "s3://bucket/pool", made.output
        assert "already holds a campaign" in vaal("init", campaign, "--pool", shards, "--labels", "x").stderr
        missing = vaal("init", campaign + "2", "--pool", "s3://bucket/pool/no-*.tar", "--labels", str(labels))
        assert (missing.exit_code, "no shard matches" in missing.stderr) == (4, True)

        # In a process of its own, for what Ray starts has the variables that Ray was started with.
        words = [sys.executable, "-m", "jobs", "round", campaign]
        played = subprocess.run(words, capture_output=True, text=True, check=False)
        assert played.returncode == 0, played.stderr
        state = json.loads(vaal("status", campaign, "--json").stdout)
        assert all(stage["complete"] for stage in state["rounds"][0]["stages"].values())
        picks = pq.read_table("bucket/campaigns/one/rounds/000/selection/selection.parquet", filesystem=s3).to_pylist()
        assert len(picks) == 100
        images = s3.get_file_info(fs.FileSelector("bucket/campaigns/one/rounds/000/handoff/generic/images"))
        assert {info.base_name for info in images} == {f"{pick['item_id']}.png" for pick in picks}
