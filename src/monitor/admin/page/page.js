// The turn of a second: asks the node, and writes what changed in one frame.

const MODES = map({ online: ["good", "Online"], degraded: ["warn", "Degraded"], offline: ["bad", "Offline"] });

/** The five numbers. */
const NUMBERS = [
  { id: "delivered", title: "Delivered", unit: "/s", series: "delivered_per_s", say: rate },
  { id: "published", title: "Published", unit: "/s", series: "published_per_s", say: rate },
  { id: "latency", title: "Latency, p99", unit: "", series: "latency_p99_us", say: micros },
  { id: "outbox", title: "Outbox", unit: "", series: "outbox", say: count },
  { id: "dropped", title: "Dropped", unit: "/s", series: "dropped_per_s", say: rate },
];

const turn = { last: null, wait: 1000, timer: null, running: false, drops: [], number: 0, tries: 0, signIn: null };

function startNumbers() {
  for (const number of NUMBERS) {
    number.value = el("b", {}, "–");
    number.under = el("span", { class: "under" }, "not measured yet");
    number.spark = new Spark();
    $("numbers").append(el("li", { class: `number ${number.id}` }, el("h3", {}, number.title),
      el("p", {}, number.value, el("span", { class: "unit" }, number.unit)), number.spark.svg, number.under));
  }
}

/** The upper bound below which so large a share of a histogram lies. */
function percentile(histogram, share) {
  const buckets = Array.isArray(histogram?.buckets) ? histogram.buckets : [];
  const all = buckets.reduce((sum, [, number]) => sum + number, 0);
  let so = 0;
  for (const [upper, number] of buckets) {
    so += number;
    if (all > 0 && so >= share * all) return upper;
  }
  return null;
}

/** Reasons of drops within the last minute; those since the start where there were none. */
function dropsByReason(stats) {
  const drops = stats.drops ?? {};
  turn.drops.push([stats.at_ms ?? Date.now(), drops]);
  while (turn.drops.length > 60) turn.drops.shift();
  const [since, before] = turn.drops[0];
  const seconds = Math.max(1, ((stats.at_ms ?? Date.now()) - since) / 1000);
  const most = (of) => Object.entries(drops).map(([reason, number]) => [reason, of(reason, number)])
    .filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]).slice(0, 3);
  const lately = most((reason, number) => (number - (before[reason] ?? 0)) / seconds);
  if (lately.length > 0) return lately.map(([reason, number]) => `${words(reason)} ${rate(number)}/s`).join(", ");
  const ever = most((_, number) => number);
  if (ever.length === 0) return "nothing since the start";
  return `since the start: ${ever.map(([reason, number]) => `${words(reason)} ${count(number)}`).join(", ")}`;
}

function writeNumbers(stats) {
  const all = stats.counters ?? {};
  const outbox = stats.outbox ?? {};
  const letters = outbox.dead_letters > 0 ? `, ${count(outbox.dead_letters)} dead ${outbox.dead_letters === 1 ? "letter" : "letters"}` : "";
  const oldest = outbox.size > 0 && known(outbox.oldest_age_ms) ? `oldest ${span(outbox.oldest_age_ms)}` : "nothing waits";
  const half = percentile(stats.gossip?.latency, 0.5);
  const came = (stats.gossip?.latency?.count ?? 0) > 0;
  const under = {
    delivered: `${count(all.transactions_accepted)} since the start`,
    published: `${count(all.transactions_published)} since the start`,
    latency: !came ? "nothing came yet" : half === null ? "half took more than a minute" : `half within ${micros(half)}`,
    outbox: `${oldest}, room for ${count(outbox.limit)}${letters}`,
    dropped: dropsByReason(stats),
  };
  for (const number of NUMBERS) put(number.under, under[number.id]);
  put(NUMBERS[3].value, count(outbox.size));
}

/** The latest of each series beside its small line. */
async function lookAtLines() {
  const history = await api("history?span=5m");
  requestAnimationFrame(() => {
    for (const number of NUMBERS) {
      const list = history.series?.[number.series] ?? [];
      if (number.id !== "outbox") put(number.value, number.say(latest(list)));
      number.spark.write(list, number.say);
    }
  });
}

function writeState(status) {
  const [tone, word] = MODES.get(status.mode) ?? ["quiet", plain(status.mode, 20)];
  const worse = status.ready === false && tone === "good" ? "warn" : tone;
  $("state").dataset.tone = worse;
  put($("sentence"), plain(status.sentence ?? word, 500));
  // One reason alone stands in the sentence.
  const several = (status.reasons ?? []).length > 1 ? status.reasons : [];
  const reasons = several.map((reason) => plain(reason, 300));
  if (reasons.join("\n") !== [...$("reasons").children].map((item) => item.textContent).join("\n")) {
    $("reasons").replaceChildren(...reasons.map((reason) => el("li", {}, reason)));
  }
  put($("network"), plain(status.network, 80));
  put($("own-id"), short(status.peer_id));
  $("own-id").title = plain(status.peer_id);
  show($("copy-id"), Boolean(navigator.clipboard));
  put($("version"), plain(status.version, 40));
  put($("uptime"), `up ${span((status.uptime_s ?? 0) * 1000)}`);
  document.title = `${word} · ${plain(status.network, 40)} · sorcha peer`;
}

