// The page: #/jobs, #/job/MODEL/ID, #/models, #/model/NAME. Data comes from api/…, which asks Airflow who may see it.

import { el, lines, versions, duration, moment } from "./draw.js";

const main = document.getElementById("main");
const asOf = document.getElementById("as-of");
const root = location.pathname.replace(/\/mlengine\/page$/, "");
const filters = { text: "", state: "", model: "", dag_id: "", run_id: "", offset: 0 };
const PAGE = 50, LIVE = new Set(["QUEUED", "PREPARING", "RUNNING", "CANCELLING", "PAUSED", "UNKNOWN"]);
let drawn = 0; // counts views: an answer that comes after another view was opened is not shown
let timer = null;

// --- the host: its theme, and ways out of the frame -------------------------------------------------------------

function host() {
  try { return window.parent !== window && window.parent.document ? window.parent : null; } catch { return null; }
}

function theme() {
  const outer = host()?.document.documentElement;
  const named = outer && ["dark", "light"].find((word) => outer.classList.contains(word) || outer.dataset.theme === word);
  let kept = null;
  try { kept = localStorage.getItem("theme"); } catch { /* no storage in this frame */ }
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  return named || (["dark", "light"].includes(kept) ? kept : system);
}

function dress() {
  const page = document.documentElement, outer = host()?.document.body;
  page.dataset.theme = theme();
  const ground = outer ? getComputedStyle(outer).backgroundColor : "";
  if (/^rgb\(|^color\(|^oklch\(/.test(ground)) page.style.setProperty("--page", ground);
}

dress();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", dress);
if (host()) new MutationObserver(() => { dress(); reframe(); }).observe(host().document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme"] });

/** A link out of the frame: the frame may not navigate its host, but the host's own document may. */
function away(href, ...children) {
  const go = (event) => {
    const outer = host();
    if (!outer) return;
    event.preventDefault();
    const link = outer.document.createElement("a");
    link.href = href;
    if (!href.startsWith("/")) { link.target = "_blank"; link.rel = "noopener"; }
    link.click();
  };
  return el("a", { href, onclick: go }, ...children);
}

// --- talking to the server --------------------------------------------------------------------------------------

async function ask(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const body = await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }));
  if (answer.ok) return body;
  if (answer.status === 401) throw new Error("You are not logged in any more. Reload Airflow, and log in.");
  const said = typeof body.error === "string" ? body.error : JSON.stringify(body.detail || body);
  throw new Error(body.remedy ? `${said} What to do: ${body.remedy}` : said);
}

const tell = (path, body) => ask(path, {
  method: "POST", body: JSON.stringify(body),
  headers: { "Content-Type": "application/json", "X-Requested-By": "mlengine" },
});

const part = encodeURIComponent;
const jobPath = (row) => `${part(row.model)}/${part(row.job_id)}`;

// --- small pieces -----------------------------------------------------------------------------------------------

const chip = (word) => (word ? el("span", { class: `chip ${/^[A-Za-z_]+$/.test(word) ? word : ""}` }, word.replaceAll("_", " ")) : "");
const percent = (value) => (typeof value === "number" ? value.toFixed(4) : "");
const dollars = (value) => (typeof value === "number" ? `≈ ${value.toFixed(2)} USD` : "");
const took = (row) => (row.started ? duration((row.ended || row.seen) - row.started) : "");
const toGo = (row) => (row.eta === null ? "" : `${duration(row.eta)} to go`);
const failed = (error) => el("p", { class: "note", role: "alert" }, error.message);

function progress(row) {
  if (row.step === null || !row.of) return "";
  const share = `step ${row.step} of ${row.of}`;
  return el("span", { class: "nowrap" }, el("progress", { max: row.of, value: row.step, "aria-label": share }), ` ${Math.round((100 * row.step) / row.of)} %`);
}

function table(head, rows, empty) {
  if (!rows.length) return el("p", { class: "soft" }, empty);
  const heads = head.map((name) => el("th", { scope: "col", class: name.startsWith("·") ? "wide" : null }, name.replace("·", "")));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "table" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows)));
}

