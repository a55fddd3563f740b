"""The objects that cluster/kubernetes gives, and what Kubernetes and KubeRay would say of them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy  # type: ignore[import-untyped]
import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
CRDS = Path(os.environ.get("VAAL_DATA", Path(__file__).parents[3] / "shared/data")) / "kuberay-crds"
KUBERNETES = "1.37"
Object = dict[str, Any]


@cache
def rendered(workers: str, components: tuple[str, ...] = ()) -> dict[str, Object]:
    """The objects of cluster/kubernetes/site with these workers and components, by KIND/NAME."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl here, whose kustomize renders cluster/kubernetes")
    site = yaml.safe_load((CLUSTER / "kubernetes/site/kustomization.yaml").read_text())
    site |= {"resources": [f"../{workers}"], "components": [f"../{name}" for name in components]}
    with tempfile.TemporaryDirectory() as folder:
        # Kustomize follows relative paths alone.
        copied = shutil.copytree(CLUSTER / "kubernetes", Path(folder) / "kubernetes")
        (copied / "site/kustomization.yaml").write_text(yaml.safe_dump(site))
        return objects_of(copied / "site")


def objects_of(folder: Path) -> dict[str, Object]:
    """What kustomize makes of a folder."""
    ended = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = [document for document in yaml.safe_load_all(ended.stdout) if document]
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in found}


def faults_of(document: Object) -> list[str]:
    """What the API server and KubeRay's operator refuse in an object."""
    group = document["apiVersion"].partition("/")[0]
    if group == "ray.io":
        schema = _crd(document["kind"])
        errors = jsonschema.Draft7Validator(_strict(schema)).iter_errors(document)
        faults = [f"{error.json_path}: {error.message}" for error in errors]
        return faults + list(_broken(schema, document)) + list(_refused(document["kind"], document))
    if group == "monitoring.coreos.com":
        return []
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


def _crd(kind: str) -> Object:
    file = CRDS / f"{kind.lower()}s.json"
    if not file.exists():
        pytest.skip(f"no kuberay-crds/{file.name} below VAAL_DATA or ../shared/data")
    schema: Object = json.loads(file.read_text())["openAPIV3Schema"]
    return schema


def _strict(schema: Any) -> Any:
    """The schema as the API server takes it with strict checks: a field that it does not name is refused."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    closed = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed


def _broken(schema: Object, value: Any) -> Iterator[str]:
    """The messages of the schema's own rules that a value breaks. Those of changes (oldSelf) need a former value."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            environment = celpy.Environment()
            program = environment.program(environment.compile(rule["rule"]))
            if not program.evaluate({"self": celpy.json_to_cel(value)}):
                yield rule["message"]
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _broken(schema.get("properties", {}).get(name, {}), part)
    elif isinstance(value, list):
        for part in value:
            yield from _broken(schema.get("items", {}), part)


def _refused(kind: str, document: Object) -> Iterator[str]:
    """What no schema says: the rules of KubeRay 1.7 in ray-operator/controllers/ray/utils/validation.go."""
    spec = document["spec"]
    cluster = spec if kind == "RayCluster" else spec.get("rayClusterSpec", {})
    grows = cluster.get("enableInTreeAutoscaling", False)
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
    if cluster.get("authOptions", {}).get("mode") == "token" and version < (2, 52):
        yield "authOptions.mode is token, and rayVersion is below 2.52"
    groups = [cluster.get("headGroupSpec", {}), *cluster.get("workerGroupSpecs", [])]
    if grows and any("restartPolicy" in group.get("template", {}).get("spec", {}) for group in groups):
        yield "a restartPolicy, with the second autoscaler"
    if kind == "RayCluster":
        return
    rules = spec.get("deletionStrategy", {}).get("deletionRules", [])
    if len(document["metadata"]["name"]) > 47:
        yield "a name of more than 47 characters"
    if rules and (spec.get("shutdownAfterJobFinishes") or spec.get("ttlSecondsAfterFinished")):
        yield "deletionRules beside shutdownAfterJobFinishes or ttlSecondsAfterFinished"
    if grows and any(rule["policy"] == "DeleteWorkers" for rule in rules):
        yield "DeleteWorkers, with an autoscaler"
    if spec.get("clusterSelector") and spec.get("backoffLimit"):
        yield "backoffLimit beside clusterSelector"


def pods_of(document: Object) -> dict[str, Object]:
    """The templates of the pods that an object starts, by the name of their group."""
    spec = document.get("spec", {})
    if document["kind"] == "CronJob":
        return {"submit": spec["jobTemplate"]["spec"]["template"]}
    if document["kind"] not in ("RayJob", "RayCluster"):
        return {}
    cluster = spec.get("rayClusterSpec", spec)
    groups = {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    submitter = {"submit": spec["submitterPodTemplate"]} if "submitterPodTemplate" in spec else {}
    return {"head": cluster["headGroupSpec"]["template"], **groups, **submitter}
