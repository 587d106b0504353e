#!/usr/bin/env python3
"""A client of the original's protos: walks through all that a node with `[compat] enabled` serves.

    cargo run --example peer -- --memory --compat
    python3 examples/compat_client.py 127.0.0.1:5001 --tls

Stubs come from `proto/` at run time, as any client generates them; nothing here knows of this crate.
Each step prints one line, and the status is 0 only where all are right. A server of its own takes what
a peer is asked: pings, notifications, and requests for what it has. With --stay it is such a peer and no
more: each line in, `{"topic": .., "text": ..}`, is offered to the node, and what the node offers is fetched.
"""

import argparse
import base64
import hashlib
import http.client
import json
import os
import queue
import socket
import ssl
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

try:
    import grpc
    from grpc_tools import protoc
except ImportError as error:
    sys.exit(f"{error}. To install what is missing: python3 -m pip install grpcio grpcio-tools")

PROTO = Path(__file__).resolve().parent.parent / "proto"
# No step takes longer in a healthy network.
PATIENCE = 10
PIECE = 64 * 1024


def generate(folder):
    """Modules of messages and stubs of the three services, generated into a folder."""
    names = ["discovery", "communication", "transaction"]
    files = [f"sorcha/peer/{name}.proto" for name in names]
    made = protoc.main(["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files])
    if made != 0:
        sys.exit(f"no stubs could be generated from {PROTO}")
    sys.path.insert(0, folder)
    from sorcha.peer import communication_pb2, discovery_pb2, transaction_pb2
    from sorcha.peer import communication_pb2_grpc, discovery_pb2_grpc, transaction_pb2_grpc

    stubs = (discovery_pb2_grpc, communication_pb2_grpc, transaction_pb2_grpc)
    return discovery_pb2, communication_pb2, transaction_pb2, *stubs


with tempfile.TemporaryDirectory() as generated:
    d, c, t, d_grpc, c_grpc, t_grpc = generate(generated)


def sha256(payload):
    return hashlib.sha256(payload).hexdigest()


class OwnPeer(d_grpc.PeerDiscoveryServicer, t_grpc.TransactionDistributionServicer):
    """What answers when the node calls back: one server, and the transactions that it has."""

    def __init__(self, options, name, host):
        self.name, self.host = name, host
        self.payloads = {}
        self.calls = []
        self.changed = threading.Condition()
        self.offers = queue.Queue()
        self.server = grpc.server(ThreadPoolExecutor(8))
        d_grpc.add_PeerDiscoveryServicer_to_server(self, self.server)
        t_grpc.add_TransactionDistributionServicer_to_server(self, self.server)
        at = f"[{host}]:0" if ":" in host else f"{host}:0"
        if options.own_cert:
            pair = (Path(options.own_key).read_bytes(), Path(options.own_cert).read_bytes())
            self.port = self.server.add_secure_port(at, grpc.ssl_server_credentials([pair]))
        else:
            self.port = self.server.add_insecure_port(at)
        self.server.start()

    def took(self, method, request):
        with self.changed:
            self.calls.append((method, request))
            self.changed.notify_all()

    def wait(self, method, fits=lambda request: True):
        """Waits until the node has called this method, and returns what it sent."""
        found = lambda: next((r for m, r in self.calls if m == method and fits(r)), None)
        with self.changed:
            if not self.changed.wait_for(lambda: found() is not None, PATIENCE):
                raise AssertionError(f"no {method} from the node in {PATIENCE} s")
            return found()

    def have(self, payload):
        self.payloads[sha256(payload)] = payload
        return sha256(payload)

    def info(self, **changes):
        said = dict(peer_id=self.name, address=self.host, port=self.port, last_seen=int(time.time()))
        said |= dict(supported_protocols=["GrpcStream", "Grpc"])
        said |= dict(capabilities=d.PeerCapabilities(supports_streaming=True, supports_transaction_distribution=True))
        return d.PeerInfo(**(said | changes))

    # The methods that a node calls.

    def Ping(self, request, context):
        self.took("Ping", request)
        return d.PingResponse(peer_id=self.name, timestamp=int(time.time()), status=d.ONLINE)

    def NotifyTransaction(self, request, context):
        self.took("NotifyTransaction", request)
        known = request.transaction_hash in self.payloads
        if not known:
            self.offers.put(request)
        return t.NotificationAck(already_known=known, will_request=not known)

    def GetTransaction(self, request, context):
        self.took("GetTransaction", request)
        payload = self.payloads.get(request.transaction_hash)
        found = payload is not None
        return t.TransactionResponse(transaction_hash=request.transaction_hash, transaction_data=payload, found=found)

    def StreamTransaction(self, request, context):
        self.took("StreamTransaction", request)
        payload = self.payloads.get(request.transaction_hash)
        if payload is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such transaction")
        pieces = [payload[at : at + PIECE] for at in range(0, len(payload), PIECE)] or [b""]
        for number, piece in enumerate(pieces):
            yield t.TransactionChunk(
                transaction_hash=request.transaction_hash,
                chunk_index=number,
                total_chunks=len(pieces),
                chunk_data=piece,
            )


class Rest:
    """One HTTP/1.1 connection that is kept."""

    def __init__(self, options):
        if options.tls:
            # The gRPC channel is what checks the certificate.
            anybody = ssl.create_default_context()
            anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
            anybody.set_alpn_protocols(["http/1.1"])
            self.connection = http.client.HTTPSConnection(options.address, timeout=PATIENCE, context=anybody)
        else:
            self.connection = http.client.HTTPConnection(options.address, timeout=PATIENCE)

    def ask(self, method, path, body=None, wanted=200, **headers):
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
            headers["content_type"] = "application/json"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):
            # The next request gets a connection that works.
            self.connection.close()
            raise
        expect(answer.status, wanted, f"status of {method} {path} ({content[:200]!r})")
        if answer.getheader("content-type", "").split(";")[0] in ("application/json", "application/problem+json"):
            content = json.loads(content) if content else content
        return content, answer


def place(address):
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Walk:
    """A node's services, and the peers that this client is."""

    def __init__(self, options):
        self.options = options
        settings = [("grpc.max_receive_message_length", 32 << 20), ("grpc.enable_http_proxy", 0)]
        if options.tls:
            # A self-made certificate is trusted as it is; its names must still be right.
            shown = lambda: ssl.get_server_certificate(place(options.address)).encode()
            root = Path(options.ca).read_bytes() if options.ca else shown()
            if options.server_name:
                settings.append(("grpc.ssl_target_name_override", options.server_name))
            self.channel = grpc.secure_channel(options.address, grpc.ssl_channel_credentials(root), settings)
        else:
            self.channel = grpc.insecure_channel(options.address, settings)
        self.discovery = d_grpc.PeerDiscoveryStub(self.channel)
        self.communication = c_grpc.PeerCommunicationStub(self.channel)
        self.transaction = t_grpc.TransactionDistributionStub(self.channel)
        with socket.create_connection(place(options.address), PATIENCE) as probe:
            here = options.own or probe.getsockname()[0]
        self.own = OwnPeer(options, options.id, here)
        self.second = OwnPeer(options, f"{options.id}-2", here)
        self.rest = Rest(options)
        self.node = ""

    def register(self, info):
        return self.discovery.RegisterPeer(d.RegisterPeerRequest(peer_info=info), timeout=PATIENCE)

    def offer(self, payload, topic="", **changes):
        said = dict(transaction_hash=self.own.have(payload), sender_peer_id=self.own.name, register_id=topic)
        said |= dict(timestamp=int(time.time()), transaction_size=len(payload))
        notification = t.TransactionNotification(**(said | changes))
        return self.transaction.NotifyTransaction(notification, timeout=PATIENCE)

    def get(self, hash, topic=""):
        request = t.TransactionRequest(transaction_hash=hash, requesting_peer_id=self.own.name, register_id=topic)
        return self.transaction.GetTransaction(request, timeout=PATIENCE)

    def pieces(self, hash, topic=""):
        request = t.TransactionRequest(transaction_hash=hash, requesting_peer_id=self.own.name, register_id=topic)
        return list(self.transaction.StreamTransaction(request, timeout=PATIENCE))

    def listed(self, caller="somebody", most=0):
        request = d.PeerListRequest(requesting_peer_id=caller, max_peers=most)
        return self.discovery.GetPeerList(request, timeout=PATIENCE)

    def message(self, type, payload=b"", **changes):
        said = dict(sender_peer_id=self.own.name, recipient_peer_id=self.node, message_type=type, payload=payload)
        return c.PeerMessage(**(dict(said, timestamp=int(time.time())) | changes))

    def send(self, *args, **changes):
        return self.communication.SendMessage(self.message(*args, **changes), timeout=PATIENCE)


def expect(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what} is {got!r}, not {wanted!r}")


def is_now(seconds, what):
    if abs(seconds - time.time()) > 60:
        raise AssertionError(f"{what} is {seconds}, not the seconds of now")


def refused(code, call):
    """Checks that a call ends with this code and says why."""
    try:
        answer = call()
    except grpc.RpcError as error:
        expect(error.code(), code, f"code ({error.details()})")
        if not error.details():
            raise AssertionError(f"{code.name} without a word") from error
        return
    raise AssertionError(f"expected {code.name}, got {str(answer).strip()!r}")


def until(look, what):
    """Looks again and again: nothing tells when a node is through with what it promised."""
    end = time.monotonic() + PATIENCE
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not in {PATIENCE} s")
        time.sleep(0.02)
    return seen


STEPS = []


def step(function):
    STEPS.append(function)
    return function


@step
def health_is_served(w):
    check = w.channel.unary_unary("/grpc.health.v1.Health/Check")
    expect(check(b"", timeout=PATIENCE), b"\x08\x01", "health (SERVING)")
    refused(grpc.StatusCode.NOT_FOUND, lambda: check(b"\x0a\x04nope", timeout=PATIENCE))


@step
def reflection_names_the_services(w):
    reflect = w.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    (answer,) = reflect(iter([b"\x3a\x01*"]), timeout=PATIENCE)
    for module in (d, c, t):
        for service in module.DESCRIPTOR.services_by_name.values():
            expect(service.full_name.encode() in answer, True, f"{service.full_name} is named")


@step
def ping_is_answered_by_the_node(w):
    answer = w.discovery.Ping(d.PingRequest(peer_id=w.own.name), timeout=PATIENCE)
    w.node = answer.peer_id
    expect(len(bytes.fromhex(answer.peer_id)), 32, "bytes of the node's id")
    is_now(answer.timestamp, "timestamp")
    expect(answer.status in (d.ONLINE, d.OFFLINE, d.BUSY), True, "a status that says something")


@step
def registrations_that_cannot_be_are_refused(w):
    for changes, message in [
        (dict(peer_id=""), "Invalid peer ID"),
        (dict(peer_id="x" * 65), "Invalid peer ID"),
        (dict(peer_id="a\nb"), "Invalid peer ID"),
        (dict(peer_id=w.node), "Invalid peer ID"),
        (dict(address=""), "Invalid peer address"),
        (dict(address="no host name"), "Invalid peer address"),
        (dict(port=0), "Invalid peer port"),
        (dict(port=-1), "Invalid peer port"),
        (dict(port=65536), "Invalid peer port"),
    ]:
        answer = w.register(w.own.info(**changes))
        expect((answer.success, answer.message), (False, message), f"answer to {changes}")
    missing = d.RegisterPeerRequest()
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: w.discovery.RegisterPeer(missing, timeout=PATIENCE))


