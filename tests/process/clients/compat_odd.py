"""Sends a node with `[compat] enabled` every field of every message in every odd form, over HTTP/2.

Called with HOST:PORT of a node in clear text whose limits of requests are wide, or with --probe, which only tells
whether the libraries are there. Messages are encoded by hand and go through gRPC Core's generic stubs. Prints what
went wrong, then how many cases there were; the status is 0 only where nothing went wrong.
"""

import argparse
import hashlib
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "examples"))
import compat_client as client  # noqa: E402
from compat_client import c, d, grpc, sha256, t  # noqa: E402

if sys.argv[1] == "--probe":
    sys.exit(0)

Code = grpc.StatusCode
# What may come of a message that is well-formed on the wire. Faults of a node's own are not among them.
TYPED = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.PERMISSION_DENIED}
BROKEN = {Code.INVALID_ARGUMENT}
TOO_LARGE = {Code.RESOURCE_EXHAUSTED}

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
LARGE = 1 << 20


def varint(number):
    """A varint of 64 bits; negative numbers as two's complement."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def key(number, wire):
    return varint(number << 3 | wire)


def delimited(number, content):
    return key(number, BYTES) + varint(len(content)) + content


BAD_TEXT = {"a lone byte": b"\xff", "half a character": b"a\xe2\x82"}
BAD_TEXT |= {"overlong": b"\xc0\x80", "a surrogate": b"\xed\xa0\x80"}
TEXT = {
    "empty": "",
    "blank": "   ",
    "a NUL": "a\0b",
    "a line end": "a\r\nb",
    "an escape": "\x1b[31m",
    "right to left": "\u202eabc",
    "outside the BMP": "\U0001f980" * 16,
    "64 characters": "x" * 64,
    "65 characters": "x" * 65,
    "a key's": "ab" * 32,
    "path": "../../etc/passwd",
    "quotes": "'; DROP TABLE peers; --\"",
    "brackets": "[::1",
    "an address": "[::1]:5001",
    "64 KiB": "x" * (64 << 10),
    "1 MiB": "\u00e9" * (LARGE // 2),
}
NUMBERS = [0, 1, -1, 127, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, -(2**63), 10**11, 10**11 + 1, 2**53 + 1]


def field_cases(field):
    """Encodings of one field: what is said of each, the bytes, and the codes that may come of it."""
    number, kind = field.number, field.cpp_type
    if kind == field.CPPTYPE_MESSAGE:
        yield "empty", delimited(number, b""), TYPED
        yield "garbage", delimited(number, b"\xff" * 9), BROKEN
        for what, content, codes in cases(field.message_type):
            yield what, delimited(number, content), codes
    elif kind == field.CPPTYPE_STRING and field.type == field.TYPE_STRING:
        for what, text in TEXT.items():
            yield what, delimited(number, text.encode()), TYPED
        for what, content in BAD_TEXT.items():
            yield what, delimited(number, content), BROKEN
    elif kind == field.CPPTYPE_STRING:
        for what, content in dict(BAD_TEXT, empty=b"", large=bytes(LARGE)).items():
            yield what, delimited(number, content), TYPED
    else:
        for value in NUMBERS:
            yield f"{value}", key(number, VARINT) + varint(value), TYPED
        yield "a varint without end", key(number, VARINT) + b"\xff" * 11, BROKEN
        yield "a varint that is cut", key(number, VARINT) + b"\xff", BROKEN
    usual = BYTES if kind in (field.CPPTYPE_MESSAGE, field.CPPTYPE_STRING) else VARINT
    contents = {VARINT: b"\1", FIXED64: bytes(8), BYTES: b"\1x", GROUP: key(number, END_GROUP), FIXED32: bytes(4)}
    contents |= {END_GROUP: b"", 6: b"", 7: b""}
    for wire in set(contents) - {usual}:
        yield f"wire type {wire}", key(number, wire) + contents[wire], BROKEN
    if usual == BYTES:
        yield "longer than the message", key(number, BYTES) + varint(100) + b"x", BROKEN
        yield "longer than memory", key(number, BYTES) + varint(-1) + b"x", BROKEN


def base(message):
    """A proper message: each of its fields, encoded."""
    return {field.number: proper_field(field) for field in message.fields}


PROPER = dict(peer_id="odd", requesting_peer_id="odd", sender_peer_id="odd", recipient_peer_id="")
PROPER |= dict(address="127.0.0.1", port=9, supported_protocols="Grpc", message="")
PROPER |= dict(transaction_hash="ab" * 32, register_id="odd", payload="")


def proper_field(field):
    if field.cpp_type == field.CPPTYPE_MESSAGE:
        return delimited(field.number, b"".join(base(field.message_type).values()))
    value = PROPER.get(field.name, 1)
    if field.cpp_type == field.CPPTYPE_STRING:
        return delimited(field.number, str(value).encode())
    return key(field.number, VARINT) + varint(value)


def cases(message):
    """Encodings of a message: each field in every odd form while the others are proper, and odd wholes."""
    proper = base(message)
    whole = b"".join(proper.values())
    yield "nothing", b"", TYPED
    yield "proper", whole, TYPED
    yield "backwards", b"".join(reversed(proper.values())), TYPED
    for field in message.fields:
        rest = b"".join(content for number, content in proper.items() if number != field.number)
        own = proper[field.number]
        yield f"{field.name} missing", rest, TYPED
        yield f"{field.name} twice", rest + own * 2, TYPED
        yield f"{field.name} a thousand times", rest + own * 1000, TYPED
        yield f"{field.name} cut", rest + own[:-1], BROKEN
        for what, content, codes in field_cases(field):
            yield f"{field.name} {what}", rest + content, codes
    for number in (15, 16, 1000, (1 << 29) - 1):
        contents = {VARINT: varint(-1), FIXED64: bytes(8), BYTES: b"\2\xff\xff", FIXED32: bytes(4)}
        for wire, content in contents.items():
            yield f"unknown field {number}, wire type {wire}", whole + key(number, wire) + content, TYPED
        yield f"unknown group {number}", whole + key(number, GROUP) + key(number, END_GROUP), TYPED
    yield "a group without end", whole + key(16, GROUP), BROKEN
    yield "groups without end", whole + key(16, GROUP) * 1000, BROKEN
    yield "field 0", whole + b"\0\0", BROKEN
    yield "a field number beyond all", whole + b"\xff" * 4 + b"\x7f\0", BROKEN


def messages_of_transactions():
    """Odd payloads in proper messages of the three types that carry something of the transaction package."""
    carried = {1: "TransactionNotification", 2: "TransactionRequest", 3: "TransactionResponse"}
    for type, name in carried.items():
        for what, content, codes in cases(t.DESCRIPTOR.message_types_by_name[name]):
            message = key(3, VARINT) + varint(type) + delimited(4, content) + delimited(1, b"odd")
            yield f"{name} in it: {what}", message, codes


class Node:
    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])
        self.count = 0
        self.wrong = 0

    def methods(self):
        for file in (d, c, t):
            for service in file.DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    yield f"/{service.full_name}/{method.name}", method

    def call(self, path, messages, answers_many, **options):
        """Sends these messages as they are: the code, and what is said of it."""
        arity = self.channel.stream_stream if answers_many else self.channel.stream_unary
        try:
            answer = arity(path)(iter(messages), timeout=client.PATIENCE, **options)
            list(answer) if answers_many else None
            return Code.OK, ""
        except grpc.RpcError as error:
            return error.code(), error.details()

    def check(self, what, answer, codes):
        self.count += 1
        code, details = answer
        if code not in codes or (code != Code.OK and not details):
            self.wrong += 1
            wanted = ", ".join(sorted(code.name for code in codes))
            print(f"WRONG {what}: {code.name} ({details!s:.200}), expected {wanted}", flush=True)

    def holds(self, what, condition):
        self.count += 1
        if not condition:
            self.wrong += 1
            print(f"WRONG {what}", flush=True)

    def alive(self, when):
        answer = self.call("/sorcha.peer.discovery.PeerDiscovery/Ping", [b""], False)
        self.check(f"ping after {when}", answer, {Code.OK})


def every_field(node):
    for path, method in node.methods():
        for what, message, codes in cases(method.input_type):
            node.check(f"{path}: {what}", node.call(path, [message], method.server_streaming), codes)
        if method.input_type.name == "PeerMessage":
            for what, message, codes in messages_of_transactions():
                node.check(f"{path}: {what}", node.call(path, [message], method.server_streaming), codes)
        node.alive(path)


def noise(node, cases=100):
    """Bytes of chance, and proper messages with a byte changed."""
    chance = random.Random(17)
    for path, method in node.methods():
        proper = b"".join(base(method.input_type).values())
        for case in range(cases):
            message = bytearray(chance.randbytes(chance.randrange(64)) if case % 2 else proper)
            if message:
                message[chance.randrange(len(message))] = chance.randrange(256)
            message = bytes(message)
            node.check(f"{path}: {message.hex()}", node.call(path, [message], method.server_streaming), TYPED)
        node.alive(f"noise at {path}")


def odd_calls(node):
    """What is wrong around the messages."""
    for path, method in node.methods():
        many = method.server_streaming
        call = lambda messages, **options: node.call(path, messages, many, **options)
        proper = b"".join(base(method.input_type).values())
        if not method.client_streaming:
            node.check(f"{path}: no message", call([]), {Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED})
            node.check(f"{path}: two messages", call([proper, proper]), TYPED | {Code.UNIMPLEMENTED})
        zipped = {Code.UNIMPLEMENTED} | (TYPED if method.client_streaming else set())
        node.check(f"{path}: gzip", call([proper * 99], compression=grpc.Compression.Gzip), TYPED | zipped)
        wide = [("x-wide", "x" * 6000)]
        node.check(f"{path}: wide metadata", call([proper], metadata=wide), TYPED | {Code.RESOURCE_EXHAUSTED})
        odd = [("x-odd-bin", bytes(range(256))), ("authorization", "Bearer nonsense"), ("grpc-tags-bin", b"\0")]
        node.check(f"{path}: odd metadata", call([proper], metadata=odd), TYPED)
        # More than any message is allowed, said in a field that nobody knows.
        node.check(f"{path}: too large", call([delimited(99, bytes(12 << 20))]), TOO_LARGE)
        node.alive(path)
    for path in ["/sorcha.peer.discovery.PeerDiscovery/Nope", "/sorcha.peer.discovery.Nope/Ping", "/nope", "/"]:
        node.check(path, node.call(path, [b""], False), {Code.UNIMPLEMENTED})
    # Reflection may also end as if nothing had been asked.
    reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    for path, many, codes in [("/grpc.health.v1.Health/Check", False, BROKEN), (reflection, True, BROKEN | {Code.OK})]:
        for message in [b"\xff", b"\x0a\xff", b"\x0a\1\xff"]:
            node.check(f"{path}: {message}", node.call(path, [message], many), codes)
    # Callers that give up at once, while their messages are on their way and after.
    for number in range(200):
        path = "/sorcha.peer.communication.PeerCommunication/Stream"
        message = key(3, VARINT) + varint(5)
        answers = node.channel.stream_stream(path)(iter([message] * (number % 7)), timeout=client.PATIENCE)
        answers.cancel()
    node.alive("callers that gave up")


class OddPeer(client.OwnPeer):
    """A registered peer that does not keep what it says: its way to answer is the name of what it was asked for."""

    ways = ["another payload", "another hash", "short", "unknown", "error", "nothing", "gap", "endless", "silence"]

    def __init__(self, options, name, host):
        self.asked_for, self.ends = {}, False
        super().__init__(options, name, host)

    def offered(self, way, size):
        hash = sha256(way.encode() + os.urandom(8))
        self.asked_for[hash] = (way, size)
        return hash

    def GetTransaction(self, request, context):
        self.took("GetTransaction", request)
        way, size = self.asked_for[request.transaction_hash]
        hash = request.transaction_hash
        answer = t.TransactionResponse(transaction_hash=hash, transaction_data=bytes(size), found=True)
        if way == "another hash":
            answer.transaction_hash = "0" * 64
        elif way == "short":
            answer.transaction_data = bytes(size - 1)
        elif way == "unknown":
            answer = t.TransactionResponse()
        elif way == "error":
            context.abort(Code.INTERNAL, "\n\0 of no use")
        elif way == "silence":
            while not self.ends and context.is_active():
                time.sleep(0.05)
        return answer

    def StreamTransaction(self, request, context):
        self.took("StreamTransaction", request)
        way, size = self.asked_for[request.transaction_hash]
        chunk = t.TransactionChunk(transaction_hash=request.transaction_hash, total_chunks=33)
        chunk.chunk_data = bytes(64 << 10)
        first, last = {"gap": (1, 34), "endless": (0, 1 << 31)}.get(way, (0, 33))
        for number in range(first, last):
            if way == "nothing" or self.ends or not context.is_active():
                return
            chunk.chunk_index = number
            yield chunk


def listed(node):
    discovery = client.d_grpc.PeerDiscoveryStub(node.channel)
    return {peer.peer_id for peer in discovery.GetPeerList(d.PeerListRequest(), timeout=client.PATIENCE).peers}


def odd_peers(node, host, before):
    """What registered peers answer when they are asked for what they offered."""
    options = argparse.Namespace(own_cert=None, own_key=None)
    own = OddPeer(options, f"odd-{os.getpid()}", host)
    discovery = client.d_grpc.PeerDiscoveryStub(node.channel)
    transaction = client.t_grpc.TransactionDistributionStub(node.channel)
    try:
        answer = discovery.RegisterPeer(d.RegisterPeerRequest(peer_info=own.info()), timeout=client.PATIENCE)
        own.wait("Ping")
        client.until(lambda: own.name in listed(node), f"listed ({answer.message})")
        others = listed(node) - before - {own.name}
        node.holds(f"who never answered is not listed: {others}", not others)
        hashes = []

        def offer(way, hash):
            size = own.asked_for[hash][1]
            note = t.TransactionNotification(transaction_hash=hash, sender_peer_id=own.name, transaction_size=size)
            return transaction.NotifyTransaction(note, timeout=client.PATIENCE)

        for way in own.ways:
            hash = own.offered(way, (2 << 20) + 5 if way in ("gap", "endless", "nothing") else 300)
            ack = offer(way, hash)
            node.holds(f"offer of {way}: {ack}", ack.will_request)
            hashes.append((way, hash))
        for way, hash in hashes:
            asked = lambda: [request for _, request in own.calls if getattr(request, "transaction_hash", None) == hash]
            # Who offers again is asked again once nothing came of the first time.
            again = lambda: way == "silence" or (offer(way, hash).will_request and len(asked()) > 1)
            client.until(lambda: asked() and again(), f"asked again for {way}")
        for way, hash in hashes:
            request = t.TransactionRequest(transaction_hash=hash)
            found = transaction.GetTransaction(request, timeout=client.PATIENCE).found
            node.holds(f"{way} is not taken", not found)
        node.alive("odd peers")
    finally:
        own.ends = True
        own.server.stop(None).wait()


def main():
    node = Node(sys.argv[1])
    before = listed(node)
    every_field(node)
    noise(node)
    odd_calls(node)
    odd_peers(node, "127.0.0.1", before)
    print(f"{node.count} cases, {node.wrong} wrong")
    node.channel.close()
    sys.exit(1 if node.wrong else 0)


main()
