// Reachability, dead letters, and events as they happen.

// What an event means.

const LINKS = new Set(["peer_up", "peer_down", "transport_changed", "peer_suspected", "link_refused", "handshake_refused",
  "identity_in_use", "record_refused", "dial_failed", "breaker_opened", "breaker_half_open", "breaker_closed"]);
const TRANSACTIONS = new Set(["transaction_refused", "replicated", "dead_lettered", "renewed", "history_missed", "publish_refused"]);
const TROUBLE = new Set(["peer_down", "peer_suspected", "link_refused", "handshake_refused", "identity_in_use",
  "record_refused", "dial_failed", "breaker_opened", "transaction_refused", "dead_lettered", "history_missed",
  "publish_refused", "clock_off", "storage_failed", "lagged"]);
const GOOD = new Set(["peer_up", "breaker_closed", "clock_right", "replicated"]);

const WANTED = {
  all: () => true,
  but: (name) => name !== "replicated",
  links: (name) => LINKS.has(name),
  transactions: (name) => TRANSACTIONS.has(name),
  trouble: (name) => TROUBLE.has(name),
};

const who = (event) => (event.peer ? code(event.peer) : event.address ? plain(event.address, 120) : "somebody");
const by = (event) => `${event.transport ? ` over ${rung(event.transport)}` : ""}${event.direction ? `, ${event.direction}` : ""}`;
const at = (event) => (event.address ? ` at ${plain(event.address, 120)}` : "");

/** What happened, as text and ids. */
const HAPPENED = map({
  peer_up: (e) => [who(e), by(e), at(e)],
  peer_down: (e) => [who(e), `: ${because(e.reason)}`],
  transport_changed: (e) => [who(e), ` from ${rung(e.from)} to ${rung(e.to)}: ${because(e.reason)}`],
  peer_suspected: (e) => [who(e), " missed an answer"],
  handshake_refused: (e) => [who(e), `: ${because(e.reason)}`],
  link_refused: (e) => [who(e), `${at(e)}, ${plain(e.direction, 20)}: ${because(e.reason)}`],
  dial_failed: (e) => [plain(e.address, 120), `${by(e)}: ${because(e.reason)}`],
  breaker_opened: (e) => [who(e), ` after ${plain(e.failures, 20)} failures; probed within ${span(e.reset_s * 1000)}`],
  transaction_refused: (e) => [code(e.id), e.peer ? " from " : "", e.peer ? code(e.peer) : "", `: ${because(e.reason)}`],
  publish_refused: (e) => [code(e.id), " by ", code(e.peer), `: ${because(e.reason)}`],
  replicated: (e) => [code(e.id), ` is at ${plain(e.peers, 20)} other ${e.peers === 1 ? "node" : "nodes"}`],
  dead_lettered: (e) => [code(e.id), `: ${plain(e.reason)}`],
  renewed: (e) => [code(e.id), " goes on as ", code(e.renewed_as)],
  mode_changed: (e) => [`The node is ${plain(e.mode, 20)}`],
  clock_off: (e) => [`The clock of this machine is off by ${span(Math.abs(e.offset_ms))}, as ${plain(e.peers, 20)} agree`],
  clock_right: () => ["The clock of this machine is right again"],
  reachability_changed: (e) => [e.state === "public" ? `Others can dial this node at ${plain(e.endpoint)}` : e.state === "private" ? "Others cannot dial this node" : "Whether others can dial this node is not known"],
  address_observed: (e) => [plain(e.address), ` as ${plain(e.prober, 60)} sees it`],
  storage_failed: (e) => [plain(e.message)],
  lagged: (e) => [`${count(e.missed)} events missed`],
  stand_in_changed: (e) => [e.stands_in ? "This edge stands in for a relay" : "This edge knows a relay again"],
});

/** What an event of an unknown kind has, by name. */
function fields(event) {
  const told = Object.entries(event).filter(([name]) => !["event", "at_ms", "seq"].includes(name));
  return [told.map(([name, value]) => `${words(name)} ${plain(value, 80)}`).join(", ")];
}

const happened = (event) => (HAPPENED.get(event.event) ?? (event.peer ? (e) => [who(e), at(e)] : fields))(event);

const events = { list: [], fresh: [], paused: false, kind: "but", heard: 0, known: new Set(), failed: new Map() };
const KEPT = 200;
const READ = 500;
/** A node says every 15 s that it is there. */
const SILENCE_MS = 40_000;

