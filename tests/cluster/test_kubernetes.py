"""What cluster/kubernetes gives is taken by Kubernetes and KubeRay, and is as closed as it can be."""

import copy
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION

from engine.campaign.stages import COMMANDS_WITH_RAY
from engine.cluster.job_command import job_command
from tests.cluster.manifests import CLUSTER, Object, faults_of, objects_of, pods_of, rendered
from tests.cluster.versions import IMAGE_TAG, PINS

ROUND, NIGHTLY = ("round",), ("nightly", "monitoring")
WORKERS = {"cpu": ["cpu"], "gpu": ["cpu", "gpu"], "spot": ["cpu", "gpu"]}
KINDS = [(workers, components) for workers in WORKERS for components in (ROUND, NIGHTLY)]


def ray_of(workers: str, components: tuple[str, ...]) -> Object:
    objects = rendered(workers, components)
    return objects["RayJob/vaal-round" if components == ROUND else "RayCluster/vaal"]


def pods(workers: str, components: tuple[str, ...]) -> dict[str, Object]:
    found: dict[str, Object] = {}
    for document in rendered(workers, components).values():
        found |= pods_of(document)
    return found


@pytest.mark.heavy
@pytest.mark.parametrize(("workers", "components"), KINDS)
def test_kubernetes_and_kuberay_take_every_object(workers: str, components: tuple[str, ...]) -> None:
    for name, document in rendered(workers, components).items():
        assert faults_of(document) == [], name


def changed(document: Object, change: Callable[[Any], None]) -> list[str]:
    copied = copy.deepcopy(document)
    change(copied["spec"])
    return faults_of(copied)


@pytest.mark.heavy
def test_what_they_refuse_is_found() -> None:
    job, cluster = ray_of("gpu", ROUND), ray_of("gpu", NIGHTLY)
    rules = ("deletionStrategy", "deletionRules")
    assert changed(job, lambda spec: spec.update(backofLimit=1))
    assert changed(job, lambda spec: spec["rayClusterSpec"]["authOptions"].update(mode="Token"))
    assert changed(job, lambda spec: spec["rayClusterSpec"].update(rayVersion="2.51.0"))
    assert changed(job, lambda spec: spec.update(ttlSecondsAfterFinished=60))
    assert changed(job, lambda spec: spec[rules[0]][rules[1]][0].update(policy="DeleteWorkers"))
    assert changed(job, lambda spec: spec[rules[0]].update(onFailure={"policy": "DeleteCluster"}))
    assert changed(job, lambda spec: spec[rules[0]][rules[1]][0]["condition"].update(jobDeploymentStatus="Failed"))
    assert changed(job, lambda spec: spec.update(clusterSelector={"ray.io/cluster": "vaal"}, backoffLimit=1))
    assert changed(cluster, lambda spec: spec["headGroupSpec"]["template"]["spec"].update(restartPolicy="Always"))
    assert changed(cluster, lambda spec: spec["headGroupSpec"].update(rayStartParams=None))
    cron = rendered("gpu", NIGHTLY)["CronJob/vaal-nightly"]
    assert changed(cron, lambda spec: spec.update(concurencyPolicy="Forbid"))


def test_a_round_has_the_cluster_that_stays_up_and_no_other() -> None:
    for workers, groups in WORKERS.items():
        cluster = ray_of(workers, NIGHTLY)["spec"]
        assert ray_of(workers, ROUND)["spec"]["rayClusterSpec"] == cluster
        assert [group["groupName"] for group in cluster["workerGroupSpecs"]] == groups
        assert "RayCluster/vaal" not in rendered(workers, ROUND)


def test_the_site_as_it_comes_is_a_round_on_gpus() -> None:
    assert objects_of(CLUSTER / "kubernetes/site") == rendered("gpu", ROUND)


def test_roles_of_the_cloud_are_for_who_uses_the_bucket() -> None:
    objects = rendered("gpu", NIGHTLY)
    named = [name for name, document in objects.items() if "annotations" in document["metadata"]]
    assert named == ["ServiceAccount/vaal-head", "ServiceAccount/vaal-worker"]


def test_every_pod_runs_the_image_of_this_version() -> None:
    for components in (ROUND, NIGHTLY):
        for template in pods("gpu", components).values():
            assert template["spec"]["containers"][0]["image"] == f"example.com/vaal:{IMAGE_TAG}"
    assert ray_of("gpu", NIGHTLY)["spec"]["rayVersion"] == PINS["ray"]