function facts(pairs, kind = "facts") {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const items = shown.map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("dl", { class: kind }, kind === "cards" ? items.map((pair) => el("div", {}, pair)) : items);
}

const code = (text) => (text ? el("code", {}, text) : "");
const section = (title, ...children) => el("section", {}, el("h2", {}, title), ...children);

/** Put new content in, if it is new; what had the keyboard's focus has it again. */
function redraw(node, key, make) {
  if (node.dataset.key === key) return;
  const held = node.contains(document.activeElement) ? document.activeElement : null;
  const name = held && (held.getAttribute("href") || held.textContent);
  node.dataset.key = key;
  node.replaceChildren(...make());
  if (held) [...node.querySelectorAll(held.tagName)].find((other) => (other.getAttribute("href") || other.textContent) === name)?.focus({ preventScroll: true });
}

function seen(at, error) {
  asOf.textContent = error ? `The bucket cannot be looked at: ${error}` : at ? `as of ${moment(at).slice(11)}` : "looking at the bucket …";
  asOf.className = error ? "bad" : "soft";
}

// --- a change, asked twice --------------------------------------------------------------------------------------

function confirmed(title, text, yes, act) {
  const box = document.getElementById("ask"), why = document.getElementById("ask-why");
  const error = document.getElementById("ask-error"), button = document.getElementById("ask-yes");
  document.getElementById("ask-title").textContent = title;
  document.getElementById("ask-text").textContent = text;
  button.textContent = yes;
  why.value = error.textContent = "";
  box.querySelector("form").onsubmit = async (event) => {
    if (event.submitter?.value !== "yes") return;
    event.preventDefault();
    button.disabled = true;
    try { await act(why.value.trim()); box.close(); show(); } catch (problem) { error.textContent = problem.message; } finally { button.disabled = false; }
  };
  box.showModal();
  why.focus();
}

// --- views ------------------------------------------------------------------------------------------------------

async function showJobs(mine) {
  const query = new URLSearchParams({ ...filters, limit: PAGE });
  const list = el("div", {}, el("p", { class: "soft" }, "looking …"));
  const change = (name) => (event) => { filters[name] = event.target.value; filters.offset = 0; refresh(); };
  const models = el("select", { "aria-label": "model", onchange: change("model") }, el("option", { value: "" }, "all models"));
  const states = el("select", { "aria-label": "state", onchange: change("state") },
    [["", "all states"], ["live", "live"], ["past", "past"], ...["SUCCEEDED", "FAILED", "CANCELLED"].map((word) => [word, word])]
      .map(([value, name]) => el("option", { value, selected: filters.state === value }, name)));
  const search = el("input", { type: "search", placeholder: "job, DAG, run, dataset, who", "aria-label": "search", value: filters.text, oninput: change("text") });
  const ofRun = filters.run_id && el("button", { type: "button", onclick: () => { filters.dag_id = filters.run_id = ""; show(); } }, `run ${filters.run_id} ✕`);
  main.replaceChildren(el("div", { class: "bar", role: "search" }, search, states, models, ofRun), list);
  async function refresh() {
    for (const name of Object.keys(filters)) query.set(name, filters[name]);
    try {
      const found = await ask(`api/jobs?${query}`);
      if (mine !== drawn) return;
      seen(found.at, found.error);
      for (const name of found.models) if (![...models.options].some((option) => option.value === name)) models.append(el("option", { value: name, selected: name === filters.model }, name));
      redraw(list, JSON.stringify({ ...found, at: 0 }), () => jobTable(found));
    } catch (error) { if (mine === drawn) redraw(list, error.message, () => [failed(error)]); }
  }
  function jobTable(found) {
    const costs = found.jobs.some((row) => row.cost_usd !== null);
    const head = ["job", "state", "·progress", "verdict", "·dataset", "·attempt", "·took", ...(costs ? ["·cost"] : []), "·who"];
    const rows = found.jobs.map((row) => el("tr", {},
      el("td", { class: "job" }, el("a", { href: `#/job/${jobPath(row)}` }, row.job_id), el("small", {}, moment(row.claimed))),
      el("td", {}, chip(row.state), el("small", { class: "narrow" }, progress(row)), el("small", { class: "narrow" }, toGo(row))),
      el("td", { class: "wide" }, progress(row), el("small", {}, toGo(row))),
      el("td", {}, chip(row.verdict), el("small", {}, percent(row.accuracy))),
      el("td", { class: "wide" }, row.dataset), el("td", { class: "wide n" }, String(row.attempt)), el("td", { class: "wide n" }, took(row)),
      costs ? el("td", { class: "wide n" }, dollars(row.cost_usd)) : "", el("td", { class: "wide" }, row.by, el("small", {}, row.dag_id))));
    const more = filters.offset + PAGE < found.total;
    const turn = (by) => () => { filters.offset = Math.max(0, filters.offset + by); refresh(); };
    const first = found.total ? filters.offset + 1 : 0;
    return [
      table(head, rows, filters.run_id ? "This run has no job of its own: it is not submitted yet, or a job of equal inputs stood in." : `No jobs here. They appear when a DAG submits one to ${found.bucket}.`),
      el("p", { class: "bar" }, el("span", { class: "soft" }, `${first}–${filters.offset + found.jobs.length} of ${found.total}; ${found.live} live in all`),
        el("button", { type: "button", disabled: !filters.offset, onclick: turn(-PAGE) }, "newer"), el("button", { type: "button", disabled: !more, onclick: turn(PAGE) }, "older")),
    ];
  }
  await refresh();
  return refresh;
}

