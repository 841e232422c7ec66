"""Every name we share with Kubernetes: group, annotations, resources, labels, environment."""

GROUP = "kyb.ai"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
SEAT_RESOURCE_PREFIX = f"{GROUP}/gpu-"
SEAT_RESOURCE_SUFFIX = "-seat"
RUNTIME_CLASS = "kybernate"
SYSTEM_NAMESPACE = "kyb-system"
CLIENT = "kyb-client"  # the name people and the controller call agents by
SCHEDULER_CLIENT = "kyb-scheduler"  # the name in the certificate kube-scheduler shows us
ACTIVATOR_CLIENT = "kyb-activator-client"  # the name activators call agents by
AGENT_CLIENT = "kyb-nodeagent-client"  # the name agents, and nobody else, call agents by

# Pod annotations, input
VRAM = f"{GROUP}/vram"
CLASS = f"{GROUP}/class"
MIN_RUNTIME = f"{GROUP}/min-runtime"
IDLE_AFTER = f"{GROUP}/idle-after"
PREFER_GROUP = f"{GROUP}/prefer-group"
PREFER_GROUP_PLAIN = "prefer-group"
REQUIRE_GROUP = f"{GROUP}/require-group"
RESTORE_FROM = f"{GROUP}/restore-from"
ON_DELETE = f"{GROUP}/on-delete"
PARK = f"{GROUP}/park"
READINESS = f"{GROUP}/readiness"
PIN = f"{GROUP}/pin"  # "true": never parked for anybody else, nor for being idle
KEEP_WARM = f"{GROUP}/keep-warm"  # "true": its contents stay in RAM, and its pod stays
SCALE_TO_ZERO = f"{GROUP}/scale-to-zero"  # what is left of it when its Deployment goes to zero
MODEL = f"{GROUP}/model"  # its name for the activator; else the workload's
METRICS = f"{GROUP}/metrics"  # port and path where it tells of its requests or steps
INPUT_ANNOTATIONS = frozenset(
    {
        VRAM, CLASS, MIN_RUNTIME, IDLE_AFTER, PREFER_GROUP, REQUIRE_GROUP, RESTORE_FROM,
        ON_DELETE, PARK, READINESS, PIN, KEEP_WARM, SCALE_TO_ZERO, MODEL,
        METRICS,
    }
)  # fmt: skip

# Pod annotations, output: written by the agent only
SEAT = f"{GROUP}/seat"
OUTPUT_ANNOTATIONS = frozenset({SEAT})

# Node annotation the controller patches so that refused pods are tried again
POLICY_REVISION = f"{GROUP}/policy-revision"
# Likewise, when a node has become able to take pods that were refused: the time of it
OPENED = f"{GROUP}/opened"
# Pod label: the uid of the RestoreRequest that the pod was made for
RESTORE_REQUEST = f"{GROUP}/restore-request"
# CheckpointRequest label: a CheckpointPolicy's clock made it
BY_CLOCK = f"{GROUP}/by-clock"
# Annotation of an activator's Lease: the Deployments at zero that somebody waits for
WANTED = f"{GROUP}/wanted"
ACTIVATOR_LEASE_PREFIX = "kyb-activator-"
# Node label that says a Kybernate agent manages the GPUs
MANAGED_LABEL = f"{GROUP}/managed"

# Environment from Allocate
ENV_INDICES = "KYB_GPU_INDICES"
ENV_GROUP = "KYB_GPU_GROUP"
ENV_SEAT = "KYB_GPU_SEAT"
SEAT_ENVIRONMENT = frozenset({ENV_INDICES, ENV_GROUP, ENV_SEAT})
ENV_CUDA = "CUDA_VISIBLE_DEVICES"
ENV_DEVICE_SOCKET = "KYB_SIMULATED_GPU"  # address of the simulated device, where there is one
ENV_GUEST_SOCKET = "KYB_GUEST_SOCKET"  # where the guest library finds the agent; empty: nowhere

# Where containers on seats find the guest library, what preloads it, and the agent's socket for it
GUEST_LIBRARY = "/usr/local/lib/kybernate/libkybguest.so"
GUEST_PRELOAD = "/etc/ld.so.preload"
GUEST_SOCKETS = "/run/kyb/guest"


def closed_gates(device_socket: str) -> str:
    """The folder beside the simulated device's socket with a file for every closed gate."""
    return f"{device_socket}.closed"


def is_seat_resource(name: str) -> bool:
    """Whether `name` is one of `kyb.ai/gpu-<n>x-seat`."""
    return name.startswith(SEAT_RESOURCE_PREFIX) and name.endswith(SEAT_RESOURCE_SUFFIX)
