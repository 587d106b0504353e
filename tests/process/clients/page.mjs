// The page of the admin listener in a real browser: Debian's Chromium, driven by playwright-core, judged by axe-core.
//
// Called with the URL of a node's page, the id of one of its transactions, and the ids of two linked peers, which are
// then disconnected and banned; or with --token URL TOKEN for a node that asks for one; or with --probe, which only
// tells whether browser and libraries are there. Prints one line a step; status 0 means that all are right.

import assert from "node:assert/strict";
import { accessSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const executablePath = "/usr/bin/chromium";
accessSync(executablePath);
if (process.argv[2] === "--probe") process.exit(0);

const PATIENCE = 30_000;
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

const step = (name) => console.log(`right: ${name}`);

/** A tab that remembers every error of the console, of scripts and of requests. */
async function tab(url, { colorScheme = "light", width = 1600, height = 1000, prepare = async () => {} } = {}) {
  const page = await browser.newPage({ colorScheme, viewport: { width, height } });
  page.setDefaultTimeout(PATIENCE);
  page.wrong = [];
  page.on("console", (line) => ["error", "warning"].includes(line.type()) && page.wrong.push(line.text()));
  page.on("pageerror", (error) => page.wrong.push(String(error.stack)));
  page.on("requestfailed", (request) => {
    // A stream ends with its tab.
    if (!request.url().endsWith("/events")) page.wrong.push(`${request.url()}: ${request.failure()?.errorText}`);
  });
  page.on("response", (answer) => answer.status() >= 400 && page.wrong.push(`${answer.url()}: ${answer.status()}`));
  page.on("dialog", (dialog) => page.wrong.push(`a dialog: ${dialog.message()}`));
  await prepare(page);
  await page.goto(url);
  return page;
}

const says = (page, id, text) => page.waitForFunction(
  ([id, text]) => document.getElementById(id).textContent.includes(text), [id, text],
);

/** Variance of the pixels of what is seen: nothing, where one colour is all there is. */
async function variance(page) {
  const shot = (await page.screenshot()).toString("base64");
  const canvas = await browser.newPage();
  const value = await canvas.evaluate(async (shot) => {
    const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${shot}`)).blob());
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    let [sum, squares, number] = [0, 0, 0];
    for (let i = 0; i < data.length; i += 4) {
      const grey = (data[i] + data[i + 1] + data[i + 2]) / 3;
      sum += grey;
      squares += grey * grey;
      number += 1;
    }
    return squares / number - (sum / number) ** 2;
  }, shot);
  await canvas.close();
  return value;
}

/** What axe-core has against the page as it stands. */
async function violations(page) {
  // Said to the browser itself: the policy of the page lets no tab run another script.
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
}

async function looksRight(page, name) {
  assert.deepEqual(await violations(page), [], name);
  assert.ok(await variance(page) > 50, `${name} is blank`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  assert.ok(wide <= 0, `${name} is ${wide} px too wide`);
  step(name);
}

/** Hides the tab from everybody, or shows it. */
const turn = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}, hidden);

/** Presses a button of the dialog of a peer, and says yes. */
async function act(page, peer, label, yes) {
  const row = page.locator("#peer-rows tr", { has: page.locator(`th[title="${peer}"]`) });
  await row.getByRole("button").click();
  await page.getByRole("button", { name: label }).click();
  await page.locator("#ask").getByRole("button", { name: yes, exact: true }).click();
  await page.locator("#peer-result").waitFor();
  await page.keyboard.press("Escape");
  return row;
}

/** A node with its figures, events, actions and a time line, as an operator goes through it. */
async function operate(url, id, disconnected, banned) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of [[1600, 1000], [800, 500], [360, 780]]) {
      const page = await tab(url, { colorScheme, width, height });
      await says(page, "live-word", "Live");
      await says(page, "stream-word", "Live");
      await page.locator(".charts path.stroke").first().waitFor({ state: "attached" });
      await looksRight(page, `${colorScheme}, ${width} px`);
      assert.deepEqual(page.wrong, []);
      await page.close();
    }
  }
  const page = await tab(url);
  await says(page, "live-word", "Live");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip", "the first stop is the way past the head");
  const listed = (peer) => page.locator(`#peer-rows th[title="${peer}"]`).waitFor({ state: "attached" });
  await Promise.all([listed(disconnected), listed(banned)]);
  step("peers are listed");

  await page.fill("#why-id", "not an id");
  await page.click("#why-form button");
  await says(page, "why-error", "64 hexadecimal digits");
  await page.fill("#why-id", id);
  await page.check("#why-across");
  await page.click("#why-form button");
  await page.locator("#why-answer > .line > li").nth(2).waitFor();
  for (const told of ["Published here", "Stored", "Confirmed", "At other nodes"]) await says(page, "why-answer", told);
  await page.locator(".node-told > summary").nth(1).waitFor();
  await page.locator(".node-told > summary").first().click();
  await page.locator(".node-told[open] .line > li").nth(1).waitFor();
  await looksRight(page, "a time line");
  const linked = await tab(`${url}#why=${id}`);
  await says(linked, "why-answer", "Published here");
  assert.deepEqual(linked.wrong, []);
  await linked.close();
  step("an id in the address of the page");

  await page.check("#as-tables");
  await page.locator(".charts tbody tr").first().waitFor();
  await looksRight(page, "charts as tables");
  await page.locator("#spans label", { hasText: "24 h" }).click();
  await page.uncheck("#as-tables");
  step("another span");

  // By the keyboard alone.
  await page.locator("#peer-rows button").first().focus();
  await page.keyboard.press("Enter");
  await looksRight(page, "the dialog of a peer");
  await page.getByRole("button", { name: "Disconnect …" }).focus();
  await page.keyboard.press("Enter");
  await looksRight(page, "a question before an action");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Details");
  step("keyboard");

  await act(page, banned, "Ban …", "Ban");
  await page.waitForFunction((peer) => {
    const row = document.querySelector(`#peer-rows th[title="${peer}"]`)?.closest("tr");
    return row?.dataset.tone === "bad";
  }, banned);
  step("a ban changes the table");
  await act(page, disconnected, "Disconnect …", "Disconnect");
  await page.waitForFunction(() => [...document.querySelectorAll("#event-rows tr")].some((row) => /Peer down.*closed by hand/s.test(row.textContent)));
  step("a link is closed, and the stream tells of it");

  const told = () => page.evaluate(() => [...document.querySelectorAll("#event-rows tr")].map((row) => row.textContent));
  const before = await told();
  await turn(page, true);
  await says(page, "stream-word", "Disconnected");
  await turn(page, false);
  await says(page, "stream-word", "Live");
  // What is told again is written, if at all, in the turn after.
  for (let n = 0; n < 2; n += 1) await page.waitForResponse((answer) => answer.url().endsWith("/api/v1/stats"));
  const after = await told();
  const times = (list, text) => list.filter((other) => other === text).length;
  for (const text of before) assert.equal(times(after, text), times(before, text), `told once: ${text}`);
  step("no event is told twice by a stream and by what is asked for beside it");
  assert.deepEqual(page.wrong, []);
  await page.close();
}

/** A node that asks for a token. */
async function withToken(url, token) {
  const page = await tab(url);
  await page.locator("#token").waitFor();
  assert.deepEqual(await violations(page), []);
  assert.ok(await page.locator("#shown").isHidden());
  const enter = async (value) => {
    await page.fill("#token-value", value);
    await page.keyboard.press("Enter");
  };
  await enter("another one, which is not right");
  await page.locator("#token-error").waitFor();
  await says(page, "token-error", "does not take");
  // A refusal that comes after the next try was taken takes nothing back.
  let release;
  const held = new Promise((resolve) => { release = resolve; });
  await page.route("**/api/v1/status", async (route) => {
    if (route.request().headers().authorization === "Bearer slow") await held;
    await route.continue();
  });
  await enter("slow");
  await enter(token);
  await page.locator("#shown").waitFor();
  const late = page.waitForResponse((answer) => answer.status() === 401);
  release();
  await late;
  await says(page, "live-word", "Live");
  await says(page, "stream-word", "Live");
  assert.ok(page.wrong.every((line) => /401/.test(line)), String(page.wrong));
  const kept = await page.evaluate(() => [Object.values(sessionStorage).length, JSON.stringify(localStorage), document.cookie]);
  assert.deepEqual(kept, [1, "{}", ""]);
  assert.ok(!page.url().includes(token));
  await page.click("#forget");
  await page.locator("#token").waitFor();
  step("a token");
  await page.close();
}

const hex = (number) => number.toString(16).padStart(64, "0");

/** A peer whose figures change each second. */
const invented = (number, second) => ({
  peer: hex(number + 1), transport: "grpc-stream", address: `10.0.${number >> 8}.${number & 255}:5001`,
  direction: number % 2 ? "inbound" : "outbound", state: "up", rtt_us: 1000 + ((number * 37 + second * 911) % 40_000),
  jitter_us: 100, quality: 60 + ((number + second) % 40), rating: "good", connected_s: 100 + second, queued_bytes: (number * second) % 70_000,
  under_way_bytes: 0, bytes_per_second: 0, incoming_bytes_per_second: 0, behind: (number + second) % 9, in_debt: false, depth: 0,
  relay: false, breaker: null, clock_offset_ms: (number + second) % 30, served_percent: null, first_percent: null,
});

/** A thousand peers: the page's own work in a second. */
async function thousand(url) {
  let second = 0;
  const prepare = (page) => page.route("**/api/v1/peers", (route) => {
    second += 1;
    const peers = Array.from({ length: 1000 }, (_, number) => invented(number, second));
    return route.fulfill({ json: { peers, lost: [] } });
  });
  const page = await tab(url, { prepare });
  await page.waitForFunction(() => document.querySelectorAll("#peer-rows tr").length === 1000);
  const session = await page.context().newCDPSession(page);
  // Time of the thread, and not what others on the machine take meanwhile.
  await session.send("Performance.enable", { timeDomain: "threadTicks" });
  const spent = async () => {
    const { metrics } = await session.send("Performance.getMetrics");
    const of = (name) => metrics.find((metric) => metric.name === name).value * 1000;
    return of("ScriptDuration") + of("LayoutDuration") + of("RecalcStyleDuration");
  };
  const changed = (from) => page.waitForFunction((from) => document.querySelector("#peer-rows .c-rtt").textContent !== from, from);
  const costs = [];
  for (let turn = 0; turn < 8; turn += 1) {
    const before = await spent();
    await changed(await page.locator("#peer-rows .c-rtt").first().textContent());
    costs.push(await spent() - before);
  }
  costs.sort((a, b) => a - b);
  const median = costs[4];
  assert.ok(median < 50, `a second costs ${costs.map((cost) => cost.toFixed(1))} ms`);
  step(`1000 peers: ${median.toFixed(1)} ms a second`);

  await page.fill("#peer-filter", "10.0.3.");
  await page.waitForFunction(() => [...document.querySelectorAll("#peer-rows tr")].filter((row) => !row.hidden).length === 232);
  await page.fill("#peer-filter", "");
  await page.locator("#peer-head button", { hasText: "RTT" }).click();
  const least = await page.evaluate(() => [...document.querySelectorAll("#peer-rows .c-rtt")].map((cell) => cell.textContent)[0]);
  assert.match(least, /^1(\.\d)? ms$/);
  assert.equal(await page.locator("#peer-head .c-rtt").getAttribute("aria-sort"), "ascending");
  assert.deepEqual(page.wrong, []);
  step("sorted and filtered");
  await page.close();
}

const EVIL = `<img src=x onerror="alert(1)"></script><script>alert(2)</script>\u202eover\u0007${"x".repeat(2000)}`;

/** What strangers choose: topics, reasons, addresses. It stays text, and the page in shape. */
async function hostile(url, id) {
  const evil = (peer) => ({ ...peer, address: EVIL, transport: EVIL, reason: EVIL });
  const answers = {
    "peers": { peers: [invented(1, 1), evil(invented(2, 1))], lost: [{ ...evil(invented(3, 1)), lost_at_ms: Date.now(), connected_s: undefined }] },
    [`transactions/${id}/explain`]: {
      id, state: "refused", topic: EVIL, size: 1, own: false, origin: EVIL, summary: EVIL, elsewhere: { [EVIL]: { state: EVIL, summary: EVIL, steps: [] } }, not_told: [EVIL],
      steps: [{ at_ms: Date.now(), what: EVIL, peer: EVIL, transport: EVIL, hop: 1, reason: EVIL }, { at_ms: Date.now(), what: "__proto__", peer: null, transport: null, hop: null, reason: "constructor" }],
    },
    "events/recent?limit=500": { events: ["dial_failed", "peer_down", EVIL, "__proto__"].map((event) => ({ at_ms: Date.now(), event, address: EVIL, peer: EVIL, transport: EVIL, reason: EVIL })) },
    "reachability": {
      state: EVIL, endpoint: EVIL, listening: [EVIL], advertised: [EVIL], failed: { [EVIL]: EVIL, constructor: EVIL },
      candidates: [{ endpoint: EVIL, source: EVIL, votes: EVIL, state: EVIL, why: EVIL }],
      nat: [{ family: EVIL, name: EVIL, mapping: EVIL, filtering: EVIL, confidence: EVIL }],
    },
    "dead-letters?limit=50": { dead_letters: [{ seq: 1, id: EVIL, topic: EVIL, size: 1, created_ms: 1, expires_ms: 2, reason: EVIL, since_ms: 3 }], next: null },
  };
  const prepare = async (page) => {
    for (const [path, json] of Object.entries(answers)) {
      await page.route(`${url}api/v1/${path}`, (route) => route.fulfill({ json }));
    }
  };
  for (const width of [1600, 360]) {
    const page = await tab(url, { prepare, width });
    await says(page, "stream-word", "Live");
    await page.locator("#dead-rows tr").waitFor();
    await page.locator("#candidates tr").waitFor();
    await page.fill("#why-id", id);
    await page.click("#why-form button");
    await page.locator(".line li").first().waitFor();
    await says(page, "event-rows", "onerror");
    assert.equal(await page.evaluate(() => document.querySelectorAll("img, body script:not([type=module])").length), 0);
    await looksRight(page, `strings of strangers, ${width} px`);
    assert.deepEqual(page.wrong, []);
    await page.close();
  }
}

/** A node that goes away and comes back. */
async function cutOff(url) {
  const page = await tab(url);
  await says(page, "live-word", "Live");
  await page.route("**/api/v1/**", (route) => route.abort());
  await says(page, "sentence", "No answer from the node");
  await says(page, "live-word", "Disconnected");
  await looksRight(page, "without an answer");
  await page.unroute("**/api/v1/**");
  await says(page, "live-word", "Live");
  step("it comes back by itself");

  await says(page, "stream-word", "Live");
  await turn(page, true);
  await says(page, "stream-word", "Disconnected");
  await turn(page, false);
  await says(page, "stream-word", "Live");
  step("a tab that nobody sees keeps no stream");
  await page.close();
}

try {
  const [first, ...rest] = process.argv.slice(2);
  if (first === "--token") await withToken(...rest);
  else {
    const [id, disconnected, banned] = rest;
    await thousand(first);
    await hostile(first, id);
    await cutOff(first);
    await operate(first, id, disconnected, banned);
  }
} finally {
  await browser.close();
}
