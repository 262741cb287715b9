// The editor page: state, and what the user's actions do to it.

import { Problem } from "./api.js";
import { Connection } from "./connection.js";
import { $, Announcer, arrows, el, openDialog } from "./dom.js";
import { chosen, offer, restore, wireForm, written } from "./form.js";
import { History, KEY as VERSIONS, storage } from "./history.js";
import { clearNotice, complain, notice } from "./notices.js";
import { addRung, addText, addTurn, incomplete, showDiff, showFacts, showState, showSteps, showVersion, title } from "./reply.js";

const THEME = "safeladder.theme";

const lasting = storage("localStorage");
const connection = new Connection(storage("sessionStorage"), (served) => {
  offer(served);
  if (current && !running) show(current);
});
const history = new History(lasting);
const announcer = new Announcer($("live"));
const drafts = new Map();
/* Version id -> step number -> text that was not sent. */
let current = null;
let running = null;
/* The AbortController of the reply that is streaming. */

// Asking and editing -----------------------------------------------------------------------------------------------

function ask() {
  const asked = written();
  if (!asked || running || !ready()) return;
  const version = create({ kind: "ask", parent: null, ...asked });
  run(version, "v1/chat/completions", { ...sampling(version), messages: messagesOf(version) }, ask);
}

function edit(parent, step, text, mode, remember) {
  if (uneditable(parent)) {
    complain(uneditable(parent));
    return;
  }
  const options = chosen();
  if (!options || running || !ready()) return;
  const { question, images } = parent;
  const version = create({
    kind: mode,
    parent: parent.id,
    question,
    images,
    // An edited chain is continued plainly or under treble.
    options: { ...options, steer: options.steer.filter((name) => name === "treble"), search: false, edits: false },
    edit: { step: step.step, before: step.text, text },
  });
  const body = { messages: messagesOf(parent), reasoning: parent.reasoning, step: step.step, text, mode };
  body.remember = remember && text !== step.text.trim(); // an edit that changes nothing teaches nothing
  const applied = parent.report?.edits;
  body.undo = body.remember && Boolean(applied?.applied) && applied.step === step.step && text === applied.original.trim();
  const again = () => {
    show(parent);
    edit(parent, step, text, mode, remember);
  };
  run(version, "v1/safeladder/edit", { ...sampling(version), ...body }, again);
}

function ready() {
  if (!connection.models.length) complain("The server is not reachable yet.");
  return connection.models.length > 0;
}

