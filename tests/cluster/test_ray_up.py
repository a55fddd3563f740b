"""The files of `ray up` are taken by Ray, and start the cluster that Kubernetes gets, with a token."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.gcp.config import get_node_type
from ray.autoscaler._private.gcp.node import GCPNodeType
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.manifests import CLUSTER
from tests.cluster.versions import IMAGE_TAG

NAMES = ("aws", "gcp")


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text())
    return document


@pytest.mark.parametrize("name", NAMES)
def test_ray_up_takes_the_file_and_installs_nothing(name: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(load(name), schema)
    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert prepared["setup_commands"] == prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []


@pytest.mark.parametrize("name", NAMES)
def test_strangers_can_neither_join_nor_submit(name: str) -> None:
    document = load(name)
    [(remote, local)] = document["file_mounts"].items()
    # The head hands the file on, from where it has it itself.
    assert remote == local == "~/.ray/auth_token"
    for role in ("head", "worker"):
        *_, command = document[f"{role}_start_ray_commands"]
        assert command.startswith("export RAY_AUTH_MODE=token && ray start ")
        assert "--dashboard-host" not in command


@pytest.mark.parametrize("name", NAMES)
def test_every_machine_runs_the_image_of_this_version(name: str) -> None:
    document = load(name)
    assert document["docker"]["image"] == f"example.com/vaal:{IMAGE_TAG}"
    own = {"head_image", "worker_image"}
    assert not any(own & set(kind.get("docker", {})) for kind in [document, *document["available_node_types"].values()])


@pytest.mark.parametrize("name", NAMES)
def test_machines_come_and_go_as_the_pods_do(name: str) -> None:
    document = load(name)
    kinds = document["available_node_types"]
    pods = yaml.safe_load((CLUSTER / "kubernetes/base/raycluster.yaml").read_text())["spec"]["workerGroupSpecs"]
    for group in pods:
        kind = kinds[group["groupName"]]
        assert (kind["min_workers"], kind["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
    assert document["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())
    head = kinds[document["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["max_workers"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_only_gpu_machines_show_gpus(name: str) -> None:
    kinds = load(name)["available_node_types"]
    showing = [kind for kind, row in kinds.items() if "NVIDIA_VISIBLE_DEVICES" in str(row.get("docker"))]
    assert showing == ["gpu"]
    assert "NVIDIA_VISIBLE_DEVICES" not in (CLUSTER / "Dockerfile").read_text()


def test_machines_on_aws_have_a_driver_rights_and_a_guarded_metadata_service() -> None:
    for kind in load("aws")["available_node_types"].values():
        assert "nvidia-driver" in kind["node_config"]["ImageId"]
        assert kind["node_config"]["IamInstanceProfile"]["Name"] in ("vaal-head", "vaal-worker")
        assert kind["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_machines_on_google_are_machines_with_a_driver_and_rights_of_their_own() -> None:
    for name, kind in load("gcp")["available_node_types"].items():
        config = kind["node_config"]
        assert get_node_type(config) == GCPNodeType.COMPUTE
        assert "nvidia-580" in config["disks"][0]["initializeParams"]["sourceImage"]
        emails = [account["email"] for account in config.get("serviceAccounts", [])]
        assert emails == ([] if name == "head" else ["vaal-worker@PROJECT.iam.gserviceaccount.com"])
