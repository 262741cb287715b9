// The question that is being written: text, images, options.

import { $, el } from "./dom.js";
import { imagesOf, readImage, thumbnail } from "./images.js";
import { complain } from "./notices.js";

const STEERING = { "value-guidance": "Value guidance", treble: "Treble directions" };

let images = [];
let allowed = 1;

/** Shows what the server can do; what was chosen before stays chosen. */
export function offer(served) {
  const off = new Set([...$("steering").querySelectorAll("input:not(:checked)")].map((box) => box.value));
  allowed = served.images ? served.max_images : 0;
  $("drop").hidden = !served.images;
  $("tokens").placeholder = String(served.max_tokens);
  $("tokens").max = served.max_tokens;
  $("search-choice").hidden = !served.search;
  $("memory-choice").hidden = !served.edits;
  $("steering").hidden = !served.steer.length;
  const boxes = served.steer.map((name) =>
    el("label", {}, el("input", { type: "checkbox", value: name, checked: !off.has(name) }), STEERING[name] ?? name),
  );
  $("steering").replaceChildren(el("legend", {}, "Steering"), ...boxes);
  fit(null);
}

/** What goes together: a search or remembered edits, not both, and value guidance with neither. */
function fit(changed) {
  if (changed === $("search") && changed.checked) $("memory").checked = false;
  if (changed === $("memory") && changed.checked) $("search").checked = false;
  const guidance = $("steering").querySelector("[value=value-guidance]");
  if (!guidance) return;
  const other = wanted("search") ? "a search" : wanted("memory") ? "remembered edits" : "";
  guidance.disabled = Boolean(other);
  guidance.parentElement.title = other ? `Not together with ${other}` : "";
}

function wanted(id) {
  return !$(`${id}-choice`).hidden && $(id).checked;
}

/** {question, images, options} as they stand; null, and a complaint, where they cannot be sent. */
export function written() {
  const question = $("question").value.trim();
  const options = chosen();
  if (!options) return null;
  if (!question) {
    complain("Write a question first.");
    $("question").focus();
    return null;
  }
  return { question, images: [...images], options };
}

/** The options as they stand; null, and a complaint, where one is out of range. */
export function chosen() {
  for (const id of ["temperature", "tokens", "seed"]) {
    const input = $(id);
    if (!input.checkValidity()) {
      complain(`${input.labels[0].textContent}: ${input.validationMessage}`);
      input.focus();
      return null;
    }
  }
  const number = (id) => ($(id).value === "" ? null : $(id).valueAsNumber);
  return {
    temperature: number("temperature"),
    tokens: number("tokens"),
    seed: number("seed"),
    steer: [...$("steering").querySelectorAll("input:checked:enabled")].map((box) => box.value),
    search: wanted("search"),
    edits: wanted("memory"),
  };
}

/** Puts a version's question and images back, to be asked again. */
export function restore(version) {
  $("question").value = version.question;
  images = version.images.filter((image) => image.url);
  draw();
}

export function wireForm() {
  $("extras").addEventListener("change", ({ target }) => fit(target));
  $("file").addEventListener("change", async () => {
    await add([...$("file").files]);
    $("file").value = "";
  });
  document.addEventListener("paste", (event) => {
    const found = imagesOf(event.clipboardData);
    if (found.length) {
      event.preventDefault();
      add(found);
    }
  });
  const over = (event, is) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    $("drop").classList.toggle("over", is);
  };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    if (event.dataTransfer?.files.length) add([...event.dataTransfer.files]);
  });
}

async function add(files) {
  for (const file of files) {
    if (images.length >= allowed) {
      complain(allowed ? `At most ${allowed} ${allowed === 1 ? "image" : "images"} a question.` : "This model sees no images.");
      break;
    }
    try {
      images.push(await readImage(file));
    } catch (error) {
      complain(error.message);
    }
  }
  draw();
}

function draw() {
  $("thumbnails").replaceChildren(
    ...images.map((image) =>
      el(
        "li",
        {},
        thumbnail(image),
        el(
          "button",
          {
            type: "button",
            "aria-label": `Remove ${image.name}`,
            onclick: () => {
              images = images.filter((other) => other !== image);
              draw();
              $("file").focus();
            },
          },
          "✕",
        ),
      ),
    ),
  );
}