@step
def who_registers_is_pinged_and_then_listed(w):
    for own in (w.own, w.second):
        answer = w.register(own.info())
        expect((answer.success, answer.message), (True, "Peer registered successfully"), "answer")
        expect(own.wait("Ping").peer_id, w.node, "who pings")
        entry = until(lambda: next((p for p in w.listed().peers if p.peer_id == own.name), None), "listed")
        expect((entry.address, entry.port), (own.host, own.port), "address")
        expect(list(entry.supported_protocols), ["GrpcStream", "Grpc"], "protocols")
        is_now(entry.last_seen, "last_seen")
    expect(w.register(w.own.info()).success, True, "success of one that registers again")


@step
def lists_leave_out_the_caller_and_are_cut(w):
    names = lambda answer: [peer.peer_id for peer in answer.peers]
    everybody = w.listed()
    expect({w.own.name, w.second.name} <= set(names(everybody)), True, "both are listed")
    mine = w.listed(caller=w.own.name)
    expect((w.own.name in names(mine), w.second.name in names(mine)), (False, True), "listed for a caller")
    expect(mine.total_peers, everybody.total_peers - 1, "total without the caller")
    cut = w.listed(most=1)
    expect((len(cut.peers), cut.total_peers), (1, everybody.total_peers), "a list of one")
    expect(names(w.listed(most=-5)), names(everybody), "a list of a hundred")
    expect(w.node in names(everybody), False, "the node in its own list")


