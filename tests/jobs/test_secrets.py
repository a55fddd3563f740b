"""A password or a signature in a URL is refused wherever a URL is given, and is neither printed nor kept."""

from functools import reduce
from pathlib import Path

import pytest

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.job_command import job_command
from engine.cluster.submission import JobServer
from engine.errors import ConfigError
from engine.simulation.demo_pools import DemoPool
from tests.conftest import MakeCampaign
from tests.jobs.test_cli import vaal

URLS = (
    "s3://KEY:HIDDEN@bucket/x",
    "s3://KEY:HID/DEN@bucket/x",
    "s3://bucket/x?secret_key=HIDDEN",
    "https://user:HIDDEN@host/x",
    "https://host/x?X-Amz-Signature=HIDDEN",
)
COMMANDS = {
    "a campaign": ["status", "URL"],
    "a stage": ["train", "URL"],
    "a pool": ["init", "NEW", "--pool", "URL", "--labels", "LABELS"],
    "first labels": ["init", "NEW", "--pool", "SHARDS", "--labels", "URL"],
    "a file of options": ["init", "NEW", "--pool", "SHARDS", "--labels", "LABELS", "--config", "URL"],
    "embeddings": ["init", "NEW", "--pool", "SHARDS", "--labels", "LABELS", "--set", "pool.embeddings=URL"],
    "metadata": ["init", "NEW", "--pool", "SHARDS", "--labels", "LABELS", "--set", "pool.metadata=URL"],
    "weights of an encoder": ["train", "HOME", "--set", "encoder.weights=URL"],
    "weights of a model": ["score", "HOME", "--set", "task.weights=URL"],
    "masks": ["train", "HOME", "--set", "labels.masks=URL"],
    "a pool that moved": ["train", "HOME", "--set", "pool.root=URL"],
    "answers": ["ingest", "HOME", "URL"],
    "what is forgotten": ["labels", "HOME", "forget", "--items", "URL"],
    "a labelled set": ["labels", "HOME", "export", "--out", "URL"],
    "an experiment": ["simulate", "URL", "--out", "NEW"],
    "a cluster": ["train", "HOME", "--address", "URL"],
    "a job server": ["submit", "--address", "URL", "status", "s3://bucket/campaign"],
    "a job's campaign": ["submit", "--address", "http://127.0.0.1:9", "status", "URL"],
    "a job's option": [
        "submit",
        "--address",
        "http://127.0.0.1:9",
        "--",
        "train",
        "s3://b/c",
        "--set",
        "task.weights=URL",
    ],
}


@pytest.mark.parametrize("what", COMMANDS)
def test_a_secret_in_a_url_is_refused_not_printed_and_not_kept(
    what: str, make_campaign: MakeCampaign, pool: DemoPool, tmp_path: Path
) -> None:
    fixed = {
        "HOME": make_campaign().home.url,
        "NEW": str(tmp_path / "new"),
        "SHARDS": pool.shards[0],
        "LABELS": str(pool.labels),
    }
    for url in URLS:
        words = [reduce(lambda text, name: text.replace(*name), fixed.items(), word) for word in COMMANDS[what]]
        result = vaal(*(word.replace("URL", url) for word in words))
        assert result.exit_code == 2, (url, result.output)
        [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert "***" in line
        assert "HID" not in result.output + result.stderr, result.output
        assert "DEN" not in result.output + result.stderr, result.output
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"HIDDEN" in path.read_bytes()]
    assert kept == []


def test_what_a_cluster_shows_of_a_job_has_no_secret() -> None:
    for url in URLS:
        with pytest.raises(ConfigError, match=r"\*\*\*.*a cluster shows the commands of its jobs"):
            job_command(["train", "s3://b/c", "--set", f"task.weights={url}"], ["train"], COMMANDS_WITH_RAY)
    plain = ["train", "s3://b/c", "--set", "select.where=a?b=1", "--set", "hooks.on_stage=https://host/hook"]
    assert job_command(plain, ["train"], COMMANDS_WITH_RAY).campaign == "s3://b/c"


def test_an_address_that_is_no_url_is_named() -> None:
    for address in ("http://host:port", "http://[bad", "http://a b"):
        with pytest.raises(ConfigError, match="not a URL"):
            JobServer(address)