async function showJob(mine, model, id) {
  const path = `api/jobs/${part(model)}/${part(id)}`;
  const top = el("div", {}), log = logView(path, mine), below = el("div", {});
  let state = null, attempt = null;
  async function refresh() {
    const job = await ask(path);
    if (mine !== drawn) return;
    seen(job.row.seen, "");
    redraw(top, JSON.stringify(job.row), () => jobTop(job, path));
    redraw(below, JSON.stringify([job.history, job.report, job.curves, job.row.state]), () => jobBelow(job, path));
    const ended = state !== null && state !== job.row.state && !LIVE.has(job.row.state);
    if (LIVE.has(job.row.state) || state === null || ended || attempt !== job.row.attempt) log.more(attempt !== null && attempt !== job.row.attempt);
    log.attempts(job.stored_logs, job.row.attempt);
    [state, attempt] = [job.row.state, job.row.attempt];
  }
  try { await refresh(); } catch (error) { if (mine === drawn) main.replaceChildren(failed(error)); return null; }
  if (mine !== drawn) return null;
  main.replaceChildren(top, log.node, below);
  return refresh;
}

function jobTop(job, path) {
  const row = job.row;
  const cancel = () => confirmed(`Cancel ${row.job_id}?`, "Its machines are stopped, and its task fails without another try. What was saved stays in the job dir.", "Cancel the job",
    async (reason) => { await tell(`${path}/cancel`, { reason }); });
  const run = row.run_id && away(`${root}/dags/${part(row.dag_id)}/runs/${part(row.run_id)}`, row.run_id);
  const board = job.tensorboard ? away(job.tensorboard, "TensorBoard") : "";
  return [
    el("div", { class: "top" }, el("div", {}, el("h1", {}, row.job_id), el("p", { class: "soft" }, chip(row.state), " ", row.detail)),
      el("div", { class: "actions" }, board, job.console ? away(job.console, "Console") : "",
        job.cancellable && job.may_change ? el("button", { type: "button", class: "danger", onclick: cancel }, "Cancel …") : "")),
    facts([
      ["progress", row.step === null ? "" : el("span", {}, progress(row), el("br"), `step ${row.step} of ${row.of}`)], ["to go", duration(row.eta)],
      ["speed", row.rate ? `${Math.round(row.rate)} examples/s` : ""], ["attempt", row.attempt ? String(row.attempt) : ""],
      ["submitted", moment(row.claimed)], ["took", took(row)], ["cost", dollars(row.cost_usd)], ["cluster", row.cluster], ["backend", row.backend],
      ["dataset", row.dataset], ["decision", row.decision.replaceAll("_", " ")], ["verdict", row.verdict ? el("span", {}, chip(row.verdict), " ", percent(row.accuracy)) : ""],
      ["who", row.by], ["DAG", row.dag_id], ["run", run],
    ], "cards"),
  ];
}