@step
def peers_are_exchanged(w):
    hearsay = d.PeerInfo(peer_id="hearsay", address="192.0.2.1", port=5001)
    request = d.PeerExchangeRequest(peer_id=w.own.name, known_peers=[hearsay, w.second.info()], max_peers=50)
    answer = w.discovery.ExchangePeers(request, timeout=PATIENCE)
    expect(answer.success, True, f"success ({answer.message})")
    names = [peer.peer_id for peer in answer.known_peers]
    expect((w.own.name in names, w.second.name in names), (False, True), "exchanged")
    expect("hearsay" in [peer.peer_id for peer in w.listed().peers], False, "hearsay in the list")


def is_fetched(w, payload, ack, topic=""):
    """The promise of `will_request` is kept, and the node serves what it fetched."""
    expect((ack.already_known, ack.will_request), (False, True), "ack")
    own = sha256(payload)
    answer = until(lambda: (found := w.get(own, topic)).found and found, "fetched by the node")
    expect((answer.transaction_hash, answer.transaction_data == payload), (own, True), "what was fetched")


@step
def what_is_notified_is_fetched(w):
    w.first = os.urandom(300)
    is_fetched(w, w.first, w.offer(w.first, "compat-orders"), "compat-orders")
    asked = w.own.wait("GetTransaction", lambda r: r.transaction_hash == sha256(w.first))
    expect((asked.requesting_peer_id, asked.register_id), (w.node, "compat-orders"), "who asks for what")


