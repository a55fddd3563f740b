"""The files of cluster/ agree with one another, with constraints.txt and with the schemas of Ray and KubeRay."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import ray.autoscaler
import yaml
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION
from ray.autoscaler._private.util import prepare_config, validate_config

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.job_command import job_command
from tests.cluster.kuberay import RAY_CLUSTER_SCHEMA, RAY_JOB_SCHEMA, Schema

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
IMAGE_TAG = f"{PROJECT['project']['version']}-ray{PINS['ray']}"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return document


AWS = load("aws.yaml")
RAY_JOB = load("rayjob.yaml")
RAY_CLUSTER = load("raycluster.yaml")
CLUSTER_SPEC = RAY_JOB["spec"]["rayClusterSpec"]
WORKER_GROUPS = {group["groupName"]: group for group in CLUSTER_SPEC["workerGroupSpecs"]}
PODS = {
    name: group["template"]["spec"] for name, group in {"head": CLUSTER_SPEC["headGroupSpec"], **WORKER_GROUPS}.items()
}


@pytest.mark.parametrize(
    ("document", "schema"),
    [(RAY_JOB, RAY_JOB_SCHEMA), (RAY_CLUSTER, RAY_CLUSTER_SCHEMA)],
    ids=["job", "cluster"],
)
def test_kuberay_knows_every_field(document: dict[str, Any], schema: Schema) -> None:
    jsonschema.validate(document, schema)


def test_ray_up_takes_the_aws_file() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(AWS, schema)
    prepared = prepare_config(yaml.safe_load((CLUSTER / "aws.yaml").read_text()))
    validate_config(prepared)
    assert prepared["setup_commands"] == prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []


def test_both_kuberay_files_describe_the_same_cluster() -> None:
    assert RAY_CLUSTER["spec"] == CLUSTER_SPEC


def test_the_job_runs_what_submit_runs() -> None:
    line = RAY_JOB["spec"]["entrypoint"]
    campaign = shlex.split(line)[4]
    assert campaign.startswith("s3://")
    submitted = job_command(["round", campaign], ["round"], COMMANDS_WITH_RAY).line
    assert line == f"python -m jobs round {campaign} --address auto" == submitted


def test_a_finished_job_leaves_no_cluster_and_a_failed_one_is_retried() -> None:
    spec = RAY_JOB["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] > 0


def test_every_node_runs_the_image_of_this_version() -> None:
    images = {container["image"] for pod in PODS.values() for container in pod["containers"]} | {AWS["docker"]["image"]}
    assert len(images) == 1
    assert images.pop().rpartition(":")[2] == IMAGE_TAG
    own_images = {"head_image", "worker_image"}
    assert not own_images & set(AWS["docker"])
    assert not any(own_images & set(kind.get("docker", {})) for kind in AWS["available_node_types"].values())


def test_ray_versions_are_the_pinned_one() -> None:
    assert CLUSTER_SPEC["rayVersion"] == PINS["ray"]
    tags = re.findall(r"/vaal:(\S+)", (CLUSTER / "README.md").read_text())
    assert len(tags) >= 2
    assert set(tags) == {IMAGE_TAG}


@pytest.mark.parametrize(
    ("row", "version"), [("Ray", PINS["ray"]), ("torch", PINS["torch"]), ("DeepSpeed", PINS["deepspeed"])]
)
def test_the_table_of_versions_is_the_pinned_one(row: str, version: str) -> None:
    assert re.search(rf"^\| {row} \| {re.escape(version)}[ ,]", (CLUSTER / "README.md").read_text(), re.MULTILINE)


def test_the_driver_in_the_table_fits_the_cuda_of_torch() -> None:
    cuda = PINS["cuda-toolkit"].partition(".")[0]
    assert f"| {PINS['torch']}, with its own CUDA {cuda} libraries |" in (CLUSTER / "README.md").read_text()


def test_no_task_runs_on_the_head() -> None:
    assert CLUSTER_SPEC["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    head = AWS["available_node_types"][AWS["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert head["max_workers"] == 0


def test_only_gpu_workers_ask_for_gpus() -> None:
    limits = {name: pod["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for name, pod in PODS.items()}
    assert limits == {"head": None, "cpu": None, "gpu": "1"}
    assert any(toleration["key"] == "nvidia.com/gpu" for toleration in PODS["gpu"]["tolerations"])
    kinds = AWS["available_node_types"]
    showing_gpus = [name for name, kind in kinds.items() if "NVIDIA_VISIBLE_DEVICES" in str(kind.get("docker"))]
    assert showing_gpus == ["gpu"]
    assert "NVIDIA_VISIBLE_DEVICES" not in DOCKERFILE


def test_workers_scale_between_bounds() -> None:
    assert CLUSTER_SPEC["enableInTreeAutoscaling"] is True
    kinds = AWS["available_node_types"]
    for name, group in WORKER_GROUPS.items():
        assert group["minReplicas"] < group["maxReplicas"]
        assert (group["minReplicas"], group["maxReplicas"]) == (
            kinds[name]["min_workers"],
            kinds[name]["max_workers"],
        )
    assert AWS["max_workers"] == sum(kind["max_workers"] for kind in kinds.values())


def num_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) << 10 * (1 + "KMGT".index(unit))


@pytest.mark.parametrize("name", PODS)
def test_shared_memory_holds_the_object_store_and_leaves_room(name: str) -> None:
    """Ray's store takes a share of the memory, or 95 % of /dev/shm where that is less."""
    [container] = PODS[name]["containers"]
    [volume] = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    [folder] = [volume_["emptyDir"] for volume_ in PODS[name]["volumes"] if volume_["name"] == volume]
    memory = num_bytes(container["resources"]["limits"]["memory"])
    assert folder["medium"] == "Memory"
    assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory <= 0.95 * num_bytes(folder["sizeLimit"]) < memory / 2