function jobBelow(job, path) {
  const curves = job.curves, row = job.row;
  const plots = [lines("loss", Object.fromEntries(["train_loss", "test_loss"].filter((name) => curves[name]).map((name) => [name, curves[name]]))),
    lines("accuracy", curves.test_accuracy ? { test_accuracy: curves.test_accuracy } : {})].filter(Boolean);
  const history = job.history.map((event) => {
    const { time, event: what, ...rest } = event;
    return el("tr", {}, el("td", {}, moment(time)), el("td", {}, String(what).replaceAll("_", " ")),
      el("td", {}, code(Object.entries(rest).map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`).join("  "))));
  });
  const package_ = job.inputs.package || {}, dataset = job.inputs.dataset || {};
  return [
    plots.length ? section("Curves", el("div", { class: "plots" }, plots)) : "",
    section("What was decided when", table(["when", "what", ""], history, "Nothing yet.")),
    job.report ? reportView(job, path) : "",
    section("Where it comes from", facts([
      ["job dir", code(job.job_dir)], ["model", code(`${job.job_dir}/model/`)], ["dataset", code(dataset.uri || "")], ["dataset digest", code(dataset.digest || "")],
      ["package", code((package_.package_uris || job.spec.package_uris || []).join(" "))], ["package digest", code(package_.digest || "")],
      ["module", code(job.spec.module || "")], ["arguments", code((job.spec.args || []).join(" "))],
      ["environment", code((job.spec.env || []).map((name) => `${name}=…`).join(" "))], ["inputs digest", code(job.inputs.digest || "")],
      ["task", code(Object.values(job.owner).join(" "))], ["model sha256", code(job.report?.digest || "")],
    ])),
    section("TensorBoard", el("p", {}, "On your machine: ", code(`mlengine jobs tensorboard ${row.model}/${row.job_id}`))),
  ].filter(Boolean);
}

function reportView(job, path) {
  const report = job.report, failedChecks = report.checks.filter((check) => !check.passed && !check.skipped);
  const frame = el("iframe", { id: "report", title: `report of ${job.row.job_id}`, sandbox: "", loading: "lazy", "data-src": `${path}/report` });
  frame.src = `${path}/report?theme=${theme()}`;
  return section("Report", el("p", {}, chip(report.verdict), " ", report.reasons.join(" ")),
    ...failedChecks.map((check) => el("p", { class: "bad" }, `${check.name}: ${check.sentence}`)), frame);
}

/** A report that is open follows the host when its theme changes. */
function reframe() {
  const frame = document.getElementById("report");
  if (frame) frame.src = `${frame.dataset.src}?theme=${theme()}`;
}

function logView(path, mine) {
  const MOST = 5000;
  let cursor = "", wanted = "", busy = false, replica = "";
  const text = el("pre", { id: "log", tabindex: "0", role: "log", "aria-live": "off", "aria-label": "log of all replicas" });
  const count = el("span", { class: "soft" });
  const replicas = el("select", { "aria-label": "replica", onchange: (event) => { replica = event.target.value; for (const line of text.children) line.hidden = hidden(line.dataset.replica); } }, el("option", { value: "" }, "all replicas"));
  const attempts = el("select", { "aria-label": "attempt", onchange: (event) => { wanted = event.target.value; more(true); } }, el("option", { value: "" }, "last attempt"));
  const next = el("button", { type: "button", onclick: () => more(false, true) }, "more");
  const hidden = (name) => Boolean(replica) && name !== replica;
  async function more(anew, one) {
    if (busy) return;
    busy = true;
    if (anew) { cursor = ""; text.replaceChildren(); }
    try {
      for (let pages = 0; pages < (one ? 1 : 4); pages++) {
        const page = await ask(`${path}/logs?cursor=${part(cursor)}${wanted ? `&attempt=${wanted}` : ""}`);
        if (mine !== drawn) return;
        const low = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
        for (const line of page.lines) {
          if (![...replicas.options].some((option) => option.value === line.replica)) replicas.append(el("option", { value: line.replica }, line.replica));
          text.append(el("div", { "data-replica": line.replica, hidden: hidden(line.replica) }, el("b", {}, line.replica.padEnd(11), " "), line.text));
        }
        while (text.children.length > MOST) text.firstChild.remove();
        if (low) text.scrollTop = text.scrollHeight;
        cursor = page.cursor || cursor;
        next.hidden = !page.more;
        if (!page.more) break;
      }
      count.textContent = text.children.length ? `${text.children.length} lines` : "no lines";
    } catch (error) { count.textContent = error.message; } finally { busy = false; }
  }
  function offer(stored, last) {
    for (const number of stored) if (number !== last && ![...attempts.options].some((option) => option.value === String(number))) attempts.append(el("option", { value: number }, `attempt ${number}`));
    attempts.hidden = attempts.options.length < 2;
  }
  return { node: section("Log", el("div", { class: "bar" }, replicas, attempts, next, count), text), more, attempts: offer };
}

async function showModels(mine) {
  async function refresh() {
    try {
      const found = await ask("api/models");
      if (mine !== drawn) return;
      seen(found.at, found.error);
      const rows = found.models.map((model) => {
        const champion = model.champion || {};
        return el("tr", {}, el("td", { class: "job" }, el("a", { href: `#/model/${part(model.model)}` }, model.model)),
          el("td", { class: "job" }, champion.job_id ? el("a", { href: `#/job/${part(model.model)}/${part(champion.job_id)}` }, champion.job_id) : champion.error || "none yet"),
          el("td", { class: "n" }, percent(champion.accuracy)), el("td", { class: "wide" }, champion.dataset_version || ""), el("td", { class: "wide" }, moment(champion.at), el("small", {}, champion.by || "")),
          el("td", { class: "n" }, String(model.live)), el("td", { class: "n" }, String(model.jobs)));
      });
      redraw(main, JSON.stringify(found.models), () => [table(["model", "champion", "accuracy", "·dataset", "·since", "live", "jobs"], rows, "No models yet.")]);
    } catch (error) { if (mine === drawn) redraw(main, error.message, () => [failed(error)]); }
  }
  await refresh();
  return refresh;
}

