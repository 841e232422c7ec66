"""Our values as the kubelet's messages. Pure."""

from collections.abc import Iterable

from deviceplugin.offer import Allocation, Device
from kybernate.clients.pb import deviceplugin_pb2 as pb

API_VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"


def options() -> pb.DevicePluginOptions:
    """We prefer, and need no call before a container starts."""
    return pb.DevicePluginOptions(pre_start_required=False, get_preferred_allocation_available=True)


def device_list(devices: Iterable[Device]) -> pb.ListAndWatchResponse:
    """All seats of a resource."""
    return pb.ListAndWatchResponse(devices=[_device(one) for one in devices])


def allocation(given: Allocation) -> pb.ContainerAllocateResponse:
    """What one container gets."""
    return pb.ContainerAllocateResponse(
        envs=given.environment,
        mounts=[
            pb.Mount(host_path=host, container_path=within, read_only=True)
            for host, within in given.mounts.items()
        ],
        devices=[
            pb.DeviceSpec(host_path=node, container_path=node, permissions="rw")
            for node in given.device_nodes
        ],
        cdi_devices=[pb.CDIDevice(name=name) for name in given.cdi_devices],
    )


def _device(one: Device) -> pb.Device:
    topology = pb.TopologyInfo(nodes=[pb.NUMANode(ID=node) for node in one.numa])
    return pb.Device(
        ID=one.id,
        health=HEALTHY if one.healthy else UNHEALTHY,
        topology=topology if one.numa else None,
    )