@step
def large_ones_are_fetched_in_pieces(w):
    w.large = os.urandom((2 << 20) + 5)
    # Times in milliseconds are understood.
    is_fetched(w, w.large, w.offer(w.large, timestamp=int(time.time() * 1000)))
    w.own.wait("StreamTransaction", lambda r: r.transaction_hash == sha256(w.large))


@step
def hashes_in_base64_are_fetched_too(w):
    payload = os.urandom(50)
    text = base64.b64encode(hashlib.sha256(payload).digest()).decode()
    w.own.payloads[text] = payload
    is_fetched(w, payload, w.offer(payload, transaction_hash=text))


@step
def notifications_that_cannot_be_are_refused(w):
    again = w.offer(w.first, "compat-orders")
    expect((again.already_known, again.will_request), (True, False), "ack of what is known")
    stranger = w.offer(os.urandom(9), sender_peer_id="stranger")
    expect((stranger.already_known, stranger.will_request), (False, False), "ack of a stranger's")
    for changes in [dict(transaction_hash=""), dict(transaction_hash="xyz"), dict(transaction_size=-1)]:
        refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: w.offer(os.urandom(9), **changes))


@step
def transactions_are_found_by_each_form_of_their_hash(w):
    digest = hashlib.sha256(w.first).digest()
    standard, url = base64.b64encode(digest).decode(), base64.urlsafe_b64encode(digest).decode()
    for form in [digest.hex(), digest.hex().upper(), standard, standard.rstrip("="), url, url.rstrip("=")]:
        answer = w.get(form)
        expect(answer.found and answer.transaction_data == w.first, True, f"found as {form}")
        expect(answer.transaction_hash, form, "the hash as it was asked")
    expect(w.get(sha256(w.first), "compat-orders").found, True, "found in its topic")
    expect(w.get(sha256(w.first), "elsewhere").found, False, "found in another topic")
    expect(w.get("0" * 64).found, False, "found what nobody has")
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: w.get(""))


