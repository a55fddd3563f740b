"""What KubeRay knows, as JSON schemas that refuse every other field.

Of ray.io/v1: every field of the spec, from docs/reference/api.md of ray-project/kuberay, which is made from the same Go
types as helm-chart/kuberay-operator/crds. Of core/v1: the fields that a pod here may need.
"""

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANY: Schema = {}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
# The CRD takes bare numbers too; here they are written as text throughout.
QUANTITY: Schema = {
    "type": "string",
    "pattern": r"^(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE])?$",
}
QUANTITIES: Schema = {"type": "object", "additionalProperties": QUANTITY}


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


def record(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


CONTAINER = record(
    ("name", "image", "resources"),
    name=TEXT,
    image=TEXT,
    imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
    command=many(TEXT),
    args=many(TEXT),
    env=many(record(("name",), name=TEXT, value=TEXT, valueFrom=ANY)),
    envFrom=many(
        record(
            (),
            prefix=TEXT,
            secretRef=record(("name",), name=TEXT, optional=FLAG),
            configMapRef=record(("name",), name=TEXT, optional=FLAG),
        )
    ),
    ports=many(record(("containerPort",), name=TEXT, containerPort=COUNT, protocol=one_of("TCP", "UDP"))),
    resources=record((), requests=QUANTITIES, limits=QUANTITIES),
    volumeMounts=many(record(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly=FLAG, subPath=TEXT)),
    securityContext=ANY,
    livenessProbe=ANY,
    readinessProbe=ANY,
)
POD = record(
    ("containers",),
    containers=many(CONTAINER),
    initContainers=many(CONTAINER),
    volumes=many(
        record(
            ("name",),
            name=TEXT,
            emptyDir=record((), medium=one_of("", "Memory"), sizeLimit=QUANTITY),
            secret=ANY,
            configMap=ANY,
            persistentVolumeClaim=ANY,
        )
    ),
    serviceAccountName=TEXT,
    securityContext=record((), runAsNonRoot=FLAG, runAsUser=COUNT, runAsGroup=COUNT, fsGroup=COUNT, seccompProfile=ANY),
    tolerations=many(
        record(
            (),
            key=TEXT,
            operator=one_of("Exists", "Equal"),
            value=TEXT,
            effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"),
            tolerationSeconds=COUNT,
        )
    ),
    nodeSelector=TEXTS,
    affinity=ANY,
    imagePullSecrets=many(record(("name",), name=TEXT)),
    priorityClassName=TEXT,
    restartPolicy=one_of("Always", "OnFailure", "Never"),
    terminationGracePeriodSeconds=COUNT,
    topologySpreadConstraints=ANY,
)
METADATA = record(("name",), name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
POD_TEMPLATE = record(("spec",), metadata=record((), labels=TEXTS, annotations=TEXTS), spec=POD)
CLUSTER_SCHEMA = record(
    ("headGroupSpec",),
    upgradeStrategy=record((), type=one_of("Recreate", "None")),
    authOptions=record((), enableK8sTokenAuth=FLAG, secretName=TEXT, mode=one_of("disabled", "token")),
    suspend=FLAG,
    managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
    autoscalerOptions=record(
        (),
        resources=record((), requests=QUANTITIES, limits=QUANTITIES),
        image=TEXT,
        imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
        securityContext=ANY,
        idleTimeoutSeconds=COUNT,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        version=one_of("v1", "v2"),
        env=ANY,
        envFrom=ANY,
        volumeMounts=ANY,
        command=many(TEXT),
        args=many(TEXT),
    ),
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=ANY,
    historyServerOptions=ANY,
    networkPolicy=ANY,
    tlsOptions=record((), enabled=FLAG),
    headGroupSpec=record(
        ("rayStartParams", "template"),
        template=POD_TEMPLATE,
        headService=ANY,
        enableIngress=FLAG,
        ingressOptions=ANY,
        resources=TEXTS,
        labels=TEXTS,
        rayStartParams=TEXTS,
        serviceType=one_of("ClusterIP", "NodePort", "LoadBalancer"),
    ),
    rayVersion=TEXT,
    workerGroupSpecs=many(
        record(
            ("groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"),
            suspend=FLAG,
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            priority={"type": "integer"},
            resources=TEXTS,
            labels=TEXTS,
            rayStartParams=TEXTS,
            template=POD_TEMPLATE,
            scaleStrategy=ANY,
            numOfHosts=COUNT,
        )
    ),
)
RAY_CLUSTER_SCHEMA = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayCluster"),
    metadata=METADATA,
    spec=CLUSTER_SCHEMA,
)
RAY_JOB_SCHEMA = record(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion=one_of("ray.io/v1"),
    kind=one_of("RayJob"),
    metadata=METADATA,
    spec=record(
        ("entrypoint", "rayClusterSpec"),
        activeDeadlineSeconds=COUNT,
        backoffLimit=COUNT,
        rayClusterSpec=CLUSTER_SCHEMA,
        submitterPodTemplate=POD_TEMPLATE,
        metadata=TEXTS,
        clusterSelector=TEXTS,
        submitterConfig=record((), backoffLimit=COUNT),
        managedBy=one_of("ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"),
        deletionStrategy=ANY,
        entrypoint=TEXT,
        runtimeEnvYAML=TEXT,
        jobId=TEXT,
        submissionMode=one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
        entrypointResources=TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        ttlSecondsAfterFinished=COUNT,
        preRunningDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes=FLAG,
        suspend=FLAG,
    ),
)