async function showModel(mine, name) {
  const path = `api/models/${part(name)}`;
  let model;
  try { model = await ask(path); } catch (error) { if (mine === drawn) main.replaceChildren(failed(error)); return null; }
  if (mine !== drawn) return null;
  seen(Date.now() / 1000, "");
  const champion = model.champion, to = (id) => `#/job/${part(name)}/${part(id)}`;
  const back = (entry) => () => confirmed(`Make ${entry.job_id} the champion of ${name} again?`, `Now it is ${champion.job_id}. Readers of the pointer see the change at once.`, "Roll back",
    async (reason) => { await tell(`${path}/rollback`, { reason, to: entry.serial }); });
  const origin = (entry) => entry.restores ?? entry.serial;
  const history = model.history.map((entry, index) => el("tr", {}, el("td", { class: "n" }, String(entry.serial)), el("td", { class: "job" }, el("a", { href: to(entry.job_id) }, entry.job_id), el("small", {}, entry.why)),
    el("td", {}, entry.action.replaceAll("_", " ")), el("td", { class: "n" }, percent(entry.accuracy)), el("td", { class: "wide" }, entry.dataset.version || ""), el("td", {}, moment(entry.at), el("small", {}, entry.by)),
    el("td", {}, index && model.may_change && origin(entry) !== origin(champion) ? el("button", { type: "button", class: "danger", onclick: back(entry), "aria-label": `Roll back to ${entry.job_id}` }, "Roll back …") : "")));
  main.replaceChildren(
    el("div", { class: "top" }, el("h1", {}, name)),
    champion ? facts([["champion", el("a", { href: to(champion.job_id) }, champion.job_id)], ["accuracy", percent(champion.accuracy)], ["dataset", champion.dataset.version || ""],
      ["since", moment(champion.at)], ["by", champion.by], ["model", code(champion.model_uri)]], "cards") : el("p", { class: "soft" }, "No champion yet."),
    model.points.length ? section("Accuracy over dataset versions", el("div", { class: "plots" }, versions(model.points, to)),
      el("p", { class: "soft" }, "Filled: was champion. Hollow: accepted (green), not compared (amber) or rejected (red). Each dot leads to its job.")) : "",
    model.duel ? duel(model.duel, to) : "",
    section("History", table(["#", "champion", "how", "accuracy", "·dataset", "when, by", ""], history, "Nothing was published yet.")),
  );
  return null;
}