/** What makes two tellings of one event the same, in whatever order its fields stand. */
const mark = (event) => JSON.stringify(Object.entries(event).filter(([name]) => name !== "seq").sort());

function takeEvent(event) {
  if (typeof event?.event !== "string" || events.known.has(mark(event))) return;
  events.known.add(mark(event));
  if (events.known.size > 4 * READ) events.known = new Set([...events.known].slice(-READ));
  events.fresh.push(event);
  if (events.fresh.length > READ) events.fresh.shift();
  noteFailure(event);
  if (["dead_lettered", "renewed"].includes(event.event)) dead.due = 0;
}

/** Writes what came since the last time, in one go. */
function writeEvents() {
  if (events.paused) {
    put($("event-pause"), events.fresh.length > 0 ? `Go on (${count(events.fresh.length)} new)` : "Go on");
    return;
  }
  if (events.fresh.length === 0) return;
  events.list.unshift(...events.fresh.reverse());
  events.list.length = Math.min(events.list.length, READ);
  const wanted = events.fresh.filter((event) => WANTED[events.kind](event.event)).slice(0, KEPT);
  events.fresh = [];
  $("event-rows").prepend(...wanted.map(eventRow));
  while ($("event-rows").children.length > KEPT) $("event-rows").lastElementChild.remove();
  show($("events-none"), $("event-rows").children.length === 0);
  writeFailures();
}

function eventRow(event) {
  const name = event.event;
  const tone = GOOD.has(name) ? "good" : TROUBLE.has(name) ? "warn" : "quiet";
  const title = el("span", {}, el("span", { class: "mark", "aria-hidden": "true" }), capital(words(name)));
  const text = el("td", { role: "cell" }, ...happened(event));
  if (/^[0-9a-f]{64}$/.test(event.id)) text.append(" ", whyButton(event.id));
  const time = el("td", { role: "cell", class: "t" }, clock(event.at_ms));
  return el("tr", { role: "row", "data-tone": tone }, time, el("th", { role: "rowheader", scope: "row" }, title), text);
}

function chooseEvents(kind) {
  events.kind = kind;
  const shown = events.list.filter((event) => WANTED[kind](event.event)).slice(0, KEPT);
  $("event-rows").replaceChildren(...shown.map(eventRow));
  show($("events-none"), shown.length === 0);
}

// The stream. `EventSource` sends no token in a header, so it is read as it comes.

/** Blocks of a stream of server-sent events, as pairs of name and data. */
async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    events.heard = performance.now();
    rest += value.replaceAll("\r\n", "\n");
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const lines = part.split("\n");
      const of = (field) => lines.filter((line) => line.startsWith(`${field}:`)).map((line) => line.slice(field.length + 1).trimStart());
      // A comment tells only that the node is there.
      if (lines.some((line) => line.startsWith("data:"))) yield [of("event")[0] ?? "message", of("data").join("\n")];
    }
  }
}

function streamIs(tone, word) {
  $("stream").dataset.tone = tone;
  put($("stream-word"), word);
}

const pause = (ms) => new Promise((done) => { setTimeout(done, ms); });

/** Waits until somebody sees the page. */
const seen = () => new Promise((done) => {
  if (!document.hidden) done();
  else document.addEventListener("visibilitychange", () => done(seen()), { once: true });
});

/**
 * Reads the stream while the page is seen, and comes back to it after each end. A browser has six connections to
 * a node: tabs that nobody looks at keep none.
 */
async function follow() {
  let ending = new AbortController();
  document.addEventListener("visibilitychange", () => { if (document.hidden) ending.abort(); });
  for (let wait = 1000; ; wait = Math.min(wait * 2, 15_000)) {
    await seen();
    ending = new AbortController();
    events.heard = performance.now();
    const watch = setInterval(() => {
      if (performance.now() - events.heard > SILENCE_MS) ending.abort();
    }, 5000);
    try {
      const stream = await open("/api/v1/events", { accept: "text/event-stream", signal: ending.signal });
      const recent = await api("events/recent?limit=500");
      for (const event of (recent.events ?? []).toReversed()) takeEvent(event);
      streamIs("good", "Live");
      wait = 500;
      for await (const [name, data] of blocks(stream.body)) {
        const event = JSON.parse(data);
        takeEvent(name === "lagged" ? { event: name, at_ms: Date.now(), ...event } : event);
      }
    } catch (error) {
      if (error instanceof Refused && error.status === 401) await signedIn(error);
    }
    clearInterval(watch);
    streamIs("bad", `Disconnected; again in ${span(wait)}`);
    if (document.hidden) wait = 500;
    else await pause(wait);
  }
}

