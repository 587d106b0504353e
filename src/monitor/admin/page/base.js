// What all parts of the page share: elements, words for figures, and the calls to the node.
//
// Topics, reasons and addresses come from strangers. They become text and nothing else: no part of the page
// writes HTML, and the policy that it is served with refuses to.

const $ = (id) => document.getElementById(id);

/** An element with attributes and children. Attributes are never named by the network. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The same in an SVG. */
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Sets a text where it is another one. */
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Shows or hides an element. */
function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

const ODD = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/gu;

/** What somebody else wrote, at most so long, and with no sign that turns or hides what stands beside it. */
function plain(value, longest = 300) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  const cut = text.length > longest ? `${text.slice(0, longest)}…` : text;
  return cut.replace(ODD, "\ufffd");
}

/** The beginning of an id, enough to tell peers apart. */
const short = (id) => (typeof id === "string" && id.length > 16 ? `${plain(id.slice(0, 10))}…` : plain(id, 40));

/** An id as code, whole in its title. */
const code = (id) => el("code", { title: plain(id) }, short(id));

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

const known = (value) => typeof value === "number" && Number.isFinite(value);

function count(value) {
  if (!known(value)) return "–";
  return Math.abs(value) < 1e6 ? grouped.format(value) : compact.format(value);
}

function rate(value) {
  if (!known(value)) return "–";
  if (value >= 1e5) return compact.format(value);
  if (value >= 100 || value === 0) return grouped.format(value);
  return value < 0.05 ? "<0.1" : value.toFixed(1);
}

function bytes(value) {
  if (!known(value)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${unit > 0 && value < 10 ? value.toFixed(1) : grouped.format(value)} ${units[unit]}`;
}

/** A time of microseconds, as long as round trips are. */
function micros(value) {
  if (!known(value)) return "–";
  if (value < 1000) return `${grouped.format(value)} µs`;
  if (value < 10_000) return `${Number((value / 1000).toFixed(1))} ms`;
  if (value < 1_000_000) return `${grouped.format(value / 1000)} ms`;
  return `${Number((value / 1_000_000).toFixed(value < 10_000_000 ? 1 : 0))} s`;
}

/** A time of milliseconds, of any length. */
function span(value) {
  if (!known(value)) return "–";
  if (value < 1000) return `${grouped.format(Math.max(value, 0))} ms`;
  const seconds = Math.floor(value / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor((seconds % 3600) / 60);
  if (hours < 48) return minutes === 0 ? `${hours} h` : `${hours} h ${minutes} min`;
  return `${Math.floor(hours / 24)} d`;
}

function offset(value) {
  if (!known(value)) return "–";
  const sign = value < 0 ? "−" : "+";
  return value === 0 ? "0 ms" : `${sign}${span(Math.abs(value))}`;
}

const two = (number) => String(number).padStart(2, "0");

/** A time of day, with the date where that is another one. */
function clock(ms, withMillis = false) {
  if (!known(ms)) return "–";
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return "–";
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const whole = withMillis ? `${time}.${String(at.getMilliseconds()).padStart(3, "0")}` : time;
  const today = at.toDateString() === new Date().toDateString();
  return today ? whole : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${whole}`;
}

const map = (object) => new Map(Object.entries(object));

/** Names of transports as the configuration has them, and what people call them. */
const RUNGS = map({
  "grpc-stream": "gRPC stream", grpc_stream: "gRPC stream", websocket: "WebSocket",
  "grpc-unary": "gRPC unary", grpc_unary: "gRPC unary", rest: "REST", memory: "memory",
});
const rung = (kind) => RUNGS.get(kind) ?? plain(kind, 40);

const REASONS = map({
  shutdown: "it shut down", requested: "closed by hand", replaced: "replaced by a newer connection",
  wrong_network: "wrong network", wrong_version: "no common wire version", not_allowed: "not on the allow-list",
  not_member: "not a member: does not know the secret", banned: "banned", self_dial: "own address",
  identity_in_use: "another process has this identity", moved: "moved to another connection",
  too_many_links: "no room for another link", handshake_timeout: "no hello in time",
  violation: "broke the protocol", unresponsive: "no answer to pings", slow_peer: "did not take what was sent",
  transport_closed: "the connection broke", unreachable: "nothing answers there, or the name is unknown",
  timeout: "no answer in time", identity: "TLS failed, or another identity answers",
  protocol: "speaks something else", malformed: "sent what does not parse", refused: "refused",
  closed: "closed", unsupported: "not possible by this rung", wrong_hash: "payload does not match its hash",
  wrong_signature: "wrong signature", too_large: "too large", skewed: "dated too far from now",
  expired: "expired", over_share: "its origin has its share of the store",
  over_rate: "its origin published more than its rate", unwanted: "nobody here wants its topic",
  rejected: "rejected by the validator", ignored: "ignored by the validator",
});

/** A reason in words; what is not known is shown as it came. */
const because = (reason) => REASONS.get(reason) ?? plain(reason, 160).replaceAll("_", " ");

/** What the node answers instead of what was asked for. */
class Refused extends Error {
  constructor(status, detail, used) {
    super(detail);
    this.status = status;
    this.token = used;
  }
}

const TOKEN = "sorcha-admin-token";

/** The token of this tab; `null` where none was asked for. */
function token() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

function keepToken(value) {
  try {
    if (value === null) sessionStorage.removeItem(TOKEN);
    else sessionStorage.setItem(TOKEN, value);
  } catch {
    // A browser that keeps nothing asks again at the next call.
  }
}

/** Opens a path of the node. Throws `Refused` for an answer that is none, and else what `fetch` throws. */
async function open(path, { body, post = false, accept = "application/json", signal, used = token() } = {}) {
  const headers = { Accept: accept };
  if (used !== null) headers.Authorization = `Bearer ${used}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method: post ? "POST" : "GET",
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal,
  });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, plain(problem.detail ?? problem.title ?? `status ${answer.status}`, 500), used);
}

/** What a path of `/api/v1` answers. */
async function api(path, settings = {}) {
  const signal = AbortSignal.timeout(settings.patience ?? 10_000);
  const answer = await open(`/api/v1/${path}`, { signal, ...settings });
  return answer.json();
}

/** What went wrong, for people. */
function told(error) {
  if (error instanceof Refused) return error.message;
  return error.name === "TimeoutError" ? "No answer from the node in time." : "No answer from the node.";
}

/** Radio buttons in a row; tells which one was chosen. */
function choices(fieldset, name, values, chosen, choose) {
  const labels = new Map();
  for (const [value, label] of values) {
    const input = el("input", { type: "radio", name, value, change: () => choose(value) });
    input.checked = value === chosen;
    const text = el("span", {}, label);
    labels.set(value, text);
    fieldset.append(el("label", {}, input, text));
  }
  return labels;
}
