// A client of the original's protos on `@grpc/grpc-js`: walks through all that a node with `[compat] enabled`
// serves, as `examples/compat_client.py` does on gRPC Core.
//
// Called with HOST:PORT, --tls where the node speaks TLS, and --served where it runs with `--serve sorcha.message.4`;
// or with --probe, which only tells whether the libraries are there. Prints one line a step; status 0 means that
// all are right.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import tls from "node:tls";
import { fileURLToPath } from "node:url";

const require = createRequire(join(process.env.NODE_MODULES, "x.js"));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
if (process.argv[2] === "--probe") process.exit(0);

const address = process.argv[2];
const flags = new Set(process.argv.slice(3));
const [, host, port] = address.match(/^\[?(.*?)\]?:(\d+)$/);
const PATIENCE = 10_000;
const PIECE = 64 * 1024;

const proto = fileURLToPath(new URL("../../../proto", import.meta.url));
const files = ["discovery", "communication", "transaction"].map((name) => `sorcha/peer/${name}.proto`);
const settings = { keepCase: true, longs: Number, enums: String, defaults: true, includeDirs: [proto] };
const { sorcha } = grpc.loadPackageDefinition(loader.loadSync(files, settings));
const { PeerDiscovery } = sorcha.peer.discovery;
const { PeerCommunication } = sorcha.peer.communication;
const { TransactionDistribution } = sorcha.peer.transaction;

const sha256 = (payload) => createHash("sha256").update(payload).digest("hex");
const now = () => Math.floor(Date.now() / 1000);
const deadline = () => new Date(Date.now() + PATIENCE);
const isNow = (seconds, what) => assert(Math.abs(seconds - now()) < 60, `${what}: ${seconds}`);

/** What answers when the node calls back. */
class OwnPeer {
  payloads = new Map();
  calls = [];
  waiting = [];

  constructor(name) {
    this.name = name;
    this.server = new grpc.Server();
    const unary = (method, answer) => (call, callback) => {
      this.took(method, call.request);
      callback(null, answer(call.request));
    };
    const Ping = unary("Ping", () => ({ peer_id: this.name, timestamp: now(), status: "ONLINE" }));
    const NotifyTransaction = unary("NotifyTransaction", () => ({ already_known: false, will_request: true }));
    const GetTransaction = unary("GetTransaction", ({ transaction_hash }) => {
      const payload = this.payloads.get(transaction_hash);
      return { transaction_hash, transaction_data: payload, found: payload !== undefined };
    });
    const StreamTransaction = (call) => {
      this.took("StreamTransaction", call.request);
      const { transaction_hash } = call.request;
      const payload = this.payloads.get(transaction_hash);
      const total_chunks = Math.max(1, Math.ceil(payload.length / PIECE));
      for (let chunk_index = 0; chunk_index < total_chunks; chunk_index++) {
        const chunk_data = payload.subarray(chunk_index * PIECE, (chunk_index + 1) * PIECE);
        call.write({ transaction_hash, chunk_index, total_chunks, chunk_data });
      }
      call.end();
    };
    this.server.addService(PeerDiscovery.service, { Ping });
    this.server.addService(TransactionDistribution.service, { NotifyTransaction, GetTransaction, StreamTransaction });
  }

  async listen() {
    const open = grpc.ServerCredentials.createInsecure();
    this.port = await new Promise((done, failed) =>
      this.server.bindAsync("127.0.0.1:0", open, (error, port) => (error ? failed(error) : done(port))),
    );
    return this;
  }

  took(method, request) {
    this.calls.push([method, request]);
    this.waiting.forEach((wake) => wake());
  }

  /** Waits until the node has called this method, and returns what it sent. */
  async wait(method, fits = () => true) {
    const end = Date.now() + PATIENCE;
    for (;;) {
      const found = this.calls.find(([name, request]) => name === method && fits(request));
      if (found) return found[1];
      const woken = new Promise((wake) => this.waiting.push(wake));
      const late = sleep(Math.max(0, end - Date.now()), "late", { ref: false });
      if ((await Promise.race([woken, late])) === "late") throw new Error(`no ${method} from the node`);
    }
  }

  have(payload) {
    this.payloads.set(sha256(payload), payload);
    return sha256(payload);
  }

  info(changes = {}) {
    const capabilities = { supports_streaming: true, supports_transaction_distribution: true };
    const said = { peer_id: this.name, address: "127.0.0.1", port: this.port, last_seen: now(), capabilities };
    return { ...said, supported_protocols: ["GrpcStream", "Grpc"], ...changes };
  }
}

