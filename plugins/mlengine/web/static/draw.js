// Elements and plots. All content is inserted into text nodes and attributes, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children. Strings become text nodes; attributes named `on…` become event listeners. */
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
  node.append(...children.flat(Infinity).filter((child) => child || child === 0));
  return node;
}

const COLORS = ["a", "b", "c", "d", "e"];
const W = 520, H = 240, LEFT = 54, RIGHT = 14, TOP = 28, BOTTOM = 34;

/** A range around the values whose four parts begin at round numbers. Values that differ only by rounding errors are drawn as equal. */
function niceRange(values) {
  let low = Math.min(...values), high = Math.max(...values);
  if (!(high - low > 1e-6 * Math.max(Math.abs(low), Math.abs(high), 1e-200))) { const margin = 0.01 * Math.abs(high) || 0.5; low -= margin; high += margin; }
  const size = 10 ** Math.floor(Math.log10((high - low) / 4));
  for (const factor of [1, 2, 2.5, 5, 10, 20]) {
    const step = size * factor, start = Math.floor(low / step) * step;
    if (start + 4 * step >= high) return [start, start + 4 * step];
  }
  return [low, high];
}

const scale = (value, [low, high], from, to) => from + ((value - low) / (high - low)) * (to - from);
const short = (value, digits = 4) => String(Number(value.toPrecision(digits)));

/** The label of a value on an axis, with as many digits as distinguish it from the other labels. */
function tick(value, [low, high]) {
  const digits = Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high)))) - Math.floor(Math.log10((high - low) / 4)) + 2;
  return short(Math.abs(value) < (high - low) * 1e-9 ? 0 : value, Math.min(Math.max(digits, 4), 12));
}

/** A value of a metric: four significant digits, and no exponent for large numbers. */
export function number(value) {
  if (typeof value !== "number") return "";
  return Math.abs(value) >= 1e4 && Math.abs(value) < 1e15 ? Math.round(value).toLocaleString("en-US") : short(value);
}

