"""
A program for a pod that talks as it is talked to, in four tongues; run with `python3 -c`.

TCP lines on 9000 (accept queue of 4; `wait 3` answers after three seconds), gRPC streams on 9001,
WebSocket frames on 9002. Everything that comes is sent back.
"""

import base64
import hashlib
import socketserver
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


class Lines(socketserver.StreamRequestHandler):
    """Back, line by line."""

    def handle(self):
        for line in self.rfile:
            if line.startswith(b"wait "):
                time.sleep(float(line[5:]))  # noqa: TID251 - a slow answer
            self.wfile.write(line)


class Frames(socketserver.StreamRequestHandler):
    """Back, frame by frame: masked ones of up to 125 bytes."""

    def handle(self):
        headers = iter(self.rfile.readline, b"\r\n")
        key = next(one for one in headers if one.lower().startswith(b"sec-websocket-key"))
        for _ in headers:
            pass
        digest = hashlib.sha1(key.split(b":")[1].strip() + _SALT).digest()
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
        self.wfile.write(b"Connection: Upgrade\r\nSec-WebSocket-Accept: ")
        self.wfile.write(base64.b64encode(digest) + b"\r\n\r\n")
        while head := self.rfile.read(2):
            size = head[1] & 0x7F
            mask, masked = self.rfile.read(4), self.rfile.read(size)
            text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))
            self.wfile.write(bytes([head[0], size]) + text)


class Server(socketserver.ThreadingTCPServer):
    """A short accept queue."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 4


def streams():
    """A gRPC server whose one method sends back a stream."""
    import grpc

    handler = grpc.stream_stream_rpc_method_handler(lambda asked, _: asked)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("t.T", {"Echo": handler})]
    )
    server.add_insecure_port("0.0.0.0:9001")
    server.start()
    return server


def main():
    """Until killed."""
    kept = streams()
    for port, tongue in ((9000, Lines), (9002, Frames)):
        server = Server(("0.0.0.0", port), tongue)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    kept.wait_for_termination()


if __name__ == "__main__":
    sys.exit(main())