/** The certificate that the node shows, which is trusted as it is; its names are checked. */
async function certificate() {
  const socket = tls.connect({ host, port, rejectUnauthorized: false, ALPNProtocols: ["h2"] });
  await once(socket, "secureConnect");
  const { raw } = socket.getPeerX509Certificate();
  socket.destroy();
  return Buffer.from(`-----BEGIN CERTIFICATE-----\n${raw.toString("base64")}\n-----END CERTIFICATE-----\n`);
}

const secure = flags.has("--tls");
const credentials = secure ? grpc.credentials.createSsl(await certificate()) : grpc.credentials.createInsecure();
const options = { "grpc.max_receive_message_length": 32 << 20, "grpc.enable_http_proxy": 0 };
const discovery = new PeerDiscovery(address, credentials, options);
const communication = new PeerCommunication(address, credentials, options);
const transaction = new TransactionDistribution(address, credentials, options);

/** Calls a unary method: what it answers, or the error. */
const call = (client, method, request) =>
  new Promise((done, failed) =>
    client[method](request, { deadline: deadline() }, (error, answer) => (error ? failed(error) : done(answer))),
  );

async function refused(code, promise) {
  const error = await promise.then((answer) => assert.fail(`${code} expected: ${JSON.stringify(answer)}`), (e) => e);
  assert.equal(grpc.status[error.code], code, error.message);
  assert(error.details, `${code} without a word`);
}

/** Looks again and again: nothing tells when a node is through with what it promised. */
async function until(look, what) {
  for (const end = Date.now() + PATIENCE; ; await sleep(20)) {
    const seen = await look();
    if (seen) return seen;
    assert(Date.now() < end, `${what}: not in time`);
  }
}

const agent = new (secure ? https : http).Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });

function rest(method, path, body, wanted = 200, headers = {}) {
  if (body && !Buffer.isBuffer(body)) {
    headers = { ...headers, "content-type": "application/json" };
    body = JSON.stringify(body);
  }
  return new Promise((done, failed) => {
    const request = (secure ? https : http).request({ host, port, method, path, headers, agent, timeout: PATIENCE });
    request.on("timeout", () => request.destroy(new Error(`${method} ${path}: no answer`)));
    request.on("error", failed);
    request.on("response", async (answer) => {
      const content = Buffer.concat(await answer.toArray());
      if (answer.statusCode !== wanted) failed(new Error(`${method} ${path}: ${answer.statusCode} ${content}`));
      const isJson = /^application\/(problem\+)?json/.test(answer.headers["content-type"]);
      done({ content: isJson ? JSON.parse(content) : content, headers: answer.headers });
    });
    request.end(body);
  });
}

const own = await new OwnPeer(`compat-node-${process.pid}`).listen();
const second = await new OwnPeer(`${own.name}-2`).listen();
const first = randomBytes(300);
const large = randomBytes((2 << 20) + 5);
let node = "";

const register = (peer_info) => call(discovery, "RegisterPeer", { peer_info });
const listed = (requesting_peer_id = "somebody", max_peers = 0) =>
  call(discovery, "GetPeerList", { requesting_peer_id, max_peers });
const names = (peers) => peers.map(({ peer_id }) => peer_id);
const get = (transaction_hash, register_id = "") =>
  call(transaction, "GetTransaction", { transaction_hash, requesting_peer_id: own.name, register_id });
const offer = (payload, changes = {}) =>
  call(transaction, "NotifyTransaction", {
    transaction_hash: own.have(payload),
    sender_peer_id: own.name,
    timestamp: now(),
    transaction_size: payload.length,
    ...changes,
  });
const pieces = (transaction_hash, register_id = "") =>
  transaction.StreamTransaction({ transaction_hash, register_id }, { deadline: deadline() }).toArray();
const message = (message_type, payload = Buffer.alloc(0), changes = {}) => ({
  sender_peer_id: own.name,
  recipient_peer_id: node,
  message_type,
  payload,
  timestamp: now(),
  ...changes,
});
const encode = (method, request) => TransactionDistribution.service[method].requestSerialize(request);

/** The promise of `will_request` is kept, and the node serves what it fetched. */
async function isFetched(payload, ack, topic = "") {
  assert.deepEqual(ack, { already_known: false, will_request: true });
  const { transaction_data } = await until(async () => {
    const answer = await get(sha256(payload), topic);
    return answer.found && answer;
  }, "fetched");
  assert(transaction_data.equals(payload), "what was fetched");
}