@pytest.mark.parametrize("name", PODS)
def test_pods_have_what_they_ask_for_and_may_reach_the_store(name: str) -> None:
    [container] = PODS[name]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert PODS[name]["serviceAccountName"] == "vaal"
    assert PODS[name]["securityContext"]["runAsNonRoot"] is True
    assert container["envFrom"] == [{"secretRef": {"name": "vaal-object-store", "optional": True}}]


def test_strangers_cannot_submit_jobs() -> None:
    assert CLUSTER_SPEC["authOptions"]["mode"] == "token"
    assert not any("--dashboard-host" in command for command in AWS["head_start_ray_commands"])


def test_machines_on_aws_have_a_driver_and_rights() -> None:
    for kind in AWS["available_node_types"].values():
        assert "nvidia-driver" in kind["node_config"]["ImageId"]
        assert kind["node_config"]["IamInstanceProfile"]["Name"] in ("vaal-head", "vaal-worker")


def instructions(keyword: str) -> list[str]:
    """What follows the keyword, with continued lines joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(keyword).strip() for line in joined.splitlines() if line.startswith(f"{keyword} ")]


def sources() -> list[str]:
    return [name for copied in instructions("COPY") for name in copied.split()[:-1]]


def test_python_of_the_image_is_allowed_and_in_the_table() -> None:
    [base] = instructions("FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", base)
    lowest = re.fullmatch(r">=(\d+\.\d+)", PROJECT["project"]["requires-python"])
    assert version
    assert lowest
    assert tuple(map(int, version[1].split("."))) >= tuple(map(int, lowest[1].split(".")))
    assert f"| Python | {version[1]} |" in (CLUSTER / "README.md").read_text()


def test_what_the_image_copies_exists_and_is_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources()) == sent
    for name in sources():
        assert (ROOT / name).exists(), name


def test_the_image_holds_the_whole_package() -> None:
    packages = {name.removesuffix("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    metadata = {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert set(sources()) == packages | metadata | {"pyproject.toml", "constraints.txt"}


def test_a_change_of_code_does_not_install_torch_again() -> None:
    dependencies = DOCKERFILE.index("pip install --no-cache-dir -c constraints.txt -r requirements.txt")
    own = DOCKERFILE.index("pip install --no-cache-dir --no-deps")
    for package in ("vaal", "engine", "jobs"):
        assert dependencies < DOCKERFILE.index(f"COPY {package} ") < own


def test_the_image_runs_as_a_number_and_takes_any_command() -> None:
    assert instructions("USER") == ["1000"]
    assert not instructions("ENTRYPOINT")


def test_the_readme_names_files_that_exist() -> None:
    named = set(re.findall(r"cluster/[\w.]+", (CLUSTER / "README.md").read_text()))
    assert {
        "cluster/Dockerfile",
        "cluster/rayjob.yaml",
        "cluster/raycluster.yaml",
        "cluster/aws.yaml",
    } <= named
    assert all((ROOT / name).exists() for name in named)