@step
def transactions_are_streamed(w):
    pieces = w.pieces(sha256(w.large))
    expect(b"".join(piece.chunk_data for piece in pieces) == w.large, True, "the pieces together are it")
    for number, piece in enumerate(pieces):
        expect((piece.chunk_index, piece.total_chunks), (number, 33), "number of a piece")
        expect(piece.transaction_hash, sha256(w.large), "hash in a piece")
    expect({len(piece.chunk_data) for piece in pieces[:-1]}, {PIECE}, "sizes of pieces")
    refused(grpc.StatusCode.NOT_FOUND, lambda: w.pieces("0" * 64))
    refused(grpc.StatusCode.NOT_FOUND, lambda: w.pieces(sha256(w.large), "elsewhere"))


@step
def messages_are_taken(w):
    payload = os.urandom(70)
    hash = w.own.have(payload)
    note = t.TransactionNotification(transaction_hash=hash, sender_peer_id=w.own.name, transaction_size=70)
    ack = w.send(c.TRANSACTION_NOTIFICATION, note.SerializeToString())
    expect(ack.received, True, "a notification is received")
    is_now(ack.timestamp, "timestamp")
    until(lambda: w.get(hash).found, "fetched by the node")
    expect(w.send(c.HEARTBEAT).received, True, "a heartbeat is received")
    expect(w.send(c.HEARTBEAT, recipient_peer_id="").received, True, "one to nobody else is received")
    served = w.options.served
    expect(w.send(c.PEER_STATUS_UPDATE, b"status").received, served, "a status is received")
    expect(w.send(c.UNKNOWN, b"?").received, False, "a type that nobody serves is received")
    for code, changes in [
        (grpc.StatusCode.FAILED_PRECONDITION, dict(recipient_peer_id=w.second.name)),
        (grpc.StatusCode.NOT_FOUND, dict(recipient_peer_id="stranger")),
        (grpc.StatusCode.INVALID_ARGUMENT, dict(message_type=c.TRANSACTION_REQUEST, payload=b"\xff")),
    ]:
        refused(code, lambda: w.send(**(dict(type=c.HEARTBEAT) | changes)))


