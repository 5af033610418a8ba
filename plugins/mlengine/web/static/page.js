// The page has four views: #/jobs, #/job/MODEL/ID, #/models, #/model/NAME. Their data comes from api/…, which checks permissions with Airflow.

import { el, lines, versions, driftPlot, NO_DATASET, number, duration, moment } from "./draw.js";

const main = document.getElementById("main");
const asOf = document.getElementById("as-of"), refreshError = document.getElementById("refresh-error");
const root = location.pathname.replace(/\/mlengine\/page$/, "");
const filters = { text: "", state: "", model: "", dag_id: "", run_id: "", offset: 0 };
const PAGE = 50, ACTIVE = new Set(["QUEUED", "PREPARING", "RUNNING", "CANCELLING", "PAUSED", "UNKNOWN"]);
let currentView = 0; // number of the open view; a response to an earlier view is dropped
let target = ""; // id of the section that a link leads to
let timer = null;

// --- Airflow around the frame: its theme, and links to its pages ------------------------------------------------

function hostWindow() {
  try { return window.parent !== window && window.parent.document ? window.parent : null; } catch { return null; }
}

function theme() {
  const outer = hostWindow()?.document.documentElement;
  const current = outer && ["dark", "light"].find((name) => outer.classList.contains(name) || outer.dataset.theme === name);
  let stored = null;
  try { stored = localStorage.getItem("theme"); } catch { /* storage is not available in this frame */ }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return current || (["dark", "light"].includes(stored) ? stored : system);
}