function liveIs(tone, word) {
  $("live").dataset.tone = tone;
  put($("live-word"), word);
}

/** One turn: everything that changes each second is asked at once and written in one frame. */
async function look() {
  const [status, stats, there] = await Promise.all([api("status"), api("stats"), api("peers")]);
  const now = performance.now();
  turn.last = Date.now();
  turn.wait = 1000;
  await new Promise((done) => {
    requestAnimationFrame(() => {
      peers.actions = status.actions === true;
      writeState(status);
      writeNumbers(stats);
      writePeers(there, status.now_ms ?? Date.now());
      writeReach(status, stats);
      writeEvents();
      liveIs("good", "Live");
      show($("stale"), false);
      document.body.classList.remove("old");
      done();
    });
  });
  turn.number += 1;
  if (turn.number % 2 === 1) await lookAtLines();
  await lookAtCharts(now);
  await lookAtAddresses(now);
  await lookAtDeadLetters(now, stats.outbox?.dead_letters ?? 0);
}

/** Says that what stands on the page is old. */
function lostTouch(error) {
  turn.wait = Math.min(turn.wait * 2, 10_000);
  $("state").dataset.tone = "bad";
  put($("sentence"), told(error));
  $("reasons").replaceChildren();
  const from = turn.last === null ? "" : `What stands below is from ${clock(turn.last)}. `;
  put($("stale"), `${from}Asked again in ${span(turn.wait)}.`);
  show($("stale"), true);
  document.body.classList.add("old");
  document.title = "No answer · sorcha peer";
  liveIs("bad", "Disconnected");
}

async function run() {
  if (turn.running) return;
  turn.running = true;
  clearTimeout(turn.timer);
  const started = performance.now();
  try {
    if (!document.hidden) await look();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) await signedIn(error);
    else lostTouch(error);
  }
  turn.running = false;
  turn.timer = setTimeout(run, Math.max(100, turn.wait - (performance.now() - started)));
}

/** Asks at once instead of within the second. */
function hurry() {
  clearTimeout(turn.timer);
  turn.timer = setTimeout(run, 0);
}

// The token.

/** Shows the field for the token, and waits until the node takes one. */
function signedIn(error) {
  if (turn.signIn !== null) return turn.signIn.promise;
  // An answer to an earlier token says nothing of the one that is kept now.
  if (error.token !== token()) return Promise.resolve();
  turn.signIn = Promise.withResolvers();
  const wrong = token() !== null;
  keepToken(null);
  show($("token"), true);
  show($("shown"), false);
  show($("forget"), false);
  liveIs("warn", "Asks for a token");
  put($("token-error"), "The node does not take this token.");
  show($("token-error"), wrong);
  document.title = "Token · sorcha peer";
  $("token-value").focus();
  return turn.signIn.promise;
}

/** Tries the token of the form, and keeps it once the node took it. Only the latest that was entered counts. */
async function tryToken(event) {
  event.preventDefault();
  const used = $("token-value").value.trim();
  const number = turn.tries += 1;
  const refusal = await api("status", { used }).then(() => null, (error) => error);
  if (number !== turn.tries) return;
  if (refusal !== null) {
    put($("token-error"), refusal.status === 401 ? "The node does not take this token." : told(refusal));
    show($("token-error"), true);
    $("token-error").focus();
    return;
  }
  keepToken(used);
  $("token-value").value = "";
  show($("token"), false);
  show($("token-error"), false);
  show($("shown"), true);
  show($("forget"), true);
  $("state").focus();
  const { resolve } = turn.signIn;
  turn.signIn = null;
  resolve();
}

// The theme.

const THEME = "sorcha-theme";

function startTheme() {
  const set = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  let kept = "";
  try {
    kept = localStorage.getItem(THEME) ?? "";
  } catch {
    // A browser that keeps nothing goes by its own theme.
  }
  set(kept);
  $("theme").value = ["light", "dark"].includes(kept) ? kept : "";
  $("theme").addEventListener("change", (event) => {
    set(event.target.value);
    try {
      localStorage.setItem(THEME, event.target.value);
    } catch {
      // As above.
    }
  });
}

startTheme();
startNumbers();
startPeers();
startDialogs();
startWhy();
startCharts();
show($("forget"), token() !== null);
$("forget").addEventListener("click", () => {
  keepToken(null);
  location.reload();
});
$("copy-id").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("own-id").title);
  put($("copy-id"), "Copied");
  setTimeout(() => put($("copy-id"), "Copy id"), 2000);
});
$("token").addEventListener("submit", tryToken);
document.addEventListener("visibilitychange", () => { if (!document.hidden) hurry(); });
run();
startLists();
