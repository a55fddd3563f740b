"""An autoscaler, Ray's own with its provider of pretended machines: it is asked for what is missing, and never for more
than it can add."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray._private.services import node_ip_address_from_perspective
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.conftest import MakeCampaign
from tests.faults.clusters import CURRENT, OBJECT_STORE_BYTES
from tests.faults.driver import running, started
from tests.servers import free_port

pytestmark = [pytest.mark.heavy, pytest.mark.slow, pytest.mark.timeout(600)]

HEAD = "ray.head.default"
"""The provider knows its head by this name."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
UNUSED = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "rsync_exclude",
    "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_filter",
)  # fmt: skip
"""Lists that the configuration must have."""


@contextmanager
def autoscaled(folder: Path, most: int) -> Iterator[str]:
    """The address of a head without CPUs, whose autoscaler adds up to so many machines with one."""
    host, port = node_ip_address_from_perspective(), free_port()
    resources = {"CPU": 1, "object_store_memory": OBJECT_STORE_BYTES}
    kinds = {"cpu": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}}
    config = {
        "cluster_name": "pretended", "max_workers": most, "upscaling_speed": 1.0, "idle_timeout_minutes": 5, "auth": {},
        "provider": {
            "type": "external", "module": PROVIDER, "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True, "launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": f"{host}:{port}",
        },
        "head_node_type": HEAD,
        "available_node_types": {HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}, **kinds},
        "docker": {}, "file_mounts": {},
        **{name: [] for name in UNUSED}, "file_mounts_sync_continuously": False,
    }  # fmt: skip
    (folder / "autoscaler.json").write_text(json.dumps(config))
    ray = Path(sys.executable).parent / "ray"
    words = [
        str(ray), "start", "--head", "--block", f"--port={port}", f"--node-ip-address={host}", "--num-cpus=0",
        f"--object-store-memory={OBJECT_STORE_BYTES}", "--include-dashboard=false", "--disable-usage-stats",
        f"--autoscaling-config={folder}/autoscaler.json",
    ]  # fmt: skip
    variables = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }  # fmt: skip
    with started(words, variables) as server:
        server.wait_for_words("Ray runtime started")
        try:
            yield f"{host}:{port}"
        finally:
            CURRENT.unlink(missing_ok=True)


def test_it_adds_what_is_missing_and_what_it_cannot_add_is_refused(make_campaign: MakeCampaign, tmp_path: Path) -> None:
    campaign = str(make_campaign("train.max_steps=4", "train.workers=2").home)
    with autoscaled(tmp_path, most=2) as address:
        with running("train", campaign, "--address", address, "--set", "train.workers=3") as driver:
            ended = driver.wait()
        assert ended.status == 2
        never = "3 workers with a CPU can never be there: the cluster has 0, and its autoscaler cannot add the rest"
        assert never in ended.one_error()
        assert ended.seconds < 60
        with running("train", campaign, "--address", address, "--set", "train.workers=2") as driver:
            driver.wait_for_words("waiting for 2 workers with a CPU: the cluster has 0; Ctrl-C ends this")
            ended = driver.wait(300)
        assert ended.status == 0, ended.errors
