// The table of peers, those lost lately included, and what may be done to one of them.
//
// A thousand rows stay in the document: once a second those cells are written whose text is another one, and
// the browser lays out the rows that are in sight alone.

const RANKS = map({ Suspect: 0, Slow: 1, Lost: 2, Up: 3 });
const TONES = map({ Suspect: "warn", Slow: "warn", Lost: "bad", Up: "good" });
const FRESH_MS = 5 * 60_000;

/** The word for how a peer is. */
function standing(peer) {
  if (peer.lost_at_ms !== undefined) return "Lost";
  if (peer.state === "suspect") return "Suspect";
  return peer.in_debt ? "Slow" : "Up";
}

/** What is odd about a peer, in words. */
function note(peer) {
  if (peer.lost_at_ms !== undefined) return because(peer.reason);
  const words = [];
  if (peer.in_debt) words.push("too slow for what is new");
  if (peer.behind > 0) words.push(`${count(peer.behind)} behind`);
  return words.join(", ");
}

const breaker = (peer) => (peer.breaker ? plain(peer.breaker, 20).replaceAll("_", "-") : "closed");
const waits = (peer) => (peer.queued_bytes ?? 0) + (peer.under_way_bytes ?? 0);
const lost = (peer) => peer.lost_at_ms !== undefined;
const arrow = (peer) => (peer.direction === "inbound" ? "in" : "out");

/** Milliseconds since a peer was linked, or lost. */
function since(peer, now) {
  return lost(peer) ? Math.max(0, now - peer.lost_at_ms) : (peer.connected_s ?? 0) * 1000;
}

/** Trouble first, then what is up; what was lost long ago last. */
function rank(peer, now) {
  const stale = lost(peer) && now - peer.lost_at_ms > FRESH_MS;
  return stale ? 4 : RANKS.get(standing(peer));
}

const COLUMNS = [
  { id: "state", title: "State", text: standing, key: rank },
  { id: "peer", title: "Peer", text: (peer) => short(peer.peer), key: (peer) => peer.peer },
  { id: "address", title: "Address", text: (peer) => plain(peer.address ?? "–"), key: (peer) => peer.address ?? "" },
  { id: "rung", title: "Rung", text: (peer) => `${rung(peer.transport)}, ${arrow(peer)}`, key: (peer) => rung(peer.transport) },
  {
    id: "rtt", title: "RTT", number: true, key: (peer) => (lost(peer) || !peer.rtt_us ? Infinity : peer.rtt_us),
    text: (peer) => (lost(peer) || !peer.rtt_us ? "–" : micros(peer.rtt_us)),
  },
  {
    id: "quality", title: "Quality", key: (peer) => (lost(peer) ? -1 : peer.quality ?? 0),
    text: (peer) => (lost(peer) ? "–" : peer.rating === "unknown" ? "unknown" : `${peer.quality ?? 0} ${plain(peer.rating ?? "", 20)}`),
  },
  { id: "breaker", title: "Breaker", text: breaker, key: (peer) => (peer.breaker ? 0 : 1) },
  {
    id: "clock", title: "Clock", number: true, text: (peer) => offset(peer.clock_offset_ms),
    key: (peer) => -Math.abs(peer.clock_offset_ms ?? 0),
  },
  { id: "waits", title: "Waiting", number: true, text: (peer) => (lost(peer) ? "–" : bytes(waits(peer))), key: (peer) => -waits(peer) },
  {
    id: "since", title: "Since", number: true, key: (peer, now) => since(peer, now),
    text: (peer, now) => (lost(peer) ? `${span(since(peer, now))} ago` : span(since(peer, now))),
  },
  { id: "note", title: "Note", text: note, key: (peer) => (note(peer) === "" ? "\uffff" : note(peer)) },
];

const KINDS = [["all", "All"], ["linked", "Linked"], ["trouble", "Trouble"], ["lost", "Lost"]];

const ofKind = {
  all: () => true,
  linked: (peer) => !lost(peer),
  trouble: (peer) => ["Suspect", "Slow"].includes(standing(peer)) || Boolean(peer.breaker),
  lost,
};

/** One row; it keeps what it shows, so that nothing is read back from the document. */
class Row {
  constructor(id) {
    this.id = id;
    this.shown = COLUMNS.map(() => "");
    this.texts = COLUMNS.map(() => document.createTextNode(""));
    this.cells = COLUMNS.map((column, i) => this.cell(column, this.texts[i]));
    const button = el("button", { type: "button", class: "plain", click: () => openPeer(this.id) }, "Details");
    button.setAttribute("aria-label", `Details of ${short(id)}`);
    const last = el("td", { role: "cell", class: "c-more" }, button);
    this.row = el("tr", { role: "row" }, ...this.cells, last);
    this.tone = this.quality = this.address = null;
    this.cells[1].title = plain(id);
  }

