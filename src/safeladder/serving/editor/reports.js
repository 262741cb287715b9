// What a reply reports beside its text: the turns and sources of a search, the trail of value guidance.

import { el } from "./dom.js";

const DID = { search: "searched for", read: "read", answer: "answered" };

/** List items: the turns of a search as they come. */
export function turnItem(turn) {
  const what = turn.action ? `${DID[turn.action]} ` : "malformed turn: ";
  return el(
    "li",
    { class: "turn" },
    turn.thought ? el("p", { class: "thought", dir: "auto" }, turn.thought) : null,
    el(
      "p",
      {},
      el("strong", {}, what),
      turn.action ? turn.argument : turn.problem,
      turn.confidence === null || turn.confidence === undefined ? null : el("span", { class: "quiet" }, ` · confidence ${turn.confidence} of 10`),
    ),
    turn.observation ? el("p", { class: "observation", dir: "auto" }, turn.observation) : null,
  );
}

export function sourceItem({ id, title, read }) {
  return el("li", {}, el("span", { class: "id" }, `[${id}]`), el("span", {}, title, read ? [" ", el("span", { class: "tag" }, "read")] : null));
}

/** The verdict in words: never certain where the search says nothing. */
export function verdictOf({ verdict, confidence }) {
  if (!verdict) return { certain: false, text: "no verdict" };
  return { certain: verdict === "certain", text: `${verdict} · confidence ${confidence} of 10` };
}

/** One decision of guidance as a table: candidates, a column for every value model, the total. */
export function trailTable(rung) {
  const names = Object.keys(rung.weights);
  const head = ["Candidate", ...names.map((name) => `${name} ×\u00a0${rung.weights[name].toFixed(2)}`), "Value", "Total"];
  const row = (candidate) =>
    el(
      "tr",
      { class: candidate.chosen ? "kept" : null },
      el("td", { dir: "auto" }, candidate.text.trim() || "(nothing)", tags(candidate)),
      names.map((name) => el("td", {}, number(candidate.scores[name]))),
      el("td", {}, number(candidate.value)),
      el("td", {}, number(candidate.total)),
    );
  return el(
    "div",
    { class: "rung", role: "region", tabIndex: 0, "aria-label": `Candidates of step ${rung.step}` },
    el(
      "table",
      {},
      el("caption", {}, `Step ${rung.step}${rung.action === "backtrack" ? " · none was good enough: one step back" : ""}`),
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, rung.candidates.map(row)),
    ),
  );
}

function tags({ chosen, proposed, count, ends }) {
  return [chosen && "kept", proposed && "proposed, not the model’s own", count > 1 && `sampled ${count} times`, ends && "ends the reply"]
    .filter(Boolean)
    .flatMap((text) => [" ", el("span", { class: "tag" }, text)]);
}

function number(value) {
  return typeof value === "number" ? value.toFixed(2) : "—";
}

/** "3 decisions · 1 proposed · generated tokens 57 · seconds 0.40", as far as it is known. */
export function trailSummary(trail, cost) {
  const proposed = trail.filter((rung) => rung.candidates.some((c) => c.chosen && c.proposed)).length;
  const parts = [`${trail.length} ${trail.length === 1 ? "decision" : "decisions"}`];
  if (proposed) parts.push(`${proposed} proposed`);
  for (const [name, value] of Object.entries(cost ?? {})) {
    if (value === null) continue;
    parts.push(`${name.replaceAll("_", " ")} ${Number.isInteger(value) ? value : value.toFixed(2)}`);
  }
  return parts.join(" · ");
}