function applyTheme() {
  const page = document.documentElement, outer = hostWindow()?.document.body;
  page.dataset.theme = theme();
  const background = outer ? getComputedStyle(outer).backgroundColor : "";
  if (/^rgb\(|^color\(|^oklch\(/.test(background)) page.style.setProperty("--page", background);
}

applyTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
if (hostWindow()) new MutationObserver(() => { applyTheme(); reloadReport(); }).observe(hostWindow().document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme"] });

/** A link to a page outside the frame. The frame may not navigate its parent, so the link is opened by the parent's document. */
function outerLink(href, ...children) {
  const go = (event) => {
    const outer = hostWindow();
    if (!outer) return;
    event.preventDefault();
    const link = outer.document.createElement("a");
    link.href = href;
    if (!href.startsWith("/")) { link.target = "_blank"; link.rel = "noopener"; }
    link.click();
  };
  return el("a", { href, onclick: go }, ...children);
}

// --- requests ---------------------------------------------------------------------------------------------------

/** The JSON of a response. Throws an Error with a message for the user. */
async function request(path, options) {
  let response;
  try { response = await fetch(path, { credentials: "same-origin", ...options }); } catch { throw new Error("The Airflow API server does not respond."); }
  const body = await response.json().catch(() => null);
  if (response.ok && body !== null) return body;
  if (response.status === 401) throw new Error("Your session has expired. Reload the page and log in again.");
  if (response.ok) throw new Error("The response is not from Airflow, but may be the login page of a proxy. Reload the page and log in again.");
  if (body === null) throw new Error(`The server returned HTTP status ${response.status}.`);
  throw new Error([typeof body.error === "string" ? body.error : JSON.stringify(body.detail || body), body.hint].filter(Boolean).map(punctuate).join(" "));
}

const punctuate = (text) => `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

const post = (path, body) => request(path, {
  method: "POST", body: JSON.stringify(body),
  headers: { "Content-Type": "application/json", "X-Requested-By": "mlengine" },
});

const part = encodeURIComponent;
const jobPath = (row) => `${part(row.model)}/${part(row.job_id)}`;

// --- elements that several views use ----------------------------------------------------------------------------

const words = (name) => String(name).replaceAll("_", " ");
const chip = (name) => (name ? el("span", { class: `chip ${/^[A-Za-z_]+$/.test(name) ? name : ""}` }, words(name)) : "");
const formatMetric = (of) => (typeof of.metric_value === "number" ? `${of.metric || ""} ${number(of.metric_value)}`.trim() : "");
const metricCell = (of) => el("td", { class: "n" }, number(of.metric_value), el("small", {}, typeof of.metric_value === "number" ? of.metric : ""));
const dollars = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const formatCost = (value) => (typeof value !== "number" ? "" : value > 0 && value < 0.01 ? "< 0.01 USD" : `≈ ${dollars(value)} USD`);
const formatRate = (value) => `${value < 10 ? Number(value.toPrecision(2)) : Math.round(value).toLocaleString("en-US")} examples/s`;
const elapsed = (row) => (row.started ? duration((row.ended || row.seen) - row.started) : "");
const timeLeft = (row) => (row.eta === null ? "" : `${duration(row.eta)} left`);
const errorNote = (error) => el("p", { class: "note", role: "alert" }, error.message);

/** The steps that are done. Workers that end at the same time overshoot by a step or two. */
const formatSteps = (row) => `step ${row.of ? Math.min(row.step, row.of) : row.step} of ${row.of}`;

function progress(row) {
  if (row.step === null || !row.of) return "";
  const step = Math.min(row.step, row.of);
  return el("span", { class: "nowrap" }, el("progress", { max: row.of, value: step, "aria-label": formatSteps(row) }), ` ${Math.round((100 * step) / row.of)}%`);
}

/** `head`: column titles. "·" before a title hides the column in a narrow window, "#" aligns numbers. `empty`: shown without rows. */
function table(head, rows, empty, label) {
  if (!rows.length) return el("p", { class: "soft" }, empty);
  const heads = head.map((name) => el("th", { scope: "col", class: `${name.includes("·") ? "wide" : ""} ${name.includes("#") ? "n" : ""}` }, name.replace(/[·#]/g, "")));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

function facts(pairs, kind = "facts") {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const items = shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("dl", { class: kind }, kind === "cards" ? items.map((pair) => el("div", { class: pair[1].textContent.length > 24 ? "long" : null }, pair)) : items);
}

const code = (text) => (text ? el("code", {}, text) : "");
const section = (title, ...children) => el("section", {}, el("h2", {}, title), ...children);

/** Replace the content of a node if it has changed, and keep the keyboard focus. */
function update(node, key, make) {
  if (node.dataset.key === key) return;
  const held = node.contains(document.activeElement) ? document.activeElement : null;
  const name = held && (held.getAttribute("href") || held.textContent);
  node.dataset.key = key;
  node.replaceChildren(...make());
  if (held) [...node.querySelectorAll(held.tagName)].find((other) => (other.getAttribute("href") || other.textContent) === name)?.focus({ preventScroll: true });
}

/** What the page says instead of an empty list if the bucket has not been read. */
const unread = (found, what) => (found.error ? `The ${what} could not be read from the bucket.` : "Reading the bucket …");

/** The line at the top: when the data was read, or why it could not be read. A screen reader announces only the latter. */
function showStatus(at, error) {
  const message = error ? `Could not refresh: ${error}` : "";
  asOf.textContent = error ? "" : at ? `Updated ${moment(at).slice(11)}` : "Reading the bucket …";
  if (refreshError.textContent !== message) refreshError.textContent = message;
}

// --- confirmation of a change -----------------------------------------------------------------------------------

/** Ask for a reason, and call `act(reason)` if the user confirms. `yes` and `no` are the labels of the buttons. */
function confirmChange({ title, text, yes, no }, act) {
  const box = document.getElementById("ask"), why = document.getElementById("ask-why");
  const error = document.getElementById("ask-error"), button = document.getElementById("ask-yes"), keep = document.getElementById("ask-no");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  keep.textContent = no;
  button.textContent = yes;
  why.value = error.textContent = "";
  box.querySelector("form").onsubmit = async (event) => {
    if (event.submitter?.value !== "yes") return;
    event.preventDefault();
    if (!why.value.trim()) { error.textContent = "Enter a reason."; return; }
    // The request has been sent: closing the dialog would neither undo the change nor show whether it failed.
    button.disabled = keep.disabled = true;
    error.textContent = "";
    try { await act(why.value.trim()); box.close(); show(); } catch (problem) { error.textContent = problem.message; } finally { button.disabled = keep.disabled = false; }
  };
  box.oncancel = (event) => { if (keep.disabled) event.preventDefault(); };
  box.showModal();
  why.focus();
}

// --- views ------------------------------------------------------------------------------------------------------

async function showJobs(view) {
  const query = new URLSearchParams({ ...filters, limit: PAGE });
  const list = el("div", {}, el("p", { class: "soft" }, "Loading …"));
  const change = (name) => (event) => { filters[name] = event.target.value; filters.offset = 0; refresh(); };
  const models = el("select", { "aria-label": "Model", onchange: change("model") }, el("option", { value: "" }, "All models"));
  const states = el("select", { "aria-label": "State", onchange: change("state") },
    [["", "All states"], ["active", "Active"], ["ended", "Ended"], ...["SUCCEEDED", "FAILED", "CANCELLED"].map((name) => [name, name])]
      .map(([value, name]) => el("option", { value, selected: filters.state === value }, name)));
  const search = el("input", { type: "search", placeholder: "Search by job, DAG, run, dataset or user", "aria-label": "Search", maxlength: 200, value: filters.text, oninput: change("text") });
  const ofRun = filters.run_id && el("button", { type: "button", title: "Show the jobs of all runs", onclick: () => { filters.dag_id = filters.run_id = ""; show(); } }, `Run ${filters.run_id} ✕`);
  main.replaceChildren(el("div", { class: "bar", role: "search" }, search, states, models, ofRun), list);
  let asked = 0;
  async function refresh() {
    const number = ++asked;
    for (const name of Object.keys(filters)) query.set(name, filters[name]);
    try {
      const found = await request(`api/jobs?${query}`);
      if (view !== currentView || number !== asked) return; // the response to a later query may come first
      if (filters.offset && filters.offset >= found.total) {
        filters.offset = Math.max(0, Math.ceil(found.total / PAGE) - 1) * PAGE;
        return await refresh();
      }
      showStatus(found.at, found.error);
      for (const name of found.models) if (![...models.options].some((option) => option.value === name)) models.append(el("option", { value: name, selected: name === filters.model }, name));
      update(list, JSON.stringify({ ...found, at: 0 }), () => jobTable(found));
    } catch (error) { if (view === currentView && number === asked) update(list, error.message, () => [errorNote(error)]); }
  }
  function jobTable(found) {
    const costs = found.jobs.some((row) => row.cost_usd !== null);
    const head = ["Job", "State", "·Progress", "Verdict", "·Dataset", "·#Attempt", "·#Duration", ...(costs ? ["·#Cost"] : []), "·Triggered by"];
    const rows = found.jobs.map((row) => el("tr", {},
      el("td", { class: "job" }, el("a", { href: `#/job/${jobPath(row)}` }, row.job_id), el("small", {}, moment(row.claimed))),
      el("td", {}, chip(row.state), el("small", { class: "narrow" }, progress(row)), el("small", { class: "narrow" }, timeLeft(row))),
      el("td", { class: "wide" }, progress(row), el("small", {}, timeLeft(row))),
      el("td", {}, chip(row.verdict), el("small", {}, formatMetric(row))),
      el("td", { class: "wide nowrap" }, row.dataset), el("td", { class: "wide n" }, String(row.attempt)), el("td", { class: "wide n" }, elapsed(row)),
      costs ? el("td", { class: "wide n" }, formatCost(row.cost_usd)) : "", el("td", { class: "wide" }, row.by, el("small", {}, row.dag_id))));
    const more = filters.offset + PAGE < found.total;
    const turnPage = (by) => () => { filters.offset = Math.max(0, filters.offset + by); refresh(); };
    const shown = found.total ? `${filters.offset + 1}–${filters.offset + found.jobs.length} of ${found.total} ${found.total === 1 ? "job" : "jobs"}` : "0 jobs";
    const filtered = filters.text || filters.state || filters.model;
    const empty = filtered ? "No jobs match these filters." : filters.run_id
      ? "This run has no job. Either it has not submitted one yet, or it reused the model of an earlier job with the same inputs."
      : `No jobs yet. Jobs that DAGs submit to ${found.bucket} appear here.`;
    if (found.at === null && !rows.length) return [el("p", { class: "soft" }, unread(found, "jobs"))];
    return [
      table(head, rows, empty, "Jobs"),
      el("p", { class: "bar" }, el("span", { class: "soft" }, `${shown}; ${found.active} active in total`),
        found.total > PAGE && el("button", { type: "button", disabled: !filters.offset, onclick: turnPage(-PAGE) }, "Newer"), found.total > PAGE && el("button", { type: "button", disabled: !more, onclick: turnPage(PAGE) }, "Older")),
    ];
  }
  await refresh();
  return refresh;
}