  cell({ id, title, number }, text) {
    const settings = { class: `c-${id}${number ? " n" : ""}`, "data-label": title };
    if (id === "peer") return el("th", { ...settings, role: "rowheader", scope: "row" }, el("code", {}, text));
    if (id === "state") return el("td", { ...settings, role: "cell" }, el("span", { class: "mark", "aria-hidden": "true" }), text);
    if (id === "quality") {
      this.bar = el("span", { class: "bar", "aria-hidden": "true" }, el("i"));
      return el("td", { ...settings, role: "cell" }, this.bar, text);
    }
    return el("td", { ...settings, role: "cell" }, text);
  }

  /** Writes what changed. */
  write(peer, now) {
    this.peer = peer;
    for (let i = 0; i < COLUMNS.length; i += 1) {
      const text = COLUMNS[i].text(peer, now);
      if (text !== this.shown[i]) this.texts[i].data = this.shown[i] = text;
    }
    const tone = TONES.get(this.shown[0]);
    if (tone !== this.tone) this.row.dataset.tone = this.tone = tone;
    const quality = lost(peer) || peer.rating === "unknown" ? 0 : peer.quality ?? 0;
    if (quality !== this.quality) {
      this.quality = quality;
      this.bar.firstChild.style.width = `${quality}%`;
      this.bar.dataset.tone = quality === 0 ? "none" : quality >= 60 ? "good" : quality >= 40 ? "warn" : "bad";
    }
    if (peer.address !== this.address) {
      this.address = peer.address;
      this.cells[2].title = plain(peer.address ?? "");
      this.found = null;
    }
  }

  /** Whether the words that are looked for stand in the row. */
  has(words) {
    if (words === "") return true;
    const { peer } = this;
    const hay = `${peer.peer} ${peer.address ?? ""} ${this.shown[3]} ${peer.transport} ${this.shown[0]} ${this.shown[10]} ${peer.reason ?? ""}`;
    return hay.toLowerCase().includes(words);
  }
}

const peers = {
  rows: new Map(),
  order: [],
  kind: "all",
  words: "",
  sort: { column: COLUMNS[0], down: false },
  turns: 0,
  actions: false,
  now: Date.now(),
};

/** Takes what the node says of its peers. */
function writePeers({ peers: linked = [], lost: gone = [] }, now) {
  peers.now = now;
  const there = new Set();
  const numbers = { all: 0, linked: 0, trouble: 0, lost: 0 };
  for (const peer of [...linked, ...gone]) {
    if (there.has(peer.peer)) continue;
    there.add(peer.peer);
    let row = peers.rows.get(peer.peer);
    if (row === undefined) {
      row = new Row(peer.peer);
      peers.rows.set(peer.peer, row);
      peers.order.push(row);
      $("peer-rows").append(row.row);
      peers.turns = 0;
    }
    row.write(peer, now);
    for (const kind in numbers) if (ofKind[kind](peer)) numbers[kind] += 1;
  }
  for (const [id, row] of peers.rows) {
    if (there.has(id)) continue;
    peers.rows.delete(id);
    row.row.remove();
  }
  peers.order = peers.order.filter((row) => there.has(row.id));
  for (const [kind, label] of KINDS) put(peers.labels.get(kind), `${label} ${count(numbers[kind])}`);
  // Rows that move under the pointer or lose the focus are worse than an order that is 3 s old.
  if (peers.turns % 3 === 0 && !inUse()) orderPeers();
  peers.turns += 1;
  filterPeers();
  writeDialog();
}

const inUse = () => $("peer-rows").matches(":hover") || $("peer-rows").contains(document.activeElement);

function orderPeers() {
  const { column, down } = peers.sort;
  for (const row of peers.order) row.key = column.key(row.peer, peers.now);
  const least = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  peers.order.sort((a, b) => {
    const by = least(a.key, b.key);
    if (by !== 0) return down ? -by : by;
    return least(since(a.peer, peers.now), since(b.peer, peers.now)) * (lost(a.peer) ? 1 : 0) || least(a.id, b.id);
  });
  let next = $("peer-rows").firstElementChild;
  for (const { row } of peers.order) {
    if (row === next) next = next.nextElementSibling;
    else $("peer-rows").insertBefore(row, next);
  }
}