function frame(title, ys) {
  const parts = [svg("text", { x: LEFT, y: 15 }, title)];
  for (let i = 0; i < 5; i++) {
    const value = ys[0] + ((ys[1] - ys[0]) * i) / 4, y = scale(value, ys, H - BOTTOM, TOP);
    parts.push(svg("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: y, y2: y }));
    parts.push(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, tick(value, ys)));
  }
  return parts;
}

/** A plot of values over steps. `series` is {name: [[step, value], …]} with at most four names. */
export function lines(title, series) {
  const named = Object.entries(series).filter(([, points]) => points.length);
  const all = named.flatMap(([, points]) => points);
  if (!all.length) return null;
  const xs = niceRange([0, ...all.map((point) => point[0])]), ys = niceRange(all.map((point) => point[1]));
  const body = frame(title, ys);
  for (let i = 0; i < 5; i++) {
    const value = xs[0] + ((xs[1] - xs[0]) * i) / 4;
    body.push(svg("text", { x: scale(value, xs, LEFT, W - RIGHT), y: H - 12, "text-anchor": i === 4 ? "end" : "middle" }, tick(value, xs)));
  }
  const { parts, height } = key(named.length > 1 ? named.map(([name]) => name.replaceAll("_", " ")) : [], title);
  body.push(...parts);
  named.forEach(([, points], index) => {
    const color = COLORS[index % COLORS.length];
    const path = points.map(([x, y]) => `${scale(x, xs, LEFT, W - RIGHT).toFixed(1)},${scale(y, ys, H - BOTTOM, TOP).toFixed(1)}`);
    body.push(svg("polyline", { class: color, points: path.join(" ") }));
    if (points.length === 1) {
      const [x, y] = path[0].split(",");
      body.push(svg("circle", { class: `key-${color}`, cx: x, cy: y, r: 3 }));
    }
  });
  return plot(body, height, { role: "img", "aria-label": `${title} over steps` });
}

/** The key of a plot: next to its title or, if it is too long, in rows above the title. `height` is that of the rows. */
function key(names, title) {
  const width = (name) => 6.5 * name.length + 26, total = names.reduce((sum, name) => sum + width(name), 0);
  const fits = total <= W - RIGHT - LEFT - 7 * title.length;
  const rows = [[]];
  let used = 0;
  names.forEach((name, index) => {
    if (!fits && used && used + width(name) > W - LEFT) { rows.push([]); used = 0; }
    rows.at(-1).push([index, used]);
    used += width(name);
  });
  const height = fits ? 0 : 18 * rows.length, from = fits ? W - RIGHT - total : LEFT;
  const parts = rows.flatMap((row, number) => row.map(([index, place]) => {
    const x = from + place, y = 15 - height + 18 * number;
    return [svg("rect", { class: `key-${COLORS[index % COLORS.length]}`, x, y: y - 6, width: 12, height: 4 }), svg("text", { class: "key", x: x + 16, y }, names[index])];
  }));
  return { parts: parts.flat(), height };
}

const plot = (body, height, attributes) => svg("svg", { viewBox: `0 ${-height} ${W} ${H + height}`, ...attributes }, ...body);

/** The horizontal positions of dataset versions, and their labels. */
function versionAxis(names) {
  const at = (name) => LEFT + 20 + ((W - LEFT - RIGHT - 40) * (names.indexOf(name) + 0.5)) / names.length;
  const stride = Math.ceil(names.length / 5);
  const labels = names.filter((_, index) => index % stride === 0).map((name) => svg("text", { x: at(name), y: H - 12, "text-anchor": "middle" }, name.slice(0, 12)));
  return [at, labels];
}

export const NO_DATASET = "no dataset";

/** A plot of a metric by dataset version: one dot per validated job, with a line through the champions. `link` returns the address of a job. */
export function versions(metric, points, names, link) {
  if (!points.length) return null;
  const ys = niceRange(points.map((point) => point.metric_value));
  const [at, labels] = versionAxis(names);
  const x = (point) => at(point.dataset || NO_DATASET), y = (point) => scale(point.metric_value, ys, H - BOTTOM, TOP);
  const body = [...frame(`${metric} on the held-out rows`, ys), ...labels];
  const champions = points.filter((point) => point.champion);
  body.push(svg("polyline", { class: "champions", points: champions.map((point) => `${x(point)},${y(point)}`).join(" ") }));
  // Champions are drawn last, on top of other dots at the same place.
  for (const point of [...points].sort((a, b) => Boolean(a.champion) - Boolean(b.champion))) {
    const label = `${point.job_id}: ${number(point.metric_value)}, ${point.champion ? "has been champion" : point.verdict}`;
    const dot = svg("circle", { class: `dot ${point.champion ? "champion" : point.verdict}`, cx: x(point), cy: y(point), r: 5 }, svg("title", {}, label));
    body.push(svg("a", { href: link(point.job_id), "aria-label": label }, dot));
  }
  return plot(body, 0, { role: "group", "aria-label": `${metric} by dataset version` });
}

/** A plot of the drift of columns by dataset version: `columns` is [{name, values}, …], with one value for each of `found`. */
export function driftPlot(found, columns, names) {
  const [at, labels] = versionAxis(names);
  const values = columns.flatMap((column) => column.values).filter((value) => value !== null);
  const ys = niceRange([0, 0.25, ...values]), y = (value) => scale(value, ys, H - BOTTOM, TOP);
  const { parts, height } = key(columns.map((column) => (column.name.length > 60 ? `${column.name.slice(0, 59)}…` : column.name)), "drift (PSI)");
  const body = [...frame("drift (PSI)", ys), ...labels, ...parts];
  for (const limit of [0.1, 0.25]) body.push(svg("line", { class: "limit", x1: LEFT, x2: W - RIGHT, y1: y(limit), y2: y(limit) }));
  columns.forEach((column, index) => {
    const color = COLORS[index % COLORS.length];
    const known = found.map((name, place) => [name, column.values[place]]).filter(([name, value]) => value !== null && names.includes(name));
    body.push(svg("polyline", { class: color, points: known.map(([name, value]) => `${at(name)},${y(value)}`).join(" ") }));
    for (const [name, value] of known) body.push(svg("circle", { class: `key-${color}`, cx: at(name), cy: y(value), r: 3 }, svg("title", {}, `${column.name}, ${name}: ${number(value)}`)));
  });
  return plot(body, height, { role: "img", "aria-label": "Drift of columns by dataset version" });
}

/** A duration in seconds, for display. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds)), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Seconds since the epoch, or an ISO date, as local time. */
export function moment(when) {
  const date = typeof when === "number" ? new Date(when * 1000) : new Date(when || NaN);
  if (Number.isNaN(date.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}