function create(fields) {
  return {
    id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`,
    created: Date.now(),
    model: $("model").value,
    state: "running",
    reasoning: "",
    answer: "",
    steps: null,
    answerScores: null,
    trail: [],
    turns: [],
    report: null,
    usage: null,
    seconds: 0,
    edit: null,
    ...fields,
  };
}

function sampling({ model, options }) {
  const { temperature, tokens, seed, steer, search, edits } = options;
  const body = { model, temperature, safeladder: { steer, search, edits, trail: true } };
  if (tokens !== null) body.max_completion_tokens = tokens;
  if (seed !== null) body.seed = seed;
  return body;
}

function messagesOf({ question, images }) {
  const pictures = images.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return [{ role: "user", content: [...pictures, { type: "text", text: question }] }];
}

async function run(version, path, body, again) {
  clearNotice();
  const before = current;
  const started = performance.now();
  running = new AbortController();
  history.put(version);
  show(version);
  busy(true);
  if (version.edit) $("work").focus({ preventScroll: true }); // what had the focus is gone with the step's editor
  if ($("work").getBoundingClientRect().top > innerHeight / 2) $("work").scrollIntoView();
  announcer.say("Waiting for the reply.");
  try {
    version.usage = await connection.server.stream(path, body, { signal: running.signal, onChoice: (choice) => take(version, choice) });
    if (!version.report) throw new Problem("cut");
    version.state = "done";
  } catch (problem) {
    failed(version, problem, before, again);
  }
  running = null;
  busy(false);
  version.seconds = (performance.now() - started) / 1000;
  if (!history.get(version.id)) return;
  if (version.edit && version.state === "done") drafts.get(version.parent)?.delete(version.edit.step);
  history.put(version);
  if (current === version) show(version);
  else listVersions();
  announcer.end([incomplete(version), version.answer ? `Answer: ${version.answer}` : ""].filter(Boolean).join(" "));
  if (version.reasoning) await score(version);
}

/** Takes in what a chunk adds to a version. */
function take(version, { delta, finish_reason: finish, safeladder }) {
  const shown = current === version;
  if (delta.reasoning_content) {
    version.reasoning += delta.reasoning_content;
    if (shown) addText("think-stream", delta.reasoning_content);
    announcer.stream(delta.reasoning_content);
  }
  if (delta.content) {
    version.answer += delta.content;
    if (shown) addText("answer", delta.content);
  }
  if (finish) {
    const { trail, search, ...report } = safeladder ?? {};
    version.report = safeladder ? { ...report, finish, search: search && { ...search, turns: undefined } } : null;
    version.trail = trail ?? version.trail;
    version.turns = search?.turns ?? version.turns;
  } else {
    if (safeladder?.step) {
      version.trail.push(safeladder.step);
      if (shown) addRung(version, safeladder.step);
    }
    if (safeladder?.turn) {
      version.turns.push(safeladder.turn);
      if (shown) addTurn(version, safeladder.turn);
    }
  }
  if (shown) showState(version);
}

function failed(version, problem, before, again) {
  version.state = problem.kind === "stopped" ? "stopped" : "failed";
  const something = version.reasoning || version.answer || version.turns.length;
  if (!something) {
    history.remove(version.id);
    if (current === version) before && history.get(before.id) ? show(before) : showNothing();
  }
  if (problem.kind === "stopped") announcer.say("Stopped.");
  else if (problem.kind === "key") connection.askForKey({ refused: true, then: again });
  else notice(problem.kind, { said: problem.message, retryAfter: problem.retryAfter, again });
  if (problem.kind === "gone") connection.lost();
}

/** Has the server split a version's reasoning and score the steps. */
async function score(version) {
  if (missing(version)) return;
  // A version of an earlier server may name a model that this one does not have.
  const model = connection.models.some(({ id }) => id === version.model) ? version.model : $("model").value;
  const body = { model, messages: messagesOf(version), reasoning: version.reasoning };
  if (version.state === "done" && version.answer) body.answer = version.answer;
  try {
    const { steps, answer } = await connection.server.steps(body);
    version.steps = steps;
    version.answerScores = answer;
  } catch (problem) {
    notice("steps", { said: problem.message, again: () => score(version), mild: true });
    return;
  }
  if (!history.get(version.id)) return;
  history.put(version);
  if (current?.id === version.id) {
    current = version;
    steps(version);
  }
}

/** Has the server remember that a version's thinking is right as it is. */
async function confirm(version) {
  $("confirm").disabled = true;
  try {
    const body = { model: version.model, messages: messagesOf(version), reasoning: version.reasoning };
    const { length } = await connection.server.confirm(body);
    version.confirmed = length
      ? `${length} ${length === 1 ? "step" : "steps"} remembered as right.`
      : "Nothing to remember: no edit would have changed these steps.";
    history.put(version);
    if (current?.id === version.id) steps(version);
  } catch (problem) {
    notice(problem.kind, { said: problem.message, retryAfter: problem.retryAfter, again: () => confirm(version), mild: true });
  } finally {
    $("confirm").disabled = false;
  }
}

/** Why a version cannot be worked on; empty where it can. An image that was not kept may not be left out silently. */
function missing(version) {
  return version.images.some((image) => !image.url)
    ? "The image of this question was too large to be kept. Add it again and ask anew to edit the steps."
    : "";
}

function uneditable(version) {
  // What the search was told is not part of the reasoning: the model would go on without its sources.
  if (version.options.search) return "The steps of a search cannot be edited.";
  return missing(version);
}

// Showing ----------------------------------------------------------------------------------------------------------

function show(version) {
  current = version;
  showVersion(version, draftsOf(version), handlersOf(version));
  view("reply");
  listVersions();
}

function steps(version) {
  showSteps(version, draftsOf(version), handlersOf(version));
  showFacts(version);
}

function handlersOf(version) {
  return {
    act: (step, text, mode, remember) => edit(version, step, text, mode, remember),
    may: uneditable(version),
    remembers: Boolean(connection.served?.edits),
  };
}

function draftsOf(version) {
  if (!drafts.has(version.id)) drafts.set(version.id, new Map());
  return drafts.get(version.id);
}

function showNothing() {
  current = null;
  $("version").hidden = true;
  $("empty").hidden = false;
  listVersions();
}

/** "reply" or "diff". */
function view(which) {
  const others = history.versions.filter((v) => v !== current && v.question === current.question);
  const byDefault = history.get(current.parent) ?? others.findLast((v) => v.created < current.created) ?? others[0];
  const diffing = which === "diff" && Boolean(byDefault);
  $("show-diff").disabled = !byDefault;
  $("show-diff").title = byDefault ? "" : "There is no other version of this question yet";
  $("show-reply").ariaPressed = String(!diffing);
  $("show-diff").ariaPressed = String(diffing);
  $("reply").hidden = diffing;
  for (const id of ["diff", "against", "against-label"]) $(id).hidden = !diffing;
  if (!diffing) return;
  $("against").replaceChildren(...others.map((v) => el("option", { value: v.id, selected: v === byDefault }, `${title(v)}, ${clock(v)}`)));
  showDiff(current, byDefault);
}

function clock({ created }) {
  return new Date(created).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function listVersions() {
  const items = history.tree().map(({ version, depth }) =>
    el(
      "li",
      { "data-depth": depth, "--depth": Math.min(depth, 6) },
      el(
        "button",
        { type: "button", "aria-current": version === current ? "true" : null, onclick: () => show(version), "data-id": version.id },
        el("span", { class: "title", dir: "auto" }, version.parent ? title(version) : version.question),
        el("span", { class: "what" }, clock(version), flag(version)),
      ),
    ),
  );
  const focused = $("versions").contains(document.activeElement) ? document.activeElement.dataset.id : null;
  $("versions").replaceChildren(...items);
  if (focused) $("versions").querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  $("clear").hidden = !items.length;
  $("history-hint").textContent = history.kept
    ? "Every reply and every edit of it stays here, in this browser only."
    : "The browser’s storage is full: some versions or images will be gone when the page is loaded again.";
}

function flag(version) {
  if (version.state === "running") return el("span", {}, "running");
  if (version.state === "stopped" || version.state === "failed") return el("span", { class: "flag" }, version.state === "stopped" ? "stopped" : "broken off");
  return version.report?.unscored ? el("span", { class: "flag" }, version.report.unscored.replaceAll("-", " ")) : null;
}

function busy(is) {
  $("send").disabled = is;
  $("stop").hidden = !is;
}

// Wiring -----------------------------------------------------------------------------------------------------------

function stop() {
  running?.abort();
}

function toggleDiff() {
  if (current && !$("show-diff").disabled) view($("diff").hidden ? "diff" : "reply");
}

function neighbour(by) {
  const order = history.tree().map(({ version }) => version);
  const next = order[order.indexOf(current) + by];
  if (next) show(next);
}

function shortcuts(event) {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && running) {
    stop();
    return;
  }
  const writing = event.target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select");
  if (writing || event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    "/": () => $("question").focus(),
    "?": () => openDialog("help-dialog"),
    d: toggleDiff,
    "[": () => neighbour(-1),
    "]": () => neighbour(1),
  };
  const step = /^[1-9]$/.test(event.key) && $("steps").querySelector(`[data-step="${event.key}"] :is(.edit, textarea)`);
  if (!actions[event.key] && !step) return;
  event.preventDefault();
  if (step) step.focus();
  else actions[event.key]();
}

function wire() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("ask").noValidate = true;
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      ask();
    }
  });
  $("stop").addEventListener("click", stop);
  $("dismiss").addEventListener("click", clearNotice);
  $("rescore").addEventListener("click", () => current && score(current));
  $("confirm").addEventListener("click", () => current && confirm(current));
  $("again").addEventListener("click", () => {
    restore(current);
    $("question").focus();
  });
  $("show-reply").addEventListener("click", () => view("reply"));
  $("show-diff").addEventListener("click", () => view("diff"));
  $("against").addEventListener("change", () => showDiff(current, history.get($("against").value)));
  $("model").addEventListener("change", () => offer(connection.served));
  $("open-key").addEventListener("click", () => connection.askForKey());
  $("open-help").addEventListener("click", () => openDialog("help-dialog"));
  $("clear").addEventListener("click", () => openDialog("clear-dialog"));
  $("clear-dialog").addEventListener("close", () => {
    if ($("clear-dialog").returnValue !== "clear") return;
    stop();
    history.clear();
    drafts.clear();
    showNothing();
    $("question").focus();
    announcer.say("All versions are cleared.");
  });
  document.addEventListener("keydown", shortcuts);
  addEventListener("storage", ({ key, newValue }) => {
    if (key !== VERSIONS) return;
    if (newValue === null) history.cleared();
    else history.merge();
    const now = current && history.get(current.id);
    if (current && !now) showNothing();
    else if (now !== current) show(now);
    else listVersions();
  });
  addEventListener("pagehide", () => {
    const unfinished = history.versions.find(({ state }) => state === "running");
    if (unfinished) history.put(Object.assign(unfinished, { state: "failed" }));
  });
  arrows($("steps"), ".edit");
  arrows($("versions"), "button");
  wireForm();
  wireTheme();
}

function wireTheme() {
  const root = document.documentElement;
  const radio = document.querySelector(`[name=theme][value=${root.dataset.theme ?? "auto"}]`);
  radio.checked = true;
  $("theme").addEventListener("change", ({ target }) => {
    if (target.value === "auto") {
      delete root.dataset.theme;
      lasting.removeItem(THEME);
    } else {
      root.dataset.theme = target.value;
      lasting.setItem(THEME, target.value);
    }
  });
}

wire();
const newest = history.tree()[0]?.version;
if (newest) show(newest);
else showNothing();
connection.open();