@step
def messages_are_streamed_both_ways(w):
    request = t.TransactionRequest(transaction_hash=sha256(w.first), requesting_peer_id=w.own.name)
    sent = [w.message(c.HEARTBEAT, b"beat"), w.message(c.TRANSACTION_REQUEST, request.SerializeToString())]
    if w.options.served:
        sent.append(w.message(c.PEER_STATUS_UPDATE, b"status"))
    outgoing = queue.Queue()
    answers = w.communication.Stream(iter(outgoing.get, None), timeout=PATIENCE)
    got = []
    for message in sent:
        outgoing.put(message)
        got.append(next(answers))
    outgoing.put(None)
    expect(list(answers), [], "more after the end")
    for answer in got:
        expect((answer.sender_peer_id, answer.recipient_peer_id), (w.node, w.own.name), "from and to")
        is_now(answer.timestamp, "timestamp")
    expect((got[0].message_type, got[0].payload), (c.HEARTBEAT, b"beat"), "echo of a heartbeat")
    expect(got[1].message_type, c.TRANSACTION_RESPONSE, "type of what answers a request")
    response = t.TransactionResponse.FromString(got[1].payload)
    expect((response.found, response.transaction_data == w.first), (True, True), "what answers a request")
    if w.options.served:
        expect((got[2].message_type, got[2].payload), (c.PEER_STATUS_UPDATE, b"status"), "a handler's answer")


@step
def who_registered_is_told_of_what_is_published(w):
    payload = os.urandom(40)
    published, _ = w.rest.ask("POST", "/api/v1/transactions?topic=compat-orders", payload, 201)
    w.published = published["transactionId"]
    for own in (w.own, w.second):
        told = own.wait("NotifyTransaction", lambda r: r.transaction_hash == sha256(payload))
        expect((told.sender_peer_id, told.register_id), (w.node, "compat-orders"), "who tells of what")
        expect(told.transaction_size, 40, "size")
        is_now(told.timestamp, "timestamp")
    expect(w.get(sha256(payload)).transaction_data == payload, True, "what was told is there")
    expect(w.get(w.published).transaction_data == payload, True, "the same by its transaction id")


@step
def an_empty_transaction_is_one_empty_piece(w):
    body = {"topic": "compat-orders", "payload": ""}
    published, _ = w.rest.ask("POST", "/api/v1/transactions", body, 201)
    pieces = w.pieces(published["transactionId"])
    expect([(p.chunk_index, p.total_chunks, p.chunk_data) for p in pieces], [(0, 1, b"")], "pieces")
    answer = w.get(published["transactionId"])
    expect((answer.found, answer.transaction_data), (True, b""), "found")


@step
def peers_register_and_are_listed_over_rest(w):
    for prefix in ["/api/v1/peers", "/api/peers", "/api/peer"]:
        listed, _ = w.rest.ask("GET", f"{prefix}/list?requestingPeerId={w.own.name}&maxPeers=50")
        names = [peer["peerId"] for peer in listed]
        expect((w.own.name in names, w.second.name in names), (False, True), f"listed by {prefix}")
        entry = next(peer for peer in listed if peer["peerId"] == w.second.name)
        expect((entry["address"], entry["port"]), (w.second.host, w.second.port), "address")
        expect(entry["supportedProtocols"], ["GrpcStream", "Grpc"], "protocols")
        body = {"peerId": w.own.name, "address": w.own.host, "port": w.own.port}
        w.rest.ask("POST", f"{prefix}/register", body | {"supportedProtocols": ["GrpcStream", "Grpc"]})
        pong, _ = w.rest.ask("POST", f"{prefix}/ping", {"peerId": w.own.name, "timestamp": int(time.time())})
        expect(pong["alive"], True, f"alive by {prefix}")
        is_now(pong["timestamp"], "timestamp")
    w.rest.ask("GET", "/api/v1/peers/ping")


@step
def transactions_are_fetched_over_rest(w):
    standard = base64.b64encode(hashlib.sha256(w.large).digest()).decode()
    for prefix in ["/api/v1/transactions", "/api/transaction"]:
        whole, answer = w.rest.ask("GET", f"{prefix}/{sha256(w.large)}")
        expect(whole == w.large, True, "all of it")
        part, answer = w.rest.ask("GET", f"{prefix}/{sha256(w.large)}", wanted=206, range="bytes=5-104")
        expect(part == w.large[5:105], True, "part of it")
        expect(answer.getheader("content-range"), f"bytes 5-104/{len(w.large)}", "content-range")
        problem, answer = w.rest.ask("GET", f"{prefix}/{'0' * 64}", wanted=404)
        expect(answer.getheader("content-type"), "application/problem+json", "content-type")
        expect(problem["status"], 404, "status in the problem")
    encoded = standard.replace("/", "%2F").replace("+", "%2B")
    whole, _ = w.rest.ask("GET", f"/api/v1/transactions/{encoded}")
    expect(whole == w.large, True, "all of it by Base64")