function filterPeers() {
  let shown = 0;
  for (const row of peers.order) {
    const fits = ofKind[peers.kind](row.peer) && row.has(peers.words);
    show(row.row, fits);
    if (fits) shown += 1;
  }
  const none = peers.order.length === 0
    ? "Nobody is linked, and nobody was within the last hour. The node dials its bootstrap peers again and again."
    : "No peer fits the filter.";
  put($("peers-none"), none);
  show($("peers-none"), shown === 0);
  show($("peer-scroll"), shown > 0);
}

function sortBy(column, down) {
  peers.sort = { column, down };
  for (const head of $("peer-head").querySelectorAll("[aria-sort]")) {
    const chosen = head.dataset.column === column.id;
    head.setAttribute("aria-sort", chosen ? (down ? "descending" : "ascending") : "none");
  }
  $("peer-sort").value = column.id;
  orderPeers();
}

function startPeers() {
  for (const column of COLUMNS) {
    const click = () => sortBy(column, peers.sort.column === column && !peers.sort.down);
    const button = el("button", { type: "button", click }, column.title);
    const settings = { role: "columnheader", scope: "col", "aria-sort": "none", "data-column": column.id };
    $("peer-head").append(el("th", { ...settings, class: `c-${column.id}${column.number ? " n" : ""}` }, button));
    $("peer-sort").append(el("option", { value: column.id }, column.title));
  }
  $("peer-head").append(el("th", { role: "columnheader", scope: "col", class: "c-more" }, el("span", { class: "away" }, "Actions")));
  peers.labels = choices($("peer-kinds"), "peer-kind", KINDS, peers.kind, (kind) => {
    peers.kind = kind;
    filterPeers();
  });
  $("peer-filter").addEventListener("input", (event) => {
    peers.words = event.target.value.trim().toLowerCase();
    filterPeers();
  });
  $("peer-sort").addEventListener("change", (event) => {
    sortBy(COLUMNS.find((column) => column.id === event.target.value), false);
  });
  sortBy(COLUMNS[0], false);
}

// One peer.

let opened = null;

function openPeer(id) {
  opened = id;
  show($("peer-result"), false);
  put($("peer-name"), `Peer ${short(id)}`);
  put($("peer-whole"), plain(id));
  $("peer-facts").replaceChildren();
  $("peer-actions").replaceChildren();
  writeDialog();
  $("peer-dialog").showModal();
}

/** What is known of a peer, in pairs. */
function facts(peer, now) {
  const pairs = [["State", standing(peer)], ["Address", plain(peer.address ?? "–")]];
  pairs.push(["Rung", `${rung(peer.transport)}, ${peer.direction === "inbound" ? "it dialled" : "dialled by this node"}`]);
  if (lost(peer)) {
    pairs.push(["Lost", `${clock(peer.lost_at_ms)}, ${span(since(peer, now))} ago`], ["Why", because(peer.reason)]);
    pairs.push(["Breaker", breaker(peer)]);
    return pairs;
  }
  const percent = (value) => (known(value) ? `${value} %` : "–");
  const speed = (value) => (value > 0 ? `${bytes(value)}/s` : "not measured");
  pairs.push(
    ["Linked for", span(since(peer, now))],
    ["Round trip", peer.rtt_us ? `${micros(peer.rtt_us)} ± ${micros(peer.jitter_us ?? 0)}` : "not measured"],
    ["Quality", COLUMNS[5].text(peer)],
    ["Served of what was asked", percent(peer.served_percent)],
    ["First with what it brought", percent(peer.first_percent)],
    ["Breaker", breaker(peer)],
    ["Clock, against ours", offset(peer.clock_offset_ms)],
    ["Waiting to be sent", bytes(peer.queued_bytes ?? 0)],
    ["Under way", bytes(peer.under_way_bytes ?? 0)],
    ["Sends at", speed(peer.bytes_per_second)],
    ["Receives at", speed(peer.incoming_bytes_per_second)],
    ["Transactions behind", count(peer.behind ?? 0)],
    ["Role", peer.relay ? "relay" : known(peer.depth) && peer.depth > 0 ? `edge, ${peer.depth} from a relay` : "–"],
  );
  return pairs;
}

