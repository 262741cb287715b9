// The server behind the page: whether it is there, what it can do, and the key it wants.

import { Server } from "./api.js";
import { $, el, openDialog } from "./dom.js";
import { clearNotice, notice } from "./notices.js";

const RECONNECT = 5000;
const KEY = "safeladder.key";

export class Connection {
  #timer = null;

  /** `storage` keeps the key; `ready(served)` is called when the server has answered, with what it can do. */
  constructor(storage, ready) {
    this.storage = storage;
    this.ready = ready;
    this.models = [];
    this.server = new Server();
    this.server.key = storage.getItem(KEY) ?? "";
  }

  /** What the chosen model can do; undefined until the server has answered. */
  get served() {
    return (this.models.find(({ id }) => id === $("model").value) ?? this.models[0])?.safeladder;
  }

  async open({ quietly = false } = {}) {
    clearTimeout(this.#timer);
    try {
      this.models = await this.server.models();
    } catch (problem) {
      if (problem.kind === "key") {
        health("key wanted", "gone");
        this.askForKey({ refused: true });
        return;
      }
      if (!quietly) notice(problem.kind, { said: problem.message, again: () => this.open() });
      this.lost();
      return;
    }
    if (["gone", "key"].includes($("notice").dataset.kind)) clearNotice();
    health("ready", "ready");
    const before = $("model").value;
    $("model").replaceChildren(...this.models.map(({ id }) => el("option", { value: id }, id)));
    if (this.models.some(({ id }) => id === before)) $("model").value = before;
    $("model").disabled = this.models.length < 2;
    this.ready(this.served);
  }

  /** The server does not answer: say so, and look for it again. */
  lost() {
    health("not reachable", "gone");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.open({ quietly: true }), RECONNECT);
  }

  /** Opens the dialog of the key; `refused` where the server wants one or another one, `then` is done with it. */
  askForKey({ refused = false, then = () => this.open() } = {}) {
    $("key").value = this.server.key;
    $("key-why").textContent =
      refused && this.server.key ? "The server does not take this key." : "Sent to this server only, and forgotten when the tab closes.";
    $("key-dialog").onclose = () => {
      if ($("key-dialog").returnValue === "use") {
        this.server.key = $("key").value.trim();
        this.storage.setItem(KEY, this.server.key);
        clearNotice();
        then();
      } else if (refused) notice("key", { again: () => this.askForKey({ refused, then }) });
    };
    openDialog("key-dialog");
  }
}

function health(text, state) {
  $("health").textContent = text;
  $("health").dataset.state = state;
}