@step
def transactions_are_notified_over_rest(w):
    payload = os.urandom(60)
    said = {"transactionHash": w.own.have(payload), "senderPeerId": w.own.name, "transactionSize": 60}
    ack, _ = w.rest.ask("POST", "/api/v1/transactions/notify", said)
    expect((ack["alreadyKnown"], ack["willRequest"]), (False, True), "ack")
    until(lambda: w.get(sha256(payload)).found, "fetched by the node")
    ack, _ = w.rest.ask("POST", "/api/v1/transactions/notify", said)
    expect((ack["alreadyKnown"], ack["willRequest"]), (True, False), "ack of what is known")


def stay(w):
    """Is a peer until the input ends."""
    say = lambda **what: print(json.dumps(what), flush=True)
    answer = w.register(w.own.info())
    if not answer.success:
        sys.exit(f"the node does not list this peer: {answer.message}")
    w.own.wait("Ping")
    until(lambda: w.own.name in [peer.peer_id for peer in w.listed().peers], "listed")
    say(event="registered", id=w.own.name)

    def fetch_offers():
        for offer in iter(w.own.offers.get, None):
            payload = b"".join(piece.chunk_data for piece in w.pieces(offer.transaction_hash))
            say(event="fetched", hash=offer.transaction_hash, topic=offer.register_id, sha256=sha256(payload))

    fetching = threading.Thread(target=fetch_offers)
    fetching.start()
    for line in sys.stdin:
        line = json.loads(line)
        payload = line["text"].encode()
        ack = w.offer(payload, line.get("topic", ""))
        say(event="offered", hash=sha256(payload), already_known=ack.already_known, will_request=ack.will_request)
    w.own.offers.put(None)
    fetching.join()


def walk(w):
    """Takes every step; returns how many went wrong."""
    wrong = 0
    for function in STEPS:
        name = function.__name__.replace("_", " ")
        try:
            function(w)
            print(f"ok    {name}", flush=True)
        except Exception as error:
            wrong += 1
            what = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.RpcError) else error
            print(f"WRONG {name}: {what!s:.600}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("address", help="the node, as host:port")
    parser.add_argument("--tls", action="store_true", help="over TLS; without it, in clear text")
    parser.add_argument("--ca", metavar="PEM", help="who signed the node's certificate [default: itself]")
    parser.add_argument("--server-name", metavar="NAME", help="name in the certificate [default: the host]")
    parser.add_argument("--id", default=f"compat-{os.getpid()}", help="id to register under")
    parser.add_argument("--own", metavar="HOST", help="where the node reaches this client [default: as it comes]")
    parser.add_argument("--own-cert", metavar="PEM", help="certificate of this client's server [default: clear text]")
    parser.add_argument("--own-key", metavar="PEM")
    parser.add_argument("--served", action="store_true", help="the node runs with --serve sorcha.message.4")
    parser.add_argument("--stay", action="store_true", help="be a peer until the input ends")
    options = parser.parse_args()
    try:
        w = Walk(options)
    except (OSError, ValueError) as error:
        sys.exit(f"{options.address} cannot be reached: {error}")
    try:
        wrong = stay(w) if options.stay else walk(w)
    finally:
        for own in (w.own, w.second):
            own.server.stop(None).wait()
        w.channel.close()
    if wrong:
        sys.exit(f"{wrong} of {len(STEPS)} steps went wrong")


if __name__ == "__main__":
    main()