function duel(found, to) {
  const size = (value) => (value ? `${(value / 2 ** 20).toFixed(1)} MiB` : "");
  const line = (what, mine, theirs) => el("tr", {}, el("th", { scope: "row" }, what), el("td", {}, mine || "–"), el("td", {}, theirs || "–"));
  const ms = (value) => (typeof value === "number" ? `${value.toFixed(2)} ms` : "");
  const worst = (values) => (values ? percent(Math.min(...values.filter((value) => typeof value === "number"))) : "");
  const a = found.challenger, b = found.champion, rival = found.rival.job_id;
  const head = el("tr", {}, el("th", {}), el("th", { scope: "col" }, "challenger: ", el("a", { href: to(found.job_id) }, found.job_id)), el("th", { scope: "col" }, rival ? ["champion: ", el("a", { href: to(rival) }, rival)] : "no champion then"));
  return section("Champion and the last challenger", el("p", {}, chip(found.verdict), " ", found.reasons.join(" ")),
    el("div", { class: "scroll" }, el("table", { class: "plain" }, el("thead", {}, head), el("tbody", {}, line("accuracy", percent(a.accuracy), percent(b.accuracy ?? found.rival.accuracy)),
      line("weakest class", worst(a.per_class), worst(b.per_class)), line("latency", ms(a.latency_ms), ms(b.latency_ms)), line("size", size(a.size), size(b.size))))));
}

// --- where we are -----------------------------------------------------------------------------------------------

/** The query that links use becomes a place of the page; `+` is a plus, as Airflow writes run ids. */
function fromQuery() {
  const query = Object.fromEntries(location.search.slice(1).split("&").filter(Boolean).map((pair) => pair.split("=").map(decodeURIComponent)));
  if (location.hash || !location.search) return;
  if (query.dag_id && query.run_id) [filters.dag_id, filters.run_id] = [query.dag_id, query.run_id];
  const [model, id] = (query.job || "").split("/");
  if (id) location.replace(`#/job/${part(model)}/${part(id)}`);
  else if (query.model) location.replace(`#/model/${part(query.model)}`);
}

async function show() {
  const mine = ++drawn;
  delete main.dataset.key;
  clearTimeout(timer);
  const [where, first, second] = (location.hash || "#/jobs").slice(2).split("/").map(decodeURIComponent);
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash.startsWith(`#/${where.replace(/s$/, "")}`)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = first ? `${second || first} · Models & jobs` : "Models & jobs";
  const views = { jobs: showJobs, job: showJob, models: showModels, model: showModel };
  const refresh = await (views[where] || showJobs)(mine, first, second);
  const again = async () => {
    if (mine !== drawn) return;
    if (!document.hidden) await refresh().catch((error) => seen(null, error.message));
    timer = setTimeout(again, 5000);
  };
  if (refresh && mine === drawn) timer = setTimeout(again, 5000);
}

fromQuery();
addEventListener("hashchange", async () => { await show(); main.focus({ preventScroll: true }); });
show();
