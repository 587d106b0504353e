// Lines: the small ones beside the five numbers, and the charts over a chosen span.

const SPANS = [["5m", "5 min"], ["15m", "15 min"], ["1h", "1 h"], ["6h", "6 h"], ["24h", "24 h"]];
/** Milliseconds between two looks, by span. */
const PACES = map({ "5m": 2000, "15m": 3000, "1h": 15_000, "6h": 60_000, "24h": 60_000 });

const CHARTS = [
  { series: "delivered_per_s", title: "Delivered per second", say: rate },
  { series: "published_per_s", title: "Published per second", say: rate },
  { series: "latency_p99_us", title: "Delivery latency, p99", say: micros, flat: 1000 },
  { series: "dropped_per_s", title: "Dropped per second", say: rate },
  { series: "outbox", title: "Transactions in the outbox", say: count, whole: true },
  { series: "outbox_oldest_ms", title: "Oldest in the outbox", say: span, flat: 1000 },
  { series: "links", title: "Links", say: count, whole: true },
  { series: "rtt_ms", title: "Round trip, median of links", say: micros, scale: 1000, flat: 1000 },
];

const values = (list) => list.filter(known);
const latest = (list) => values(list).at(-1) ?? null;

/** The least, the mean and the most of what is known. */
function summary(list) {
  const there = values(list);
  if (there.length === 0) return null;
  const sum = there.reduce((a, b) => a + b, 0);
  return { least: Math.min(...there), mean: sum / there.length, most: Math.max(...there) };
}

/** Points of a line: for each column of pixels the least and the most, so that no peak is lost. */
function points(list, width) {
  const last = Math.max(1, list.length - 1);
  if (list.length <= width * 1.5) return list.map((value, i) => [(i / last) * width, value]);
  const out = [];
  const size = list.length / width;
  for (let column = 0; column < width; column += 1) {
    const part = list.slice(Math.floor(column * size), Math.floor((column + 1) * size));
    const there = values(part);
    if (there.length === 0) out.push([column, null]);
    else {
      const [low, high] = [Math.min(...there), Math.max(...there)];
      const rises = there[0] <= there.at(-1);
      out.push([column, rises ? low : high]);
      if (low !== high) out.push([column + 0.5, rises ? high : low]);
    }
  }
  return out;
}

/** A path through the points. What was not taken is a gap, and what stands alone a dot. */
function path(list, width, y) {
  let out = "";
  let length = 0;
  for (const [x, value] of [...points(list, width), [0, null]]) {
    if (known(value)) {
      out += `${length === 0 ? "M" : "L"}${x.toFixed(1)} ${y(value).toFixed(1)}`;
      length += 1;
      continue;
    }
    if (length === 1) out += "h0";
    length = 0;
  }
  return out;
}

/** A small line without axes. */
class Spark {
  constructor() {
    this.line = svg("path", { class: "stroke" });
    this.area = svg("path", { class: "area" });
    this.svg = svg("svg", { class: "spark", viewBox: "0 0 120 32", preserveAspectRatio: "none", role: "img" }, this.area, this.line);
    this.svg.setAttribute("aria-label", "Not measured yet");
  }

  write(list, say) {
    const about = summary(list);
    if (about === null) return;
    const most = about.most || 1;
    const line = path(list, 120, (value) => 30 - (value / most) * 27);
    this.line.setAttribute("d", line);
    const first = list.findIndex(known);
    const from = (first / Math.max(1, list.length - 1)) * 120;
    const gaps = line.indexOf("M", 1) > 0;
    this.area.setAttribute("d", gaps || line === "" ? "" : `${line}V32H${from.toFixed(1)}Z`);
    this.svg.setAttribute("aria-label", `Last 5 minutes: least ${say(about.least)}, most ${say(about.most)}`);
  }
}

/** Round marks of an axis from 0 to at least `most`. */
function ticks(most, whole) {
  const rough = most / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const round = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((it) => it >= rough);
  const step = whole ? Math.max(1, Math.ceil(round)) : round;
  const out = [];
  for (let i = 0; i === 0 || out.at(-1) < most; i += 1) out.push(Number((i * step).toPrecision(6)));
  return out.length > 1 ? out : [0, step];
}

const HEIGHT = 132;
const FOOT = 18;
const HEAD = 8;

/** One chart: heading, a figure, the line, and the same as a table. */
class Chart {
  constructor(about) {
    this.about = about;
    this.list = null;
    this.value = el("b", {}, "–");
    this.when = el("span", { class: "quiet" });
    this.drawing = svg("svg", { class: "chart", role: "img", "aria-label": `${about.title}: not measured yet` });
    this.table = el("div", { class: "scroll low", role: "group", "aria-label": `${about.title}, as a table`, tabindex: "0", hidden: true });
    const head = el("figcaption", {}, el("h3", {}, about.title), el("span", { class: "figure" }, this.when, this.value));
    this.figure = el("figure", {}, head, this.drawing, this.table);
    this.drawing.addEventListener("pointermove", (event) => this.point(event));
    this.drawing.addEventListener("pointerleave", () => charts.aim(null));
  }

  take(history) {
    const { series, scale = 1 } = this.about;
    const list = Array.isArray(history.series?.[series]) ? history.series[series] : [];
    this.list = list.map((value) => (known(value) ? value * scale : null));
    this.from = history.from_ms;
    this.step = history.step_ms;
  }

