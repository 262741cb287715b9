// The server's JSON over HTTP: models, streamed replies, scores of steps. See docs/serving.md of safeladder.

const SLACK = 10_000;
/* Milliseconds beyond the server's own time limit until the page gives up on it. */
const QUIET = 120_000;
/* Milliseconds to wait where the server's limit is not known. */

/** A request that did not work out. `kind` says which of the page's messages fits, `message` what the server said. */
export class Problem extends Error {
  constructor(kind, message = "", { status = null, retryAfter = null } = {}) {
    super(message);
    this.kind = kind;
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const KINDS = { 401: "key", 408: "timeout", 413: "large", 429: "busy", 503: "busy", 504: "timeout" };
const TYPES = { authentication_error: "key", rate_limit_error: "busy", timeout_error: "timeout", server_error: "server" };

export class Server {
  constructor() {
    this.key = "";
    this.limit = QUIET;
  }

  /** The models that are served, each with what it can do. */
  async models() {
    const list = await this.#json("v1/models", {});
    const models = (list?.data ?? []).filter((card) => card.safeladder);
    if (!models.length) throw new Problem("server", "it serves no model of safeladder");
    this.limit = models[0].safeladder.max_seconds * 1000 + SLACK || QUIET;
    return models;
  }

  /** Steps of a reasoning with their scores: {steps, answer}. */
  steps(body, signal) {
    return this.#json("v1/safeladder/steps", { body, signal });
  }

  /** Says that a reasoning is right as it is; resolves with the steps that were remembered for it. */
  async confirm(body) {
    return (await this.#json("v1/safeladder/confirm", { body })).data;
  }

  /**
   * A streamed reply. `onChoice(choice)` is called with what each chunk adds. Resolves with the usage (null where the
   * server says none) once the stream has ended as it should; rejects with a `Problem` in every other case.
   */
  async stream(path, body, { signal, onChoice }) {
    const [guarded, expired, done] = this.#guard(signal);
    try {
      const response = await this.#send(path, { ...body, stream: true, stream_options: { include_usage: true } }, guarded);
      let usage = null;
      let ended = false;
      for await (const data of events(response.body)) {
        if (data === "[DONE]") {
          ended = true;
          break;
        }
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Problem(TYPES[chunk.error.type] ?? "refused", chunk.error.message);
        usage = chunk.usage ?? usage;
        for (const choice of chunk.choices) onChoice(choice);
      }
      if (!ended) throw new Problem("cut");
      return usage;
    } catch (error) {
      throw this.#problem(error, signal, expired, "cut");
    } finally {
      done();
    }
  }

  async #json(path, { body, signal }) {
    const [guarded, expired, done] = this.#guard(signal);
    try {
      return await (await this.#send(path, body, guarded)).json();
    } catch (error) {
      throw this.#problem(error, signal, expired, "server");
    } finally {
      done();
    }
  }

  /** The caller's signal, and one of our own that fires when the time is up. */
  #guard(signal) {
    const clock = new AbortController();
    const timer = setTimeout(() => clock.abort(), this.limit);
    const both = signal ? AbortSignal.any([signal, clock.signal]) : clock.signal;
    return [both, () => clock.signal.aborted, () => clearTimeout(timer)];
  }

  async #send(path, body, signal) {
    const headers = {};
    if (body) headers["Content-Type"] = "application/json";
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem("gone");
    }
    if (response.ok) return response;
    const said = await response.json().then((reply) => reply?.error?.message, () => "");
    const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
    throw new Problem(KINDS[response.status] ?? (response.status >= 500 ? "server" : "refused"), said || "", {
      status: response.status,
      retryAfter: Number.isFinite(retryAfter) ? retryAfter : null,
    });
  }

  #problem(error, signal, expired, otherwise) {
    if (signal?.aborted) return new Problem("stopped");
    if (expired()) return new Problem("timeout");
    if (error instanceof Problem) return error;
    return new Problem(otherwise, otherwise === "server" ? "its reply could not be read" : "");
  }
}

/** The data of server-sent events, one by one. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (lines.length) yield lines.map((line) => line.slice("data:".length).trimStart()).join("\n");
    }
  }
}