// What failed lately, out of the events.

function noteFailure(event) {
  if (!["dial_failed", "handshake_refused", "link_refused"].includes(event.event)) return;
  const from = event.event === "handshake_refused" || event.direction === "inbound";
  // A stranger that comes from another port each time is one stranger.
  const address = plain(event.address ?? "unknown address").replace(from ? /:\d+$/ : /^$/, "");
  const key = `${event.event} ${event.peer ?? ""} ${address} ${event.transport ?? ""} ${event.reason}`;
  const failure = events.failed.get(key) ?? { ...event, address, times: 0 };
  failure.times += 1;
  failure.at_ms = Math.max(failure.at_ms ?? 0, event.at_ms ?? 0);
  events.failed.delete(key);
  events.failed.set(key, failure);
  if (events.failed.size > 50) events.failed.delete(events.failed.keys().next().value);
}

const FAILED = map({ dial_failed: "dial", handshake_refused: "handshake, inbound", link_refused: "link" });

function writeFailures() {
  const list = [...events.failed.values()].sort((a, b) => b.at_ms - a.at_ms);
  show($("failed-none"), list.length === 0);
  show($("failed-scroll"), list.length > 0);
  $("failed").replaceChildren(...list.map((failure) => el("tr", {},
    el("th", { scope: "row" }, failure.peer ? code(failure.peer) : "", failure.peer ? " " : "", plain(failure.address, 80)),
    el("td", { class: "k" }, failure.transport ? rung(failure.transport) : FAILED.get(failure.event)),
    el("td", { class: "reason" }, because(failure.reason)),
    el("td", { class: "n" }, count(failure.times)),
    el("td", { class: "t" }, clock(failure.at_ms)))));
}

/** What listens, and as what others see the node. */
function writeReach(status, stats) {
  const list = (value) => (Array.isArray(value) ? value : value ? [value] : []);
  const address = (it) => (typeof it === "object" && it !== null ? `${plain(it.address)}${it.prober ? ` (${plain(it.prober, 60)})` : ""}` : plain(it));
  const row = (name, items, none) => [name, items.length > 0 ? items.map(address).join("\n") : none];
  const reach = stats.reachability ?? {};
  const inbound = stats.links?.by_direction?.inbound ?? 0;
  const here = inbound === 1 ? "1 peer dialled this node" : `${count(inbound)} peers dialled this node`;
  const rungs = Object.entries(stats.links?.by_transport ?? {}).filter(([, links]) => links > 0);
  const pairs = [
    ["Can be dialled", reachable(reach)],
    row("Listens on", list(status.listen), "nothing: the node dials and is not dialled"),
    row("For proxies", list(status.http), "no port"),
    row("Advertised", list(status.advertised), "nothing"),
    row("Seen as", list(reach.observed), "no peer has told"),
    ["Dialled by", inbound > 0 ? here : "nobody yet"],
    ["Links by rung", rungs.map(([name, links]) => `${rung(name)} ${count(links)}`).join(", ") || "none"],
  ];
  const facts = $("reach");
  if (!facts.hasChildNodes()) facts.append(...pairs.map(([name]) => el("div", {}, el("dt", {}, name), el("dd", {}))));
  pairs.forEach(([, text], i) => put(facts.children[i].lastChild, text));
}

const REACH = map({ private: "no: others tried and did not reach it; it goes on by the links that it dials", unknown: "not known: too few peers have tried" });

/** Whether others can dial the node, in words. */
function reachable(reach) {
  if (reach.state === "public") return `yes, at ${plain(reach.endpoint)}`;
  return REACH.get(reach.state) ?? plain(reach.state, 40);
}

const dashless = (word) => plain(word, 40).replaceAll("-", " ");

const addresses = { due: 0, shown: "" };