async function showJob(view, model, id) {
  const path = `api/jobs/${part(model)}/${part(id)}`;
  const top = el("div", {}), log = logView(path, view), below = el("div", {});
  let attempt = null, unread = true; // unread: the log may have lines after those that are shown
  async function refresh() {
    const job = await request(path);
    if (view !== currentView) return;
    showStatus(job.row.seen, "");
    update(top, JSON.stringify([job.row, job.cancellable]), () => jobTop(job, path));
    update(below, JSON.stringify([job.history, job.report, job.curves, job.row.state]), () => jobBelow(job, path));
    const active = ACTIVE.has(job.row.state), restart = attempt !== null && attempt !== job.row.attempt;
    if (active || restart) unread = true;
    if (unread) log.more(restart).then((read) => { if (read && !active) unread = false; });
    log.attempts(job.stored_logs, job.row.attempt);
    attempt = job.row.attempt;
  }
  try { await refresh(); } catch (error) { return retryView(view, error); }
  if (view !== currentView) return null;
  main.replaceChildren(top, log.node, below);
  if (target) document.getElementById(target)?.scrollIntoView();
  target = "";
  return refresh;
}

function jobTop(job, path) {
  const row = job.row;
  const cancel = () => confirmChange({
    title: `Cancel ${row.job_id}?`, yes: "Cancel job", no: job.may_be_tried_again ? "Keep it" : "Keep it running",
    text: job.may_be_tried_again
      ? "The last attempt has failed. If you cancel the job, there will be no further attempt: the Airflow task fails at the end of the current pause and is not retried. Checkpoints and logs stay in the job directory."
      : "This stops all replicas of the job. The Airflow task fails and is not retried. Checkpoints and logs stay in the job directory.",
  }, (reason) => post(`${path}/cancel`, { reason }));
  const run = row.run_id && outerLink(`${root}/dags/${part(row.dag_id)}/runs/${part(row.run_id)}`, row.run_id);
  const board = job.tensorboard ? outerLink(job.tensorboard, "TensorBoard") : "";
  return [
    el("div", { class: "top" }, el("div", {}, el("h1", {}, row.job_id), el("p", { class: "soft" }, chip(row.state), " ", row.detail)),
      el("div", { class: "actions" }, board, job.console ? outerLink(job.console, "Cloud console") : "",
        job.cancellable && job.may_change ? el("button", { type: "button", class: "danger", onclick: cancel }, "Cancel …") : "")),
    facts([
      ["Progress", row.step === null ? "" : el("span", {}, progress(row), el("br"), formatSteps(row))], ["Time left", duration(row.eta)],
      ["Throughput", row.rate ? formatRate(row.rate) : ""], ["Attempt", row.attempt ? String(row.attempt) : ""],
      ["Submitted", moment(row.claimed)], ["Duration", elapsed(row)], ["Estimated cost", formatCost(row.cost_usd)], ["Cluster", row.cluster], ["Backend", row.backend],
      ["Web access", Object.keys(job.links).length ? el("span", {}, Object.entries(job.links).map(([replica, url]) => [outerLink(url, replica), " "])) : ""],
      ["Dataset", row.dataset], ["Decision", words(row.decision)], ["Verdict", row.verdict ? el("span", {}, chip(row.verdict), " ", formatMetric(row)) : ""],
      ["Triggered by", row.by], ["DAG", row.dag_id], ["Run", run],
    ], "cards"),
  ];
}