  draw(asTable) {
    if (this.list === null) return;
    this.drawing.toggleAttribute("hidden", asTable);
    show(this.table, asTable);
    const { say, title } = this.about;
    const about = summary(this.list);
    const told = about === null ? "not measured yet" :
      `now ${say(latest(this.list))}, least ${say(about.least)}, mean ${say(about.mean)}, most ${say(about.most)}`;
    this.drawing.setAttribute("aria-label", `${title}: ${told}`);
    if (asTable) this.tabulate();
    else this.trace(about);
    this.say(charts.share);
  }

  trace(about) {
    const width = this.figure.clientWidth;
    if (width === 0) return;
    const { say, whole, flat = 1 } = this.about;
    const marks = ticks(about?.most || flat, whole);
    const label = say === rate || say === count ? (mark) => (mark < 1e4 ? String(mark) : compact.format(mark)) : say;
    const labels = marks.map(label);
    const left = 10 + 6.6 * Math.max(...labels.map((text) => text.length));
    const plot = HEIGHT - FOOT;
    const y = (value) => plot - (value / marks.at(-1)) * (plot - HEAD);
    const parts = marks.map((mark, i) => svg("g", {},
      svg("line", { class: "grid", x1: left, x2: width, y1: y(mark), y2: y(mark) }),
      svg("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, labels[i])));
    const wide = width - left - 2;
    const times = Math.max(2, Math.min(5, Math.floor(wide / 90)));
    const lasts = Math.max(0, this.list.length - 1) * this.step;
    for (let i = 0; i < times; i += 1) {
      const share = i / (times - 1);
      const anchor = i === 0 ? "start" : i === times - 1 ? "end" : "middle";
      const text = clock(this.from + share * lasts).slice(-8, lasts < 600_000 ? undefined : -3);
      parts.push(svg("text", { x: left + share * wide, y: HEIGHT - 3, "text-anchor": anchor }, text));
    }
    const line = svg("path", { class: "stroke", transform: `translate(${left} 0)`, d: path(this.list, Math.max(1, Math.floor(wide)), y) });
    if (about === null) parts.push(svg("text", { x: left + wide / 2, y: plot / 2 + 4, "text-anchor": "middle" }, "not measured yet"));
    this.aimed = svg("line", { class: "aim", y1: HEAD, y2: plot, visibility: "hidden" });
    this.left = left;
    this.wide = wide;
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.drawing.replaceChildren(...parts, line, this.aimed);
  }

  /** At most 30 rows, the newest first; each is the mean of its part. */
  tabulate() {
    const { say, title } = this.about;
    const size = Math.max(1, Math.ceil(this.list.length / 30));
    const rows = [];
    for (let from = 0; from < this.list.length; from += size) {
      const mean = summary(this.list.slice(from, from + size))?.mean;
      rows.unshift(el("tr", {}, el("th", { scope: "row" }, clock(this.from + from * this.step)), el("td", { class: "n" }, say(mean))));
    }
    const head = el("tr", {}, el("th", { scope: "col" }, "From"), el("th", { scope: "col", class: "n" }, "Mean"));
    this.table.replaceChildren(el("table", {}, el("caption", { class: "away" }, title), el("thead", {}, head), el("tbody", {}, ...rows)));
  }

  point(event) {
    if (this.aimed === undefined) return;
    const share = (event.clientX - this.drawing.getBoundingClientRect().left - this.left) / this.wide;
    charts.aim(share < 0 || share > 1 ? null : share);
  }

  /** Shows the figure at a share of the span, or the latest. */
  say(share) {
    if (this.list === null) return;
    const i = share === null ? null : Math.round(share * (this.list.length - 1));
    put(this.value, this.about.say(i === null ? latest(this.list) : this.list[i]));
    put(this.when, i === null ? "" : `${clock(this.from + i * this.step)} `);
    if (this.aimed === undefined) return;
    this.aimed.setAttribute("visibility", share === null ? "hidden" : "visible");
    const x = this.left + (share ?? 0) * this.wide;
    this.aimed.setAttribute("x1", x);
    this.aimed.setAttribute("x2", x);
  }
}

const charts = {
  span: "15m",
  all: [],
  share: null,
  asked: 0,
  due: 0,
  /** Shows the same moment on every chart. */
  aim(share) {
    charts.share = share;
    for (const chart of charts.all) chart.say(share);
  },
};

/** Asks for the span that is chosen, where its time has come. */
async function lookAtCharts(now) {
  if (now < charts.due) return;
  charts.due = now + PACES.get(charts.span);
  const turn = (charts.asked += 1);
  try {
    const history = await api(`history?span=${charts.span}`);
    if (turn !== charts.asked) return;
    requestAnimationFrame(() => {
      for (const chart of charts.all) {
        chart.take(history);
        chart.draw($("as-tables").checked);
      }
    });
  } catch {
    // The state sentence tells that the node does not answer.
    charts.due = 0;
  }
}

function startCharts() {
  charts.all = CHARTS.map((about) => new Chart(about));
  $("chart-grid").append(...charts.all.map((chart) => chart.figure));
  choices($("spans"), "span", SPANS, charts.span, (chosen) => {
    charts.span = chosen;
    charts.due = 0;
    lookAtCharts(performance.now());
  });
  const again = () => charts.all.forEach((chart) => chart.draw($("as-tables").checked));
  $("as-tables").addEventListener("change", again);
  new ResizeObserver(again).observe($("chart-grid"));
}
