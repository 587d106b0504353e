// Opens WebSockets to a node in right and wrong ways, with `ws`, and says what comes back.
//
// Called with a port of the loopback address, or with --probe, which only tells whether the library is there.

import { createRequire } from "node:module";
import { join } from "node:path";

const { WebSocket } = createRequire(join(process.env.NODE_MODULES, "x.js"))("ws");
if (process.argv[2] === "--probe") process.exit(0);

const url = `wss://127.0.0.1:${process.argv[2]}/sorcha/v1/ws`;
const garbage = Buffer.from("garbage that is not TLS".repeat(4));

function open(protocols, options) {
  const defaults = { rejectUnauthorized: false, perMessageDeflate: false };
  return new WebSocket(url, protocols, { ...defaults, ...options });
}

function refused(name, protocols, options) {
  return new Promise((done) => {
    const socket = open(protocols, options);
    const tell = (what) => (console.log(`${name}: ${what}`), socket.terminate(), done());
    socket.on("open", () => tell("opened"));
    socket.on("unexpected-response", (_, response) => tell(response.statusCode));
    socket.on("error", () => {});
  });
}

function closed(name, act, options) {
  return new Promise((done) => {
    const socket = open(["sorcha.gossip.v1"], options);
    let before = "";
    socket.on("open", async () => (before = (await act(socket)) ?? ""));
    socket.on("error", () => {});
    socket.on("close", (code) => (console.log(`${name}: ${before}close ${code}`), done()));
  });
}

async function ping(socket) {
  const answered = new Promise((done) => socket.once("pong", done));
  socket.ping("are you there");
  const before = String(await answered) === "are you there" ? "pong, then " : "no pong, then ";
  socket.send(garbage);
  return before;
}

function fragments(socket) {
  for (let i = 0; i < 4; i++) socket.send(garbage, { fin: i === 3 });
}

await refused("no protocol", []);
await refused("origin", ["sorcha.gossip.v1"], { origin: "https://evil.example" });
await closed("ping", ping);
await closed("garbage", (socket) => socket.send(garbage));
await closed(
  "compression",
  (socket) => (socket.send(garbage), `${socket.extensions || "none"}, then `),
  { perMessageDeflate: true },
);
await closed("text", (socket) => socket.send("hello"));
await closed("unmasked", (socket) => socket.send("x", { binary: true, mask: false }));
await closed("reserved bits", (socket) => {
  // Masked with zeros.
  socket._socket.write(Buffer.from([0xc2, 0x81, 0, 0, 0, 0, 0x78]));
});
await closed("long message", (socket) => socket.send(Buffer.alloc(1 << 20)));
await closed("fragments", fragments);