@pytest.mark.parametrize(("workers", "components"), KINDS)
def test_every_pod_is_locked_down(workers: str, components: tuple[str, ...]) -> None:
    home = re.search(r"^ENV HOME=(\S+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    user = re.search(r"^USER (\d+)", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    assert home
    assert user
    for name, template in pods(workers, components).items():
        pod = template["spec"]
        [container] = pod["containers"]
        rules = pod["securityContext"]
        assert rules["runAsNonRoot"] is True, name
        assert rules["runAsUser"] == rules["fsGroup"] == int(user[1])
        assert rules["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        folders = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: folders[mount["name"]] for mount in container["volumeMounts"]}
        assert {"/tmp", home[1]} <= mounts.keys()
        on_disk = {id(folder): num_bytes(folder["sizeLimit"]) for folder in folders.values() if "medium" not in folder}
        limits = container["resources"]["limits"]
        assert sum(on_disk.values()) <= num_bytes(limits["ephemeral-storage"])
        assert container["resources"]["requests"] == limits
        assert "privileged" not in str(template)
        assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC"))


def test_the_autoscaler_is_locked_down_too() -> None:
    options = ray_of("gpu", NIGHTLY)["spec"]["autoscalerOptions"]
    head = pods("gpu", NIGHTLY)["head"]["spec"]
    assert options["version"] == "v2"
    assert options["securityContext"] == head["containers"][0]["securityContext"]
    assert {mount["name"] for mount in options["volumeMounts"]} <= {volume["name"] for volume in head["volumes"]}
    assert options["resources"]["limits"] == options["resources"]["requests"]


@pytest.mark.parametrize(("workers", "components"), KINDS)
def test_accounts_are_apart_and_only_the_head_has_a_token(workers: str, components: tuple[str, ...]) -> None:
    objects = rendered(workers, components)
    assert objects["Namespace/vaal"]["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert {document["metadata"].get("namespace", "vaal") for document in objects.values()} == {"vaal"}
    for name, template in pods(workers, components).items():
        account = {"head": "vaal-head", "submit": "vaal-submit"}.get(name, "vaal-worker")
        assert template["spec"]["serviceAccountName"] == account
        for place in (template["spec"], objects[f"ServiceAccount/{account}"]):
            assert place.get("automountServiceAccountToken", True) == (name == "head")


@pytest.mark.parametrize(("workers", "components"), KINDS)
def test_the_network_lets_in_commands_the_operator_and_metrics(workers: str, components: tuple[str, ...]) -> None:
    objects = rendered(workers, components)
    assert objects["NetworkPolicy/vaal-nobody"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = objects["NetworkPolicy/vaal-ray"]["spec"]
    labels = {name: template["metadata"]["labels"] for name, template in pods(workers, components).items()}
    submitted = labels.pop("submit")
    assert all(label == policy["podSelector"]["matchLabels"] for label in labels.values())
    inside, commands, metrics = policy["ingress"]
    assert inside == {"from": [{"podSelector": policy["podSelector"]}]}
    assert commands["from"][0] == {"podSelector": {"matchLabels": submitted}}
    assert [port["port"] for port in commands["ports"]] == [8265]
    [head] = pods(workers, components)["head"]["spec"]["containers"]
    ports = {"metrics": 8080} | {port["name"]: port["containerPort"] for port in head["ports"]}
    assert ports["dashboard"] == 8265
    if components == NIGHTLY:
        monitor = objects["PodMonitor/vaal-ray"]["spec"]
        assert monitor["selector"] == policy["podSelector"]
        scraped = {ports[endpoint["port"]] for endpoint in monitor["podMetricsEndpoints"]}
        assert scraped == {port["port"] for port in metrics["ports"]}


def test_the_job_runs_what_submit_runs() -> None:
    line = ray_of("gpu", ROUND)["spec"]["entrypoint"]
    campaign = shlex.split(line)[4]
    assert campaign.startswith("s3://")
    assert line == job_command(["round", campaign], ["round"], COMMANDS_WITH_RAY).line


def test_a_failed_round_is_kept_to_look_at_and_not_tried_again_on_another_cluster() -> None:
    spec = ray_of("gpu", ROUND)["spec"]
    assert spec["backoffLimit"] == 0
    rules = spec["deletionStrategy"]["deletionRules"]
    seconds = {next(iter(rule["condition"].values())): rule["condition"]["ttlSeconds"] for rule in rules}
    assert seconds == {"SUCCEEDED": 60, "FAILED": 3600, "Failed": 3600}


def test_every_night_has_one_round_and_what_a_person_must_fix_is_not_tried_again() -> None:
    spec = rendered("gpu", NIGHTLY)["CronJob/vaal-nightly"]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    job = spec["jobTemplate"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    rule, *_ = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3, 4, 5]}
    assert job["backoffLimit"] > 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    words = container["command"] + container["args"]
    assert words[:2] == ["vaal", "submit"]
    assert words[words.index("--address") + 1] == "http://vaal-head-svc:8265"
    assert container["env"][1]["valueFrom"] == {"secretKeyRef": {"name": "vaal", "key": "auth_token"}}


def test_only_gpu_workers_ask_for_gpus_and_only_those_of_spot_run_there() -> None:
    for workers in ("gpu", "spot"):
        found = {name: template["spec"] for name, template in pods(workers, NIGHTLY).items()}
        asking = [
            name for name, pod in found.items() if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"]
        ]
        assert asking == ["gpu"]
        assert found["gpu"]["nodeSelector"]["cloud.google.com/gke-accelerator"]
        on_spot = [name for name, pod in found.items() if "gke-spot" in str(pod)]
        assert on_spot == (["gpu"] if workers == "spot" else [])
        keys = [toleration["key"] for toleration in found["gpu"]["tolerations"]]
        assert keys == ["nvidia.com/gpu", "cloud.google.com/gke-spot"][: 1 + len(on_spot)]


def test_no_task_runs_on_the_head_and_nobody_moves_it() -> None:
    head = ray_of("spot", ROUND)["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert head["template"]["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"


def num_bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMGT])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) << 10 * (1 + "KMGT".index(unit))


def test_shared_memory_holds_the_object_store_and_leaves_room() -> None:
    """Ray's store takes a share of the memory, or 95 % of /dev/shm where that is less."""
    found = pods("gpu", NIGHTLY)
    for name in ("head", "cpu", "gpu"):
        pod = found[name]["spec"]
        [container] = pod["containers"]
        [volume] = [mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
        [folder] = [one["emptyDir"] for one in pod["volumes"] if one["name"] == volume]
        memory = num_bytes(container["resources"]["limits"]["memory"])
        assert folder["medium"] == "Memory"
        assert DEFAULT_OBJECT_STORE_MEMORY_PROPORTION * memory <= 0.95 * num_bytes(folder["sizeLimit"]) < memory / 2
