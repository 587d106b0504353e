"""Opens WebSockets to a node in right and wrong ways, with `websockets`, and says what comes back.

Called with a port of the loopback address, or with --probe, which only tells whether the library is there.
"""

import ssl
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

if sys.argv[1] == "--probe":
    sys.exit(0)

anybody = ssl.create_default_context()
anybody.check_hostname = False
anybody.verify_mode = ssl.CERT_NONE
anybody.set_alpn_protocols(["http/1.1"])
url = f"wss://127.0.0.1:{sys.argv[1]}/sorcha/v1/ws"


def open_(**options):
    options = {"subprotocols": ["sorcha.gossip.v1"], "compression": None, **options}
    return connect(url, ssl=anybody, proxy=None, user_agent_header=None, **options)


def refused(name, **options):
    try:
        with open_(**options):
            print(f"{name}: opened", flush=True)
    except InvalidStatus as error:
        print(f"{name}: {error.response.status_code}", flush=True)


def closed(name, act, **options):
    with open_(**options) as socket:
        assert socket.subprotocol == "sorcha.gossip.v1"
        try:
            before = act(socket) or ""
            while True:
                socket.recv(timeout=30)
        except ConnectionClosed as error:
            print(f"{name}: {before}close {error.rcvd.code if error.rcvd else None}", flush=True)


def ping(socket):
    answered = socket.ping(b"are you there").wait(30)
    socket.send(b"garbage that is not TLS" * 4)
    return "pong, then " if answered else "no pong, then "


def compression(socket):
    found = [extension.name for extension in socket.protocol.extensions]
    socket.send(b"garbage that is not TLS" * 4)
    return f"{', '.join(found) or 'none'}, then "


def raw(frame):
    return lambda socket: socket.socket.sendall(frame)


refused("no protocol", subprotocols=None)
refused("origin", origin="https://evil.example")
closed("ping", ping)
closed("garbage", lambda socket: socket.send(b"garbage that is not TLS" * 4))
closed("compression", compression, compression="deflate")
closed("text", lambda socket: socket.send("hello"))
closed("unmasked", raw(Frame(Opcode.BINARY, b"x").serialize(mask=False)))
# Masked with zeros.
closed("reserved bits", raw(b"\xc2\x81\0\0\0\0x"))
closed("long message", lambda socket: socket.send(bytes(1 << 20)))
closed("fragments", lambda socket: socket.send([b"garbage that is not TLS"] * 4))
