// The version that is looked at: its question, thinking, answer, reports, and what changed against another one.

import { $, el, tell } from "./dom.js";
import { diff } from "./diff.js";
import { thumbnail } from "./images.js";
import { sourceItem, trailSummary, trailTable, turnItem, verdictOf } from "./reports.js";
import { scoreRow, stepItems, unscoredReasons } from "./steps.js";

const UNSCORED = {
  truncated: "The token limit cut this reply.",
  "unclosed-reasoning": "The thinking never ended.",
  "no-reasoning": "The reply has no thinking.",
  empty: "The model said nothing.",
  malformed: "Tags are left over or out of place in this reply.",
  "no-search-answer": "The search ended without an answer.",
};
const ENDED = {
  stopped: "You stopped this reply.",
  failed: "This reply broke off.",
};
const KINDS = { ask: "Reply", continue: "Continued", "re-answer": "Answered anew" };

/** Why a version is no evidence of a safe answer; empty where it is complete. */
export function incomplete(version) {
  if (version.state === "running") return "";
  const why = ENDED[version.state] ?? UNSCORED[version.report?.unscored] ?? (version.report?.unscored ? "This reply is malformed." : "");
  return why ? `${why} It counts as unscored, never as safe.` : "";
}

/** A line that names a version. */
export function title(version) {
  const name = KINDS[version.kind];
  return version.edit ? `${name} from step ${version.edit.step}`.replace("anew from", "anew with") : name;
}

export function showVersion(version, drafts, handlers) {
  $("empty").hidden = true;
  $("version").hidden = false;
  $("work-title").textContent = title(version);
  $("asked").textContent = version.question;
  $("asked-images").replaceChildren(...version.images.map((image) => el("li", {}, thumbnail(image))));
  $("think-stream").textContent = version.reasoning;
  $("answer").textContent = version.answer;
  $("trail-steps").replaceChildren(...version.trail.map(trailTable));
  $("turns").replaceChildren(...version.turns.map(turnItem));
  showFacts(version);
  showState(version);
  showSteps(version, drafts, handlers);
  showReports(version);
}

/** What a chunk added, without drawing the rest again. */
export function addText(pane, text) {
  $(pane).append(text);
}

export function addRung(version, rung) {
  $("trail-steps").append(trailTable(rung));
  showReports(version);
}

export function addTurn(version, turn) {
  $("turns").append(turnItem(turn));
  if (version.turns.length === 1) $("turns").parentElement.open = true;
  showReports(version);
}

export function showFacts(version) {
  const { options, report, usage } = version;
  const facts = [
    version.model,
    `temperature ${options.temperature}`,
    report ? `seed ${report.seed}` : options.seed === null ? null : `seed ${options.seed}`,
    usage ? `${usage.completion_tokens} tokens` : null,
    version.seconds ? `${version.seconds.toFixed(1)} s` : null,
    (report?.steering ?? options.steer ?? []).map((name) => name.replace("-", " ")).join(", ") || "no steering",
    options.search ? "search" : null,
    report?.edit ? `edit distance ${report.edit.distance.toFixed(2)}` : null,
    report?.edit?.remembered ? "edit remembered" : null,
  ];
  const unused = report?.ignored?.length ? `Guidance samples in its own way; not used: ${report.ignored.join(", ").replaceAll("_", " ")}.` : "";
  tell($("ignored"), unused);
  tell($("memory-note"), memoryNote(report?.edits));
  $("facts").replaceChildren(...facts.filter(Boolean).map((fact) => el("span", {}, fact)));
}

/** What became of the edit memory, in one line. */
function memoryNote(report) {
  if (!report) return "";
  const percent = (share) => `${Math.round(100 * share)} %`;
  const needed = typeof report.needed === "number" ? `, ${percent(report.needed)} needed` : "";
  const support = report.forced
    ? " The model never says so of itself: it was written in as people wrote it."
    : typeof report.support === "number"
      ? ` Support by the model’s own samples: ${percent(report.support)}${needed}.`
      : "";
  if (!report.applied) {
    const place = report.step ? ` (step ${report.step}, “${report.original}”)` : "";
    return `No remembered edit applied: ${report.outcome}${place}.${report.forced ? "" : support}`;
  }
  const change = report.edited ? `“${report.original}” became “${report.edited}”` : `“${report.original}” was left out`;
  return `Remembered edit applied to step ${report.step}: ${change}.${support}`;
}

