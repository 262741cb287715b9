// Making elements. Text goes in as text: nothing here, or anywhere on the page, reads markup.

export const $ = (id) => document.getElementById(id);

/** An element. `props` are properties (`class`, `data-…`, `aria-…`, `role` and `for` are attributes, `on…` listeners). */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (/^(class|role|for|scope|data-.*|aria-.*)$/.test(name)) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat(2).filter((child) => child !== null && child !== undefined));
  return node;
}

/** Shows or hides, with text if there is some. */
export function tell(node, text) {
  node.textContent = text ?? "";
  node.hidden = !text;
}

/** Opens a dialog that has said nothing yet. */
export function openDialog(id) {
  if ($(id).open) return;
  $(id).returnValue = "";
  $(id).showModal();
}

/** Arrow keys move the focus among the list's buttons of this selector. */
export function arrows(list, selector) {
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by || !event.target.matches(selector)) return;
    const all = [...list.querySelectorAll(selector)];
    const next = all[all.indexOf(event.target) + by];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
}

/** Says streamed text to assistive technology a sentence at a time, not letter by letter. */
export class Announcer {
  constructor(region) {
    this.region = region;
    this.waiting = "";
    this.timer = null;
  }

  say(text) {
    this.region.append(el("p", {}, text));
    while (this.region.childElementCount > 3) this.region.firstElementChild.remove();
  }

  stream(text) {
    this.waiting += text;
    this.timer ??= setTimeout(() => this.#flush(false), 1500);
  }

  end(text) {
    this.#flush(true);
    this.say(text);
  }

  #flush(all) {
    clearTimeout(this.timer);
    this.timer = null;
    const end = all ? this.waiting.length : this.waiting.search(/[.!?。！？\n][^.!?。！？\n]*$/) + 1;
    const ready = this.waiting.slice(0, end).trim();
    this.waiting = this.waiting.slice(end);
    if (ready) this.say(ready);
  }
}