function jobBelow(job, path) {
  const row = job.row;
  const plots = Object.entries(job.curves).map(([title, series]) => lines(words(title), series)).filter(Boolean);
  const history = job.history.map((event) => {
    const { time, event: name, ...rest } = event;
    return el("tr", {}, el("td", {}, moment(time)), el("td", {}, words(name)),
      el("td", {}, code(Object.entries(rest).map(([field, value]) => `${field}=${typeof value === "object" ? JSON.stringify(value) : value}`).join("  "))));
  });
  const package_ = job.inputs.package || {}, dataset = job.inputs.dataset || {};
  return [
    plots.length ? section("Learning curves", el("div", { class: "plots" }, plots)) : "",
    section("Events", table(["Time", "Event", "Details"], history, "No events have been recorded.", "Events")),
    job.report ? reportView(job, path) : "",
    section("Lineage", facts([
      ["Job directory", code(job.job_dir)], ["Model directory", code(`${job.job_dir}/model/`)], ["Model SHA-256", code(job.report?.digest || "")],
      ["Dataset", code(dataset.uri || "")], ["Dataset digest", code(dataset.digest || "")],
      ["Package", code((package_.package_uris || job.spec.package_uris || []).join(" "))], ["Package digest", code(package_.digest || "")],
      ["Module", code(job.spec.module || "")], ["Arguments", code((job.spec.args || []).join(" "))],
      ["Environment variables", code((job.spec.env || []).map((name) => `${name}=…`).join(" "))], ["Inputs digest", code(job.inputs.digest || "")],
      ["Task", code([job.owner.dag_id, job.owner.run_id, job.owner.task_id, job.owner.map_index >= 0 ? job.owner.map_index : ""].filter((part) => part || part === 0).join(" / "))],
    ])),
    el("section", { id: "tensorboard" }, el("h2", {}, "TensorBoard"), el("p", {}, "To open this job in TensorBoard on your machine, run ", code(`mlengine jobs tensorboard ${row.model}/${row.job_id}`), ".")),
  ].filter(Boolean);
}

