// One place for what went wrong: a sentence, what the server said, and what can be done.

import { $ } from "./dom.js";

const TEXTS = {
  gone: ["The server does not answer.", "Is it still running?"],
  cut: ["The connection was lost.", "What had arrived is kept and marked as broken off."],
  key: ["The server wants an API key.", "Give a key, then try again."],
  large: ["This is too large for the server.", "Remove an image, or take a smaller one."],
  busy: ["The server has too much to do.", ""],
  timeout: ["The time was up.", "Ask for fewer tokens, or try again."],
  refused: ["The server refused this request.", ""],
  server: ["The server failed.", ""],
  steps: ["The steps could not be scored.", ""],
};

let clock = null;

/** Shows a problem. `again`, if given, is what the button does; with `retryAfter` it can be used after these seconds. */
export function notice(kind, { said = "", retryAfter = null, again = null, mild = false } = {}) {
  const [what, advice] = TEXTS[kind];
  $("notice-title").textContent = what;
  $("notice-text").textContent = [said && sentence(said), advice].filter(Boolean).join(" ");
  $("notice").classList.toggle("mild", mild);
  $("notice").dataset.kind = kind;
  $("notice").hidden = false;
  clearInterval(clock);
  const retry = $("retry");
  retry.hidden = !again;
  retry.onclick = () => {
    clearNotice();
    again();
  };
  let left = retryAfter ?? 0;
  const tick = () => {
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(clock);
  };
  tick();
  if (left > 0) clock = setInterval(tick, 1000);
}

/** A mistake of the user's own, found before anything was sent. */
export function complain(text) {
  clearNotice();
  $("notice-title").textContent = text;
  $("notice-text").textContent = "";
  $("retry").hidden = true;
  $("notice").dataset.kind = "input";
  $("notice").classList.add("mild");
  $("notice").hidden = false;
}

export function clearNotice() {
  clearInterval(clock);
  $("notice").hidden = true;
}

function sentence(text) {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
