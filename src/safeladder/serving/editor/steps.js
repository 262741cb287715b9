// The numbered steps of a reasoning: scores, and editing in place.

import { el } from "./dom.js";

const LOW = 0.5;
const LEAST = 0.05;
/* A value model with less weight was not asked about this kind of question: its score means little. */
const BAD = /^(unsafe|harmful|wrong|incorrect|failed)$/;
const NEUTRAL = /refusal/;
/* A refusal is neither good nor bad in itself: its score is never marked. */

/**
 * A row of scores, {name: {value, label}}; what could not be judged is shown as such and never as a number.
 *
 * `weights` are those that guidance gave its value models for this question, if it was on.
 */
export function scoreRow(scores, weights) {
  const names = Object.keys(scores ?? {});
  if (!names.length) return null;
  return el("div", { class: "scores" }, names.map((name) => score(name, scores[name], weights?.[name.replace("value-model-", "")])));
}

function score(name, { value, label }, weight = 1) {
  const shown = name.replaceAll("-", " ");
  if (value === null) return el("span", { class: "score unscored", title: label }, `${shown} unscored`);
  // A judge's own verdict counts where it gives one: its threshold need not be the middle.
  const aside = weight < LEAST;
  const low = !aside && !NEUTRAL.test(name) && (label ? BAD.test(label) : value < LOW);
  return el(
    "span",
    { class: low ? "score low" : "score" },
    `${shown} ${value.toFixed(2)}`,
    el("i", { "aria-hidden": "true", "--value": value }),
    aside ? " no weight here" : label ? ` ${label}` : low ? el("span", { class: "hidden" }, " low") : null,
  );
}

/**
 * Why scores are missing, a line each: "safety, value unscored: …". Reasons that differ in a number only are told once,
 * by the first; each score's own reason is its title.
 */
export function unscoredReasons(rows) {
  const found = new Map();
  for (const [name, { value, label }] of rows.flatMap((scores) => Object.entries(scores ?? {}))) {
    if (value !== null || !label) continue;
    const kind = label.replace(/\d+/g, "#");
    const entry = found.get(kind) ?? { label, names: new Set() };
    found.set(kind, entry);
    entry.names.add(name.replaceAll("-", " "));
  }
  return [...found.values()].map(({ label, names }) => `${[...names].join(", ")} unscored: ${label}.`);
}

/**
 * Items of the list of steps.
 *
 * `drafts` maps a step's number to its unsent text, an open editor each. `act(step, text, mode)` sends an edit;
 * `may` says why editing is not possible, or is empty.
 */
export function stepItems(version, drafts, { act, may, remembers }) {
  return version.steps.map((step) => stepItem(step, version, drafts, { act, may, remembers }));
}

function stepItem(step, version, drafts, handlers) {
  const changed = version.edit?.step === step.step;
  const item = el("li", { class: changed ? "step changed" : "step", "data-step": step.step });
  const number = el("span", { class: "number", "aria-hidden": "true" }, String(step.step));

  const read = () => {
    const edit = el(
      "button",
      {
        type: "button",
        class: "edit plain",
        "aria-label": `Edit step ${step.step}`,
        title: handlers.may || null,
        onclick: () => {
          drafts.set(step.step, step.text.trim());
          write().focus();
        },
      },
      "Edit",
    );
    const text = el("p", { class: "text", dir: "auto" }, step.text.trim(), changed ? [" ", el("span", { class: "tag" }, "edited")] : null);
    item.replaceChildren(number, el("div", {}, text, scoreRow(step.scores, version.trail[0]?.weights)), edit);
    return edit;
  };

  const write = () => {
    const area = el("textarea", {
      rows: 3,
      value: drafts.get(step.step),
      dir: "auto",
      "aria-label": `Step ${step.step}`,
      oninput: () => drafts.set(step.step, area.value),
    });
    const keys = (event) => {
      if (event.key === "Escape") back();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event.shiftKey ? "re-answer" : "continue");
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    const remember = el("input", { type: "checkbox" });
    const send = (mode) => handlers.act(step, area.value.trim(), mode, handlers.remembers && remember.checked);
    const back = () => {
      drafts.delete(step.step);
      read().focus();
    };
    const button = (label, title, onclick, kind = "") =>
      el("button", { type: "button", class: kind, title, onclick, disabled: Boolean(handlers.may && kind !== "plain") }, label);
    item.replaceChildren(
      number,
      el(
        "div",
        { class: "step-editor", onkeydown: keys },
        area,
        el(
          "div",
          { class: "row" },
          button("Continue", "Keep the steps up to this one; the model writes the rest (Ctrl Enter)", () => send("continue"), "primary"),
          button("Re-answer", "Keep all other steps; the model writes the answer only (Ctrl Shift Enter)", () => send("re-answer")),
          button("Put back", "Esc", back, "plain"),
          handlers.remembers ? el("label", {}, remember, " Remember this edit") : null,
        ),
        handlers.may ? el("p", { class: "quiet" }, handlers.may) : null,
      ),
    );
    return area;
  };

  if (drafts.has(step.step)) write();
  else read();
  return item;
}