const steps = {
  async "ping is answered by the node"() {
    const answer = await call(discovery, "Ping", { peer_id: own.name });
    node = answer.peer_id;
    assert.match(node, /^[0-9a-f]{64}$/);
    isNow(answer.timestamp, "timestamp");
    assert.notEqual(answer.status, "UNKNOWN");
  },
  async "registrations that cannot be are refused"() {
    for (const [changes, message] of [
      [{ peer_id: "" }, "Invalid peer ID"],
      [{ peer_id: "x".repeat(65) }, "Invalid peer ID"],
      [{ peer_id: node }, "Invalid peer ID"],
      [{ address: "" }, "Invalid peer address"],
      [{ port: 0 }, "Invalid peer port"],
      [{ port: 65536 }, "Invalid peer port"],
    ]) {
      assert.deepEqual(await register(own.info(changes)), { success: false, message });
    }
    await refused("INVALID_ARGUMENT", call(discovery, "RegisterPeer", {}));
  },
  async "who registers is pinged and then listed"() {
    for (const peer of [own, second]) {
      const answer = await register(peer.info());
      assert.deepEqual(answer, { success: true, message: "Peer registered successfully" });
      assert.equal((await peer.wait("Ping")).peer_id, node);
      const find = async () => (await listed()).peers.find(({ peer_id }) => peer_id === peer.name);
      const entry = await until(find, "listed");
      assert.deepEqual([entry.address, entry.port], ["127.0.0.1", peer.port]);
      assert.deepEqual(entry.supported_protocols, ["GrpcStream", "Grpc"]);
      isNow(entry.last_seen, "last_seen");
    }
  },
  async "lists leave out the caller and are cut"() {
    const everybody = await listed();
    const mine = await listed(own.name);
    assert(!names(mine.peers).includes(own.name) && names(mine.peers).includes(second.name));
    assert.equal(mine.total_peers, everybody.total_peers - 1);
    const cut = await listed("somebody", 1);
    assert.deepEqual([cut.peers.length, cut.total_peers], [1, everybody.total_peers]);
  },
  async "peers are exchanged"() {
    const known_peers = [{ peer_id: "hearsay", address: "192.0.2.1", port: 5001 }, second.info()];
    const answer = await call(discovery, "ExchangePeers", { peer_id: own.name, known_peers, max_peers: 50 });
    assert(answer.success, answer.message);
    const found = names(answer.known_peers);
    assert(!found.includes(own.name) && found.includes(second.name), `${found}`);
  },
  async "what is notified is fetched"() {
    await isFetched(first, await offer(first, { register_id: "compat-orders" }), "compat-orders");
    const asked = await own.wait("GetTransaction", (r) => r.transaction_hash === sha256(first));
    assert.deepEqual([asked.requesting_peer_id, asked.register_id], [node, "compat-orders"]);
    const known = await offer(first, { register_id: "compat-orders" });
    assert.deepEqual(known, { already_known: true, will_request: false });
  },
  async "large ones are fetched in pieces"() {
    await isFetched(large, await offer(large, { timestamp: Date.now() }));
    await own.wait("StreamTransaction", (r) => r.transaction_hash === sha256(large));
  },
  async "notifications that cannot be are refused"() {
    const stranger = await offer(randomBytes(9), { sender_peer_id: "stranger" });
    assert.deepEqual(stranger, { already_known: false, will_request: false });
    for (const changes of [{ transaction_hash: "" }, { transaction_hash: "xyz" }, { transaction_size: -1 }]) {
      await refused("INVALID_ARGUMENT", offer(randomBytes(9), changes));
    }
  },
  async "transactions are found by each form of their hash"() {
    const digest = Buffer.from(sha256(first), "hex");
    const base64 = digest.toString("base64");
    const hex = digest.toString("hex");
    for (const form of [hex, hex.toUpperCase(), base64, base64.replace(/=/g, ""), digest.toString("base64url")]) {
      const answer = await get(form);
      assert(answer.found && answer.transaction_data.equals(first), form);
      assert.equal(answer.transaction_hash, form);
    }
    assert(!(await get(sha256(first), "elsewhere")).found, "found in another topic");
    assert(!(await get("0".repeat(64))).found, "found what nobody has");
    await refused("INVALID_ARGUMENT", get(""));
  },
  async "transactions are streamed"() {
    const got = await pieces(sha256(large));
    assert(Buffer.concat(got.map(({ chunk_data }) => chunk_data)).equals(large));
    got.forEach(({ chunk_index, total_chunks, chunk_data }, number) => {
      assert.deepEqual([chunk_index, total_chunks], [number, 33]);
      assert(number === 32 || chunk_data.length === PIECE, `${chunk_data.length}`);
    });
    await refused("NOT_FOUND", pieces("0".repeat(64)));
    await refused("NOT_FOUND", pieces(sha256(large), "elsewhere"));
  },
  async "messages are taken"() {
    const send = (...sent) => call(communication, "SendMessage", message(...sent));
    const payload = randomBytes(70);
    const note = { transaction_hash: own.have(payload), sender_peer_id: own.name, transaction_size: 70 };
    const ack = await send("TRANSACTION_NOTIFICATION", encode("NotifyTransaction", note));
    assert(ack.received);
    isNow(ack.timestamp, "timestamp");
    await until(async () => (await get(sha256(payload))).found, "fetched");
    assert((await send("HEARTBEAT")).received);
    assert.equal((await send("PEER_STATUS_UPDATE", Buffer.from("status"))).received, flags.has("--served"));
    assert.equal((await send("UNKNOWN")).received, false);
    await refused("FAILED_PRECONDITION", send("HEARTBEAT", undefined, { recipient_peer_id: second.name }));
    await refused("NOT_FOUND", send("HEARTBEAT", undefined, { recipient_peer_id: "stranger" }));
    await refused("INVALID_ARGUMENT", send("TRANSACTION_REQUEST", Buffer.from([0xff])));
  },
  async "messages are streamed both ways"() {
    const request = { transaction_hash: sha256(first), requesting_peer_id: own.name };
    const sent = [message("HEARTBEAT", Buffer.from("beat"))];
    sent.push(message("TRANSACTION_REQUEST", encode("GetTransaction", request)));
    if (flags.has("--served")) sent.push(message("PEER_STATUS_UPDATE", Buffer.from("status")));
    const stream = communication.Stream({ deadline: deadline() });
    const answers = stream[Symbol.asyncIterator]();
    const got = [];
    for (const one of sent) {
      stream.write(one);
      got.push((await answers.next()).value);
    }
    stream.end();
    assert((await answers.next()).done, "more after the end");
    assert(got.every((one) => one.sender_peer_id === node && one.recipient_peer_id === own.name));
    assert.deepEqual([got[0].message_type, `${got[0].payload}`], ["HEARTBEAT", "beat"]);
    assert.equal(got[1].message_type, "TRANSACTION_RESPONSE");
    const response = TransactionDistribution.service.GetTransaction.responseDeserialize(got[1].payload);
    assert(response.found && response.transaction_data.equals(first));
    if (got[2]) assert.deepEqual([got[2].message_type, `${got[2].payload}`], ["PEER_STATUS_UPDATE", "status"]);
  },
  async "who registered is told of what is published"() {
    const payload = randomBytes(40);
    const { content } = await rest("POST", "/api/v1/transactions?topic=compat-orders", payload, 201);
    for (const peer of [own, second]) {
      const told = await peer.wait("NotifyTransaction", (r) => r.transaction_hash === sha256(payload));
      assert.deepEqual([told.sender_peer_id, told.register_id], [node, "compat-orders"]);
      assert.equal(told.transaction_size, 40);
    }
    for (const hash of [sha256(payload), content.transactionId]) {
      assert((await get(hash)).transaction_data.equals(payload), hash);
    }
  },
  async "an empty transaction is one empty piece"() {
    const { content } = await rest("POST", "/api/v1/transactions", { topic: "compat-orders", payload: "" }, 201);
    const [piece, ...more] = await pieces(content.transactionId);
    assert.deepEqual([piece.chunk_index, piece.total_chunks, piece.chunk_data.length, more.length], [0, 1, 0, 0]);
  },
  async "REST serves the same"() {
    for (const prefix of ["/api/v1/peers", "/api/peers", "/api/peer"]) {
      const { content } = await rest("GET", `${prefix}/list?requestingPeerId=${own.name}&maxPeers=50`);
      const found = content.map(({ peerId }) => peerId);
      assert(!found.includes(own.name) && found.includes(second.name), `${prefix}: ${found}`);
      const pong = await rest("POST", `${prefix}/ping`, { peerId: own.name, timestamp: now() });
      assert.equal(pong.content.alive, true);
      const body = { peerId: own.name, address: "127.0.0.1", port: own.port };
      await rest("POST", `${prefix}/register`, { ...body, supportedProtocols: ["GrpcStream", "Grpc"] });
    }
    for (const prefix of ["/api/v1/transactions", "/api/transaction"]) {
      const range = { range: "bytes=5-104" };
      const part = await rest("GET", `${prefix}/${sha256(large)}`, undefined, 206, range);
      assert(part.content.equals(large.subarray(5, 105)));
      const { headers } = await rest("GET", `${prefix}/${"0".repeat(64)}`, undefined, 404);
      assert.equal(headers["content-type"], "application/problem+json");
    }
  },
};

let wrong = 0;
for (const [name, step] of Object.entries(steps)) {
  try {
    await step();
    console.log(`ok    ${name}`);
  } catch (error) {
    wrong += 1;
    console.log(`WRONG ${name}: ${String(error.message).slice(0, 600)}`);
  }
}
if (wrong) console.error(`${wrong} of ${Object.keys(steps).length} steps went wrong`);
process.exit(wrong ? 1 : 0);