export function showState(version) {
  const running = version.state === "running";
  const thinking = running && !version.answer;
  mark("think-state", thinking ? ["running", version.reasoning ? "thinking" : "waiting"] : thoughtState(version));
  mark("answer-state", running && version.answer ? ["running", "answering"] : ["", ""]);
  $("think-stream").ariaBusy = String(thinking);
  $("answer").ariaBusy = String(running && !thinking);
  tell($("answer-none"), incomplete(version));
  tell($("think-none"), running || version.reasoning ? "" : version.turns.length ? "See the turns of the search below." : "No thinking.");
}

function thoughtState(version) {
  if (version.state === "stopped") return ["stopped", "stopped"];
  if (version.state === "failed") return ["cut", "broken off"];
  if (version.report?.unscored === "truncated" || version.report?.unscored === "unclosed-reasoning") return ["cut", "cut short"];
  return ["", version.steps ? `${version.steps.length} ${version.steps.length === 1 ? "step" : "steps"}` : ""];
}

function mark(id, [kind, text]) {
  $(id).dataset.kind = kind;
  $(id).textContent = text;
}

/** Numbered steps instead of running text, once they are known. */
export function showSteps(version, drafts, handlers) {
  const known = version.state !== "running" && Boolean(version.steps?.length);
  $("steps").hidden = !known;
  $("think-stream").hidden = known;
  $("steps").replaceChildren(...(known ? stepItems(version, drafts, handlers) : []));
  $("step-tools").hidden = known || version.state === "running" || !version.reasoning;
  $("confirm-tools").hidden = !known || version.state !== "done" || !handlers.remembers || Boolean(handlers.may);
  tell($("confirmed"), version.confirmed ?? "");
  $("answer-scores").replaceChildren(...[scoreRow(known ? version.answerScores : null, version.trail[0]?.weights)].filter(Boolean));
  const rows = known ? [...version.steps.map(({ scores }) => scores), version.answerScores] : [];
  tell($("unscored"), unscoredReasons(rows).join("\n"));
  if (version.state !== "running") showState(version);
}

function showReports(version) {
  const search = version.report?.search;
  $("search-pane").hidden = !search && !version.turns.length;
  if (search) {
    const { certain, text } = verdictOf(search);
    tell($("verdict"), text);
    $("verdict").classList.toggle("certain", certain);
    tell($("search-problem"), search.problem);
    $("source-list").replaceChildren(...search.sources.map(sourceItem));
    tell($("no-sources"), search.sources.length ? "" : "No sources were found.");
  } else {
    tell($("verdict"), "");
    tell($("search-problem"), "");
    tell($("no-sources"), "");
    $("source-list").replaceChildren();
  }
  $("trail").hidden = !version.trail.length;
  $("trail-sum").textContent = trailSummary(version.trail, version.report?.cost);
}

export function showDiff(version, other) {
  $("diff-sum").textContent = "";
  for (const [pane, key] of [["diff-think", "reasoning"], ["diff-answer", "answer"]]) {
    const found = diff(other[key].trim(), version[key].trim());
    $(pane).replaceChildren(...found.runs.map(({ kind, text }) => (kind === "same" ? text : el(kind === "added" ? "ins" : "del", {}, text))));
    if (!found.runs.length) $(pane).append(el("span", { class: "quiet" }, "Empty in both."));
    const { added, removed } = found.count;
    const sum = added || removed ? `${added} added, ${removed} removed (distance ${found.distance.toFixed(2)})` : "no change";
    $("diff-sum").append(el("span", {}, `${key === "answer" ? "Answer" : "Thinking"}: ${sum}`));
  }
}
