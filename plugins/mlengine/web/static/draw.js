// Elements and plots. Everything becomes text or an attribute: nothing from a job is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text. `on…` functions become listeners. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const W = 520, H = 240, LEFT = 54, RIGHT = 14, TOP = 28, BOTTOM = 34;

/** A span around the values whose quarters are round numbers. */
function span(values) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!(high > low)) { const room = 0.01 * Math.abs(high) || 0.5; low -= room; high += room; }
  const size = 10 ** Math.floor(Math.log10((high - low) / 4));
  for (const factor of [1, 2, 2.5, 5, 10, 20]) {
    const step = size * factor, start = Math.floor(low / step) * step;
    if (start + 4 * step >= high) return [start, start + 4 * step];
  }
  return [low, high];
}

const at = (value, [low, high], from, to) => from + ((value - low) / (high - low)) * (to - from);
const short = (value) => String(Number(value.toPrecision(4)));

function frame(title, ys, text) {
  const parts = [svg("text", { x: LEFT, y: 15 }, title)];
  for (let i = 0; i < 5; i++) {
    const value = ys[0] + ((ys[1] - ys[0]) * i) / 4, y = at(value, ys, H - BOTTOM, TOP);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y, y2: y }));
    parts.push(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, text(value)));
  }
  return parts;
}

/** Values over steps: `series` is {name: [[step, value], …]}, two at most. */
export function lines(title, series) {
  const named = Object.entries(series).filter(([, points]) => points.length);
  const all = named.flatMap(([, points]) => points);
  if (!all.length) return null;
  const xs = span([0, ...all.map((point) => point[0])]), ys = span(all.map((point) => point[1]));
  const body = frame(title, ys, short);
  for (let i = 0; i < 5; i++) {
    const value = xs[0] + ((xs[1] - xs[0]) * i) / 4;
    body.push(svg("text", { x: at(value, xs, LEFT, W - RIGHT), y: H - 12, "text-anchor": i === 4 ? "end" : "middle" }, short(value)));
  }
  named.forEach(([name, points], index) => {
    const tone = index ? "b" : "a";
    const path = points.map(([x, y]) => `${at(x, xs, LEFT, W - RIGHT).toFixed(1)},${at(y, ys, H - BOTTOM, TOP).toFixed(1)}`);
    body.push(svg("polyline", { class: tone, points: path.join(" ") }));
    if (points.length === 1) {
      const [x, y] = path[0].split(",");
      body.push(svg("circle", { class: `key-${tone}`, cx: x, cy: y, r: 3 }));
    }
    const left = LEFT + 130 + index * 120;
    body.push(svg("rect", { class: `key-${tone}`, x: left, y: 9, width: 12, height: 4 }), svg("text", { x: left + 17, y: 15 }, name.replaceAll("_", " ")));
  });
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} over steps` }, ...body);
}

/** Accuracy over dataset versions: a dot a judged job, the champions joined by a line. `link` makes a dot's address. */
export function versions(points, link) {
  const names = [...new Set(points.map((point) => point.dataset || "none"))];
  if (!points.length) return null;
  const ys = span(points.map((point) => point.accuracy));
  const x = (point) => LEFT + 20 + ((W - LEFT - RIGHT - 40) * (names.indexOf(point.dataset || "none") + 0.5)) / names.length;
  const y = (point) => at(point.accuracy, ys, H - BOTTOM, TOP);
  const body = frame("accuracy on the held-out set, by dataset version", ys, (value) => value.toFixed(4));
  const every = Math.ceil(names.length / 5);
  names.forEach((name, index) => {
    if (index % every) return;
    body.push(svg("text", { x: x({ dataset: name }), y: H - 12, "text-anchor": "middle" }, name.slice(0, 12)));
  });
  const held = points.filter((point) => point.champion);
  body.push(svg("polyline", { class: "champions", points: held.map((point) => `${x(point)},${y(point)}`).join(" ") }));
  // Champions last: they lie above what was judged alike.
  for (const point of [...points].sort((a, b) => Boolean(a.champion) - Boolean(b.champion))) {
    const said = `${point.job_id}: ${point.accuracy.toFixed(4)}, ${point.champion ? "was champion" : point.verdict}`;
    const dot = svg("circle", { class: `dot ${point.champion ? "champion" : point.verdict}`, cx: x(point), cy: y(point), r: 5 }, svg("title", {}, said));
    body.push(svg("a", { href: link(point.job_id), "aria-label": said }, dot));
  }
  return svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", "aria-label": "accuracy over dataset versions" }, ...body);
}

/** Seconds as a person says them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds)), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Seconds since the epoch, or ISO text, in the reader's own time zone. */
export function moment(when) {
  const date = typeof when === "number" ? new Date(when * 1000) : new Date(when || NaN);
  if (Number.isNaN(date.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
