// The life of one transaction as a time line, here and, where asked for, at other nodes.

/** What a step is called, what stands before its peer, and whether it is good, bad or neither. */
const STEPS = map({
  published: ["Published here", "", "good"], announced_by: ["Announced", "by", "quiet"],
  asked: ["Asked for", "from", "quiet"],
  checking: ["Being checked", "from", "quiet"], accepted: ["Accepted", "from", "good"],
  refused: ["Refused", "from", "bad"], stored: ["Stored", "", "good"], not_stored: ["Not stored", "", "bad"],
  pushed: ["Pushed", "to", "quiet"],
  announced: ["Announced", "to", "quiet"], wanted: ["Wanted", "by", "quiet"], served: ["Served", "to", "quiet"],
  confirmed: ["Confirmed", "by", "good"], refused_by: ["Refused", "by", "bad"],
  retried: ["Offered once more", "to", "warn"], dead_lettered: ["Given up: a dead letter", "", "bad"],
  redelivered: ["Taken back by hand", "", "good"], deleted: ["Deleted", "", "warn"],
  renewed: ["Published anew under another id", "", "warn"], expired: ["Expired", "", "bad"],
});

/** How matters stand with linked peers now: no steps, but what is to come or keeps it from coming. */
const STANDS = map({
  offered: ["On offer", "to", "quiet"], behind: ["Still to be told of", "to", "warn"],
  in_debt: ["Left to a later comparison, since too slow:", "", "warn"],
  not_carried: ["Topic not carried", "by", "warn"], over_limit: ["Larger than allowed", "by", "bad"],
  banned: ["Kept back, since banned:", "", "bad"],
  stale: ["Expired before any other node had it: to be published anew", "", "warn"],
});

const STATES = map({
  unknown: "quiet", refused: "bad", pending: "warn", stored: "good", confirmed: "good", dead_letter: "bad",
  expired: "warn",
});

const words = (name) => plain(name, 60).replaceAll("_", " ");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Steps of one kind that follow each other within a second, for one reason, are one mark on the line. */
function gather(steps) {
  const marks = [];
  for (const step of steps) {
    const last = marks.at(-1);
    const alike = last !== undefined && last.what === step.what && last.reason === (step.reason ?? null)
      && step.peer && last.peers.length > 0 && step.at_ms - last.at_ms < 1000;
    if (alike) last.peers.push(step);
    else {
      const { what, at_ms, reason = null } = step;
      marks.push({ what, at_ms, reason, peers: step.peer ? [step] : [], step });
    }
  }
  return marks;
}

const way = ({ peer, transport, hop }) => [
  code(peer),
  transport ? `, ${rung(transport)}` : "",
  known(hop) ? `, hop ${hop}` : "",
];

const named = (mark) => STEPS.get(mark.what) ?? STANDS.get(mark.what) ?? [capital(words(mark.what)), "by", "quiet"];

function markText(mark) {
  const [name, by] = named(mark);
  const line = el("div", {}, el("strong", {}, name), " ");
  const joined = by === "" ? "" : `${by} `;
  if (mark.peers.length === 1) line.append(joined, ...way(mark.peers[0]));
  if (mark.peers.length > 1) line.append(`${joined}${mark.peers.length} peers`);
  if (mark.peers.length === 0 && mark.step.transport) line.append(`, ${rung(mark.step.transport)}`);
  if (mark.what === "renewed" && /^[0-9a-f]{64}$/.test(mark.reason)) line.append(code(mark.reason), " ", whyButton(mark.reason));
  else if (mark.reason) line.append(": ", because(mark.reason));
  if (mark.peers.length < 2) return line;
  const each = mark.peers.map((step) => el("li", {}, ...way(step)));
  line.append(el("details", {}, el("summary", {}, "Which"), el("ul", {}, ...each)));
  return line;
}

const dot = () => el("span", { class: "mark", "aria-hidden": "true" });

/** The line itself: its distances grow with the time between two marks, not as fast as that. */
function timeLine(steps) {
  const list = el("ol", { class: "line" });
  let before = null;
  for (const mark of gather(steps)) {
    const passed = before === null ? 0 : mark.at_ms - before;
    const time = before === null ? clock(mark.at_ms, true) : `+${span(passed)}`;
    if (passed > 0) list.lastChild.style.setProperty("--gap", `${Math.min(48, Math.round(7 * Math.log10(1 + passed)))}px`);
    if (passed >= 60_000) list.lastChild.classList.add("long");
    const stamp = el("time", { title: clock(mark.at_ms, true) }, time);
    list.append(el("li", { "data-tone": named(mark)[2] }, stamp, dot(), markText(mark)));
    before = mark.at_ms;
  }
  return list;
}

/** How it stands with peers, below the line. */
function standings(steps) {
  const list = gather(steps).map((mark) => el("li", { "data-tone": named(mark)[2] }, dot(), markText(mark)));
  return [el("h3", {}, "How it stands with linked peers now"), el("ul", { class: "stands" }, ...list)];
}

