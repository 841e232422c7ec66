"""
The device plugin as it ships, with every message between it and a kubelet written down.

Called by: tests, as a program: `python recorder.py FILE FLAGS-OF-THE-DEVICE-PLUGIN`.
A line is one thing that happened, as JSON: who began it, the call, the request, the reply.
"""

import itertools
import json
import sys
import threading
from pathlib import Path

import grpc
from google.protobuf import json_format

from deviceplugin import __main__, server

REGISTRATION = "/v1beta1.Registration/"


class Record:
    """The file. Thread safe."""

    def __init__(self, path):
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self._number = itertools.count()

    def add(self, by, call, **said):
        messages = {name: as_json(message) for name, message in said.items()}
        with self._lock:
            self._file.write(json.dumps({"by": by, "call": call, **messages}) + "\n")


def as_json(message):
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


class OfTheKubelet(grpc.ServerInterceptor):
    """What the kubelet calls."""

    def __init__(self, record):
        self._record = record

    def intercept_service(self, continuation, details):
        handler, call = continuation(details), details.method.rpartition("/")[2]
        if handler.response_streaming:
            return self._stream(handler, call)

        def answer(request, context):
            reply = handler.unary_unary(request, context)
            self._record.add("kubelet", call, request=request, reply=reply)
            return reply

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )

    def _stream(self, handler, call):
        def answers(request, context):
            self._record.add("kubelet", call, request=request)
            for reply in handler.unary_stream(request, context):
                self._record.add("plugin", call, reply=reply)
                yield reply

        return grpc.unary_stream_rpc_method_handler(
            answers, handler.request_deserializer, handler.response_serializer
        )


class OfThePlugin(grpc.UnaryUnaryClientInterceptor):
    """What the plugin calls; what it asks the node agent is left out."""

    def __init__(self, record):
        self._record = record

    def intercept_unary_unary(self, continuation, details, request):
        method = details.method if isinstance(details.method, str) else details.method.decode()
        reply = continuation(details, request)
        if method.startswith(REGISTRATION) and reply.exception() is None:
            call = method.rpartition("/")[2]
            self._record.add("plugin", call, request=request, reply=reply.result())
        return reply


def main():
    record = Record(Path(sys.argv.pop(1)))
    make_server, make_channel, listen = (
        grpc.server,
        grpc.insecure_channel,
        server.PluginServer.start,
    )

    def listening(self):
        listen(self)
        record.add("plugin", f"listens on {self.socket.name}")

    grpc.server = lambda pool: make_server(pool, interceptors=(OfTheKubelet(record),))
    grpc.insecure_channel = lambda *args, **more: grpc.intercept_channel(
        make_channel(*args, **more), OfThePlugin(record)
    )
    server.PluginServer.start = listening
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