/** Writes the dialog anew where it is open; what has not changed is left as it is. */
function writeDialog() {
  if (opened === null) return;
  const peer = peers.rows.get(opened)?.peer;
  const pairs = peer === undefined ? [["State", "gone from the list"]] : facts(peer, peers.now);
  const list = $("peer-facts");
  const names = [...list.children].map((pair) => pair.firstChild.textContent);
  if (names.join() !== pairs.map(([name]) => name).join()) {
    list.replaceChildren(...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }
  pairs.forEach(([, value], i) => put(list.children[i].lastChild, value));
  const actions = peer === undefined ? "" : lost(peer) ? "lost" : "linked";
  const kind = `${actions} ${peers.actions}`;
  if ($("peer-actions").dataset.kind !== kind || !$("peer-actions").hasChildNodes()) {
    $("peer-actions").dataset.kind = kind;
    $("peer-actions").replaceChildren(...buttons(actions));
  }
}

function buttons(kind) {
  if (!peers.actions) return [el("span", { class: "quiet" }, "This caller may look and not act.")];
  const of = {
    "": [],
    linked: [["Test the link …", testPeer], ["Reset breaker …", resetBreaker], ["Disconnect …", disconnect], ["Ban …", ban]],
    lost: [["Reset breaker …", resetBreaker], ["Lift the ban …", unban], ["Ban …", ban]],
  };
  return of[kind].map(([label, act]) => el("button", { type: "button", click: () => act(opened) }, label));
}

const post = (id, action, settings) => api(`peers/${encodeURIComponent(id)}/${action}`, { post: true, ...settings });

function testPeer(id) {
  const text = "Five pings and 256 KiB each way. It costs the peer as much, and may be done once in 10 s.";
  ask({ title: `Test the link to ${short(id)}?`, text, yes: "Test", say: peerSays, act: async () => {
    const test = await post(id, "test", { patience: 30_000 });
    const lostPings = test.lost > 0 ? `${test.lost} of ${test.sent} pings lost` : `${test.sent} pings answered`;
    const times = `${micros(test.rtt_min_us)} / ${micros(test.rtt_avg_us)} / ${micros(test.rtt_max_us)}`;
    return `${lostPings}; round trip ${times} (least, mean, most); ${bytes(test.bytes_per_second)}/s out, ${bytes(test.incoming_bytes_per_second)}/s in.`;
  } });
}

function resetBreaker(id) {
  const text = "What was left alone after failures is dialled at once. For when a path has just been mended.";
  ask({ title: `Reset the breaker of ${short(id)}?`, text, yes: "Reset", say: peerSays, act: async () => {
    await post(id, "reset-breaker");
    return "The breaker is closed; the peer is dialled as any other.";
  } });
}

function disconnect(id) {
  const text = "The link is closed with the reason “requested”. The node may link with the peer again; a ban keeps it away.";
  ask({ title: `Disconnect ${short(id)}?`, text, yes: "Disconnect", danger: true, say: peerSays, act: async () => {
    await post(id, "disconnect");
    return "Disconnected.";
  } });
}

function ban(id) {
  const text = "Its link is closed, and no link with it is made, by either side. The ban is kept over restarts.";
  ask({ title: `Ban ${short(id)}?`, text, yes: "Ban", danger: true, asksBan: true, say: peerSays, act: async () => {
    const time = $("ban-time").value;
    const body = { reason: $("ban-reason").value.trim() || "by hand", for_s: time === "" ? null : Number(time) };
    await post(id, "ban", { body });
    return time === "" ? "Banned until the ban is lifted." : `Banned for ${span(Number(time) * 1000)}.`;
  } });
}

function unban(id) {
  const text = "Links with the peer are allowed again, whichever side dials.";
  ask({ title: `Lift the ban of ${short(id)}?`, text, yes: "Lift it", say: peerSays, act: async () => {
    await post(id, "unban");
    return "The peer is not banned.";
  } });
}

/** Tells in the dialog what came of an action; the focus goes there, so that it is read out. */
function peerSays(text) {
  put($("peer-result"), text);
  show($("peer-result"), true);
  $("peer-result").focus();
}

// Every action asks first.

let asked = null;

function ask(question) {
  asked = question;
  put($("ask-title"), question.title);
  put($("ask-text"), question.text);
  put($("ask-yes"), question.yes);
  $("ask-yes").classList.toggle("danger", question.danger === true);
  show($("ask-ban"), question.asksBan === true);
  show($("ask-error"), false);
  $("ask-yes").disabled = false;
  $("ask").showModal();
}

async function answerYes(event) {
  event.preventDefault();
  const question = asked;
  $("ask-yes").disabled = true;
  show($("ask-error"), false);
  try {
    const said = await question.act();
    if (asked === question) $("ask").close();
    question.say(said);
    hurry();
  } catch (error) {
    put($("ask-error"), told(error));
    show($("ask-error"), true);
    $("ask-error").focus();
  } finally {
    $("ask-yes").disabled = false;
  }
}

function startDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  }
  $("peer-dialog").addEventListener("close", () => { opened = null; });
  $("ask").addEventListener("close", () => { asked = null; });
  $("ask-form").addEventListener("submit", answerYes);
}