function stateWord(state) {
  const tone = STATES.get(state) ?? "quiet";
  return el("span", { class: "tag", "data-tone": tone }, dot(), capital(words(state)));
}

/** What one node says. */
function explained(answer) {
  const parts = [el("p", { class: "verdict" }, stateWord(answer.state), el("span", {}, plain(answer.summary, 400)))];
  const pairs = [];
  if (answer.topic) pairs.push(["Topic", plain(answer.topic, 120)]);
  if (known(answer.size)) pairs.push(["Size", bytes(answer.size)]);
  if (answer.origin) pairs.push(["Origin", answer.own ? "this node" : code(answer.origin)]);
  if (pairs.length > 0) {
    parts.push(el("dl", { class: "facts" }, ...pairs.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
  }
  const steps = Array.isArray(answer.steps) ? answer.steps : [];
  const [past, now] = [steps.filter((step) => !STANDS.has(step.what)), steps.filter((step) => STANDS.has(step.what))];
  if (past.length > 0) parts.push(timeLine(past));
  else parts.push(el("p", { class: "none" }, "No step of it is kept here."));
  if (answer.left_out > 0) parts.push(el("p", { class: "quiet" }, `${count(answer.left_out)} more steps were not kept.`));
  if (now.length > 0) parts.push(...standings(now));
  return parts;
}

/** What the other nodes say, those first where it stopped. */
function fromElsewhere(answer) {
  const there = Object.entries(answer.elsewhere ?? {});
  const silent = Array.isArray(answer.not_told) ? answer.not_told : [];
  if (there.length === 0 && silent.length === 0) return [el("p", { class: "none" }, "No linked peer was there to be asked.")];
  const bad = (state) => (["refused", "dead_letter", "expired"].includes(state) ? 0 : state === "unknown" ? 1 : 2);
  there.sort(([, a], [, b]) => bad(a.state) - bad(b.state));
  const parts = [el("h3", {}, "At other nodes, each by its own clock")];
  for (const [peer, told] of there) {
    const summary = el("summary", {}, code(peer), " ", stateWord(told.state), " ", el("span", {}, plain(told.summary, 300)));
    parts.push(el("details", { class: "node-told" }, summary, ...explained(told).slice(1)));
  }
  if (silent.length > 0) {
    const ids = silent.flatMap((peer) => [code(peer), " "]);
    parts.push(el("p", { class: "quiet" }, `${silent.length} did not say: they do not answer, or do not allow it. `, ...ids));
  }
  return parts;
}

let explains = 0;

/** Asks why, and draws the answer; of two questions the later one. */
async function explain(id) {
  const turn = (explains += 1);
  const across = $("why-across").checked;
  $("why-answer").setAttribute("aria-busy", "true");
  try {
    const answer = await api(`transactions/${id}/explain${across ? "?across=true" : ""}`, { patience: 30_000 });
    if (turn !== explains) return;
    const parts = across ? [...explained(answer), ...fromElsewhere(answer)] : explained(answer);
    $("why-answer").replaceChildren(...parts);
  } catch (error) {
    if (turn !== explains) return;
    $("why-answer").replaceChildren(el("p", { class: "error" }, told(error)));
  } finally {
    if (turn === explains) $("why-answer").removeAttribute("aria-busy");
  }
  $("why-answer").focus({ preventScroll: true });
}

function askWhy(event) {
  event?.preventDefault();
  const id = $("why-id").value.trim().toLowerCase();
  const fits = /^[0-9a-f]{64}$/.test(id);
  show($("why-error"), !fits);
  $("why-id").setAttribute("aria-invalid", String(!fits));
  if (!fits) {
    put($("why-error"), `An id has 64 hexadecimal digits; this has ${id.length} signs.`);
    $("why-id").focus();
    return;
  }
  history.replaceState(null, "", `#why=${id}`);
  explain(id);
}

/** Takes an id from elsewhere on the page, or from the address of the page, to the box. */
function whyOf(id) {
  $("why-id").value = plain(id, 80);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("why").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  askWhy();
}

/** A button that asks why for this id. */
function whyButton(id, label = "Why") {
  const button = el("button", { type: "button", class: "plain", click: () => whyOf(id) }, label);
  if (label === "Why") button.setAttribute("aria-label", `Why: ${short(id)}`);
  button.title = `Why: ${plain(id)}`;
  return button;
}

function startWhy() {
  $("why-form").addEventListener("submit", askWhy);
  $("why-across").addEventListener("change", () => {
    if (/^[0-9a-f]{64}$/i.test($("why-id").value.trim())) askWhy();
  });
  const linked = () => {
    const id = /^#why=([0-9a-f]{64})$/.exec(location.hash)?.[1];
    if (id !== undefined && id !== $("why-id").value) whyOf(id);
  };
  addEventListener("hashchange", linked);
  linked();
}