function reportView(job, path) {
  const report = job.report, failedChecks = report.checks.filter((check) => !check.passed && !check.skipped);
  const frame = el("iframe", { id: "report", title: `Validation report of ${job.row.job_id}`, sandbox: "", loading: "lazy", "data-src": `${path}/report` });
  frame.src = `${path}/report?theme=${theme()}`;
  const reasons = report.reasons.filter((reason) => !failedChecks.some((check) => check.message === reason));
  return section("Validation report", el("p", {}, chip(report.verdict), " ", reasons.join(" ")),
    ...failedChecks.map((check) => el("p", { class: "bad" }, `${check.name}: ${check.message}`)),
    report.metrics.length ? metricTable(report.metrics, "Challenger", report.champion.job_id ? `Champion ${report.champion.serial}` : "") : "", frame);
}

/** Metrics as the server formats them. Without a champion (`champion` is empty), only the values. */
function metricTable(metrics, challenger, champion) {
  const marks = { better: "good", worse: "bad" };
  const head = ["", challenger, ...(champion ? [champion, "Better by", "·Interval"] : [])].map((name) => el("th", { scope: "col", class: typeof name === "string" && name.startsWith("·") ? "wide" : null }, typeof name === "string" ? name.replace("·", "") : name));
  const rows = metrics.map((one) => el("tr", {}, el("th", { scope: "row" }, one.name, one.note ? el("small", {}, one.note) : ""), el("td", { class: "value" }, one.main ? el("b", {}, one.value) : one.value),
    champion ? [el("td", { class: "value" }, one.champion), el("td", { class: `value ${marks[one.mark] || ""}` }, one.gain), el("td", { class: "wide value" }, one.interval)] : ""));
  return el("div", { class: "scroll" }, el("table", { class: "plain" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

/** Load an open report again when Airflow's theme changes. */
function reloadReport() {
  const frame = document.getElementById("report");
  if (frame) frame.src = `${frame.dataset.src}?theme=${theme()}`;
}

function logView(path, view) {
  const MAX_LINES = 5000;
  let cursor = "", attempt = "", busy = false, starts = 0, dropped = false, replica = "", notBefore = 0;
  const text = el("pre", { id: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "Log" });
  const count = el("span", { class: "soft" });
  const replicas = el("select", { "aria-label": "Replica", onchange: (event) => { replica = event.target.value; for (const line of text.children) line.hidden = hidden(line.dataset.replica); } }, el("option", { value: "" }, "All replicas"));
  const attempts = el("select", { "aria-label": "Attempt", onchange: (event) => { attempt = event.target.value; more(true); } }, el("option", { value: "" }, "Latest attempt"));
  const next = el("button", { type: "button", onclick: () => more(false, true) }, "Load more");
  const hidden = (name) => Boolean(replica) && name !== replica;
  /** Fetch new lines; `restart` begins with the first line, `one` fetches one page only. Returns whether the next lines were read. */
  async function more(restart, one) {
    if (!restart && (busy || (!one && Date.now() < notBefore))) return false;
    // A restart replaces what is under way: its response is of another attempt, or of another place in the log.
    const start = restart ? ++starts : starts;
    busy = true;
    if (restart) { cursor = ""; dropped = false; text.replaceChildren(); }
    try {
      for (let pages = 0; pages < (one ? 1 : 4); pages++) {
        const page = await post(`${path}/logs`, { cursor, attempt: attempt ? Number(attempt) : null });
        if (view !== currentView || start !== starts) return false;
        const atEnd = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
        for (const line of page.lines) {
          if (![...replicas.options].some((option) => option.value === line.replica)) replicas.append(el("option", { value: line.replica }, line.replica));
          text.append(el("div", { "data-replica": line.replica, hidden: hidden(line.replica) }, el("b", {}, line.replica.padEnd(11), " "), line.text));
        }
        while (text.children.length > MAX_LINES) { text.firstChild.remove(); dropped = true; }
        if (atEnd) text.scrollTop = text.scrollHeight;
        cursor = page.cursor || cursor;
        next.hidden = !page.more;
        // The backend limits how often logs are read, or does not respond.
        notBefore = Date.now() + 1000 * page.wait;
        if (!page.more || page.wait) break;
      }
      count.textContent = dropped ? `last ${MAX_LINES} lines` : text.children.length ? `${text.children.length} ${text.children.length === 1 ? "line" : "lines"}` : "No log lines yet.";
      return Date.now() >= notBefore;
    } catch (error) {
      if (start === starts) count.textContent = error.message;
      return false;
    } finally { if (start === starts) busy = false; }
  }
  function offerAttempts(stored, last) {
    for (const number of stored) if (number !== last && ![...attempts.options].some((option) => option.value === String(number))) attempts.append(el("option", { value: number }, `Attempt ${number}`));
    attempts.hidden = attempts.options.length < 2;
  }
  return { node: section("Log", el("div", { class: "bar" }, replicas, attempts, next, count), text), more, attempts: offerAttempts };
}

async function showModels(view) {
  async function refresh() {
    try {
      const found = await request("api/models");
      if (view !== currentView) return;
      showStatus(found.at, found.error);
      const rows = found.models.map((model) => {
        const champion = model.champion || {};
        return el("tr", {}, el("td", { class: "job" }, el("a", { href: `#/model/${part(model.model)}` }, model.model)),
          el("td", { class: "job" }, champion.job_id ? el("a", { href: `#/job/${part(model.model)}/${part(champion.job_id)}` }, champion.job_id) : champion.error || "None yet"),
          metricCell(champion), el("td", { class: "wide" }, champion.dataset_version || ""), el("td", { class: "wide" }, moment(champion.at), el("small", {}, champion.by || "")),
          el("td", { class: "n" }, String(model.active)), el("td", { class: "n" }, String(model.jobs)));
      });
      const empty = found.at === null ? unread(found, "models") : "No models yet. A model appears here with its first job.";
      update(main, JSON.stringify([found.models, empty]), () => [table(["Model", "Champion", "#Metric", "·Dataset", "·Published", "#Active jobs", "#All jobs"], rows, empty, "Models")]);
    } catch (error) { if (view === currentView) update(main, error.message, () => [errorNote(error)]); }
  }
  await refresh();
  return refresh;
}

async function showModel(view, name) {
  const path = `api/models/${part(name)}`;
  let model;
  try { model = await request(path); } catch (error) { return retryView(view, error); }
  if (view !== currentView) return null;
  showStatus(Date.now() / 1000, "");
  const champion = model.champion, to = (id) => `#/job/${part(name)}/${part(id)}`;
  const rollBack = (entry) => () => confirmChange({
    title: `Roll back ${name} to ${entry.job_id}?`, yes: "Roll back", no: "Keep the current champion",
    text: `The current champion is ${champion.job_id}. Programs that read the champion pointer get the earlier model immediately.`,
  }, (reason) => post(`${path}/rollback`, { reason, to: entry.serial, shown: champion.serial }));
  const origin = (entry) => entry.restores ?? entry.serial;
  const history = model.history.map((entry, index) => el("tr", {}, el("td", { class: "n" }, String(entry.serial)), el("td", { class: "job" }, el("a", { href: to(entry.job_id) }, entry.job_id), el("small", { class: "narrow" }, `${words(entry.action)} ${moment(entry.at)} by ${entry.by}`), el("small", {}, entry.why)),
    el("td", { class: "wide" }, words(entry.action)), metricCell(entry), el("td", { class: "wide" }, entry.dataset.version || ""), el("td", { class: "wide" }, moment(entry.at), el("small", {}, entry.by)),
    el("td", {}, index && model.may_change && origin(entry) !== origin(champion) ? el("button", { type: "button", class: "danger", onclick: rollBack(entry), "aria-label": `Roll back to ${entry.job_id}` }, "Roll back …") : "")));
  const datasets = [...new Set(model.points.map((point) => point.dataset || NO_DATASET))];
  const drift = el("div", {});
  main.replaceChildren(
    el("div", { class: "top" }, el("h1", {}, name)),
    champion ? facts([["Champion", el("a", { href: to(champion.job_id) }, champion.job_id)], [champion.metric || "Metric", number(champion.metric_value)], ["Dataset", champion.dataset.version || ""],
      ["Published", moment(champion.at)], ["Published by", champion.by], ["Model directory", code(champion.model_uri)]], "cards") : el("p", { class: "soft" }, "No model has been published yet."),
    model.points.length ? section(`${model.metric} by dataset version`, el("div", { class: "plots" }, versions(model.metric, model.points, datasets, to), drift),
      el("p", { class: "soft" }, model.higher_is_better ? "" : "Lower is better. ", "Filled dots have been champion. Hollow dots were accepted (green), not compared (amber) or rejected (red). Click a dot to open its job.")) : "",
    model.comparison ? comparison(model.comparison, to) : "",
    section("Champion history", table(["#No.", "Champion", "·Action", "#Metric", "·Dataset", "·Time", ""], history, "No model has been published yet.", "Champion history")),
  );
  if (model.points.length) showDrift(drift, path, datasets);
  return null;
}

/** The drift of the dataset's columns, below or next to the metric. It reads many manifests, so it comes after the rest. */
async function showDrift(node, path, datasets) {
  let found;
  try { found = await request(`${path}/drift`); } catch (error) { node.replaceChildren(errorNote(error)); return; }
  if (!found.columns.length) { node.remove(); return; }
  const others = found.others ? ` ${found.others} other columns drifted less.` : "";
  node.replaceChildren(driftPlot(found.versions, found.columns, datasets), el("p", { class: "soft" },
    `Drift of the training rows of ${found.dataset}: population stability index of each version against the one before. Values above 0.1 indicate a shift; above 0.25, a large shift.${others}`));
}

function comparison(found, to) {
  const size = (value) => (value ? `${(value / 2 ** 20).toFixed(1)} MiB` : "-");
  const other = found.compared_with.job_id;
  const sizes = found.size.some(Boolean) ? [{ name: "size", value: size(found.size[0]), champion: size(found.size[1]), gain: "", interval: "" }] : [];
  const title = (text, id) => [`${text}: `, el("a", { href: to(id) }, id)];
  const paragraphs = [el("p", {}, chip(found.verdict), " ", found.reasons.join(" "))];
  if (!other) paragraphs.push(el("p", { class: "soft" }, "There was no champion at that time."));
  if (other === found.job_id) {
    return section("Latest validation", ...paragraphs, el("p", { class: "soft" }, "The champion itself was validated again."),
      metricTable(found.metrics, title("Champion", found.job_id), ""));
  }
  return section("Latest challenger compared with the champion", ...paragraphs,
    metricTable([...found.metrics, ...sizes], title("Challenger", found.job_id), other ? title("Champion", other) : ""));
}

// --- routing ----------------------------------------------------------------------------------------------------

/** Decode a part of an address; one that was typed with a plain `%` is returned as it is. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Turn the query of a link into a view. A `+` is a literal plus: Airflow does not encode it in run ids. */
function fromQuery() {
  const query = Object.fromEntries(location.search.slice(1).split("&").filter(Boolean).map((pair) => pair.split("=").map(decoded)));
  if (location.hash || !location.search) return;
  if (query.dag_id && query.run_id) [filters.dag_id, filters.run_id] = [query.dag_id, query.run_id];
  target = query.at || "";
  const [model, id] = (query.job || "").split("/");
  if (id) location.replace(`#/job/${part(model)}/${part(id)}`);
  else if (query.model) location.replace(`#/model/${part(query.model)}`);
}

/** Show why a view could not be loaded, and load it again after a pause. */
function retryView(view, error) {
  if (view !== currentView) return null;
  if (main.textContent !== error.message) main.replaceChildren(errorNote(error));
  timer = setTimeout(() => (document.hidden ? retryView(view, error) : show()), 5000);
  return null;
}

async function show() {
  const view = ++currentView;
  delete main.dataset.key;
  clearTimeout(timer);
  const [name, first, second] = (location.hash || "#/jobs").slice(2).split("/").map(decoded);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash.startsWith(`#/${name.replace(/s$/, "")}`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = first ? `${second || first} · Models & jobs` : "Models & jobs";
  const views = { jobs: showJobs, job: showJob, models: showModels, model: showModel };
  const refresh = await (views[name] || showJobs)(view, first, second);
  const repeat = async () => {
    if (view !== currentView) return;
    if (!document.hidden) await refresh().catch((error) => showStatus(null, error.message));
    timer = setTimeout(repeat, 5000);
  };
  if (refresh && view === currentView) timer = setTimeout(repeat, 5000);
}

// The link's own target would replace the address of the view.
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
fromQuery();
addEventListener("hashchange", async () => { await show(); main.focus({ preventScroll: true }); });
show();
