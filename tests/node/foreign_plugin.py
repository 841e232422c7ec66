"""
Somebody else's device plugin, as NVIDIA's gives out cards: `python foreign_plugin.py UUID...`.

Called by: tests, as a program in a real node.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from kybernate.clients.pb import deviceplugin_pb2 as pb
from kybernate.clients.pb import deviceplugin_pb2_grpc as rpc

FOLDER = "unix:///var/lib/kubelet/device-plugins"
RESOURCE, ENDPOINT = "nvidia.com/gpu", "foreign.sock"
OPTIONS = (("grpc.default_authority", "localhost"),)


class Plugin(rpc.DevicePluginServicer):
    """Every card it was told of, for good."""

    def GetDevicePluginOptions(self, request, call):  # noqa: N802
        return pb.DevicePluginOptions()

    def ListAndWatch(self, request, call):  # noqa: N802
        devices = [pb.Device(ID=uuid, health="Healthy") for uuid in sys.argv[1:]]
        yield pb.ListAndWatchResponse(devices=devices)
        threading.Event().wait()


def main():
    server = grpc.server(ThreadPoolExecutor(4))
    rpc.add_DevicePluginServicer_to_server(Plugin(), server)
    server.add_insecure_port(f"{FOLDER}/{ENDPOINT}")
    server.start()
    with grpc.insecure_channel(f"{FOLDER}/kubelet.sock", options=OPTIONS) as kubelet:
        wanted = {"version": "v1beta1", "endpoint": ENDPOINT, "resource_name": RESOURCE}
        rpc.RegistrationStub(kubelet).Register(pb.RegisterRequest(**wanted), timeout=10.0)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