async function lookAtAddresses(now) {
  if (now < addresses.due) return;
  addresses.due = now + 5000;
  const { candidates = [], nat = [], failed = {} } = await api("reachability");
  const shown = JSON.stringify([candidates, nat, failed]);
  if (shown === addresses.shown) return;
  addresses.shown = shown;
  show($("candidates-none"), candidates.length === 0);
  show($("candidates-scroll"), candidates.length > 0);
  $("candidates").replaceChildren(...candidates.map((it) => el("tr", {},
    el("th", { scope: "row" }, plain(it.endpoint, 80)),
    el("td", { class: "k" }, it.votes > 0 ? `${plain(it.source, 40)} (${count(it.votes)})` : plain(it.source, 40)),
    el("td", { class: "k" }, dashless(it.state)),
    el("td", { class: "reason" }, plain(it.why)))));
  const behaves = nat.map((it) => `${plain(it.family, 10)}: ${plain(it.name, 40)} (mapping ${dashless(it.mapping)}, filtering ${dashless(it.filtering)}, ${count(it.confidence)} % sure)`);
  const found = Object.entries(failed).map(([name, why]) => `${plain(name, 80)}: ${plain(why)}`);
  const lines = [...behaves, ...found];
  show($("probers"), lines.length > 0);
  $("probers").replaceChildren(...lines.map((line) => el("li", {}, line)));
}

// Dead letters.

/** Dead letters in a part. */
const LETTERS = 50;

const dead = { due: 0, list: [], next: null, number: null, more: 0 };

async function lookAtDeadLetters(now, number) {
  if (number !== dead.number) dead.due = 0;
  dead.number = number;
  if (now < dead.due) return;
  dead.due = now + 15_000;
  try {
    const pages = [];
    let after = "";
    for (let page = 0; page <= dead.more && after !== null; page += 1) {
      const { dead_letters: part = [], next } = await api(`dead-letters?limit=${LETTERS}${after === "" ? "" : `&after=${after}`}`);
      pages.push(...part);
      after = part.length < LETTERS ? null : next ?? null;
    }
    dead.next = after;
    writeDeadLetters(pages);
  } catch {
    dead.due = now + 5000;
  }
}

function writeDeadLetters(list) {
  if (JSON.stringify([list, peers.actions, dead.next]) === dead.shown) return;
  dead.shown = JSON.stringify([list, peers.actions, dead.next]);
  show($("dead-none"), list.length === 0);
  show($("dead-scroll"), list.length > 0);
  show($("dead-more"), dead.next !== null);
  put($("dead-count"), list.length === 0 ? "" : count(dead.number ?? list.length));
  $("dead-rows").replaceChildren(...list.map((letter) => el("tr", {},
    el("th", { scope: "row" }, whyButton(letter.id, short(letter.id))),
    el("td", {}, plain(letter.topic, 60)),
    el("td", { class: "n" }, bytes(letter.size)),
    el("td", { class: "reason" }, plain(letter.reason, 160)),
    el("td", { class: "t" }, clock(letter.since_ms)),
    el("td", { class: "t" }, clock(letter.expires_ms)),
    el("td", { class: "buttons" }, ...deadButtons(letter)))));
}

function deadButtons(letter) {
  if (!peers.actions) return [];
  const act = (action, done) => async () => {
    const answer = await api(`dead-letters/${encodeURIComponent(letter.id)}/${action}`, { post: true });
    dead.due = 0;
    return done(answer);
  };
  const say = (text) => {
    put($("dead-count"), text);
    $("dead-letters").focus();
  };
  const name = short(letter.id);
  const redeliver = () => ask({
    title: `Redeliver ${name}?`, yes: "Redeliver", say,
    text: "It waits for copies again, and leaves this list. Where it has expired, it is published anew under another id.",
    act: act("redeliver", (answer) => (answer.id === letter.id ? "It waits again." : `Published anew as ${short(answer.id)}.`)),
  });
  const remove = () => ask({
    title: `Delete ${name}?`, yes: "Delete", danger: true, say,
    text: "It is gone for good: no other node has it.",
    act: act("delete", () => "Deleted."),
  });
  const button = (label, click) => el("button", { type: "button", class: "plain", click, "aria-label": `${label} ${name}` }, label);
  return [button("Redeliver", redeliver), button("Delete", remove)];
}

function startLists() {
  $("event-kind").addEventListener("change", (event) => chooseEvents(event.target.value));
  $("event-pause").addEventListener("click", () => {
    events.paused = !events.paused;
    $("event-pause").setAttribute("aria-pressed", String(events.paused));
    put($("event-pause"), events.paused ? "Go on" : "Pause");
    if (!events.paused) writeEvents();
  });
  $("dead-more").addEventListener("click", () => {
    dead.more += 1;
    dead.due = 0;
    hurry();
  });
  follow();
}
