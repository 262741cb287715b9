// Versions: every reply, and every edit of one, in a forest; kept in this browser.

export const KEY = "safeladder.editor.versions";
const FORMAT = 1;
const MOST = 200;
const LARGEST_IMAGE = 64 * 1024;
/* Characters of a data URL. A larger image is used but not kept: storage holds a few megabytes. */

export class History {
  constructor(storage) {
    this.storage = storage;
    this.versions = [];
    this.kept = !storage.passing;
    this.own = new Set();
    this.gone = new Set();
    this.merge();
  }

  get(id) {
    return this.versions.find((version) => version.id === id);
  }

  /** Adds a version, or takes note that it has changed. The oldest go where there are too many. */
  put(version) {
    if (!this.get(version.id)) this.versions.push(version);
    this.own.add(version.id);
    this.#save();
  }

  remove(id) {
    this.gone.add(id);
    this.versions = this.versions.filter((version) => version.id !== id);
    this.#save();
  }

  clear() {
    this.merge();
    for (const { id } of this.versions) this.gone.add(id);
    this.versions = [];
    this.#save();
  }

  /** Takes in what other tabs have stored; what was made or changed in this tab stays as it is. */
  merge() {
    const others = this.#stored().filter(({ id }) => !this.own.has(id) && !this.gone.has(id));
    const newer = new Set(others.map(({ id }) => id));
    this.versions = [...this.versions.filter(({ id }) => !newer.has(id)), ...others].sort((a, b) => a.created - b.created);
  }

  /** Another tab has cleared everything; what is streaming here stays. */
  cleared() {
    this.versions = this.versions.filter((version) => version.state === "running");
  }

  /** Versions in reading order with their depth: newest question first, below each what was made of it, oldest first. */
  tree() {
    const known = new Set(this.versions.map((version) => version.id));
    const children = Map.groupBy(this.versions, (version) => (known.has(version.parent) ? version.parent : null));
    const found = [];
    const visit = (version, depth) => {
      found.push({ version, depth });
      for (const child of children.get(version.id) ?? []) visit(child, depth + 1);
    };
    for (const root of [...(children.get(null) ?? [])].reverse()) visit(root, 0);
    return found;
  }

  #stored() {
    try {
      const stored = JSON.parse(this.storage.getItem(KEY) ?? "null");
      return stored?.format === FORMAT && Array.isArray(stored.versions) ? stored.versions.filter(usable) : [];
    } catch {
      return [];
    }
  }

  #save() {
    this.merge();
    if (this.versions.length > MOST) this.versions.splice(0, this.versions.length - MOST);
    const small = this.versions.filter(({ state }) => state !== "running").map((version) => ({
      ...version,
      images: version.images.map(({ name, url }) => ({ name, url: url && url.length <= LARGEST_IMAGE ? url : null })),
    }));
    this.kept = this.#write(small) && !this.storage.passing;
    if (this.storage.passing) return;
    // Images first, then the older half of the versions: what the user wrote is worth most.
    if (!this.kept) this.kept = this.#write(small.map((v) => ({ ...v, images: v.images.map(bare) })));
    if (!this.kept) this.kept = this.#write(small.slice(small.length / 2).map((v) => ({ ...v, images: v.images.map(bare) })));
  }

  #write(versions) {
    try {
      if (versions.length) this.storage.setItem(KEY, JSON.stringify({ format: FORMAT, versions }));
      else this.storage.removeItem(KEY);
      return true;
    } catch {
      return false;
    }
  }
}

function bare({ name }) {
  return { name, url: null };
}

function usable(version) {
  return typeof version?.id === "string" && typeof version.question === "string" && Array.isArray(version.images);
}

/** The browser's storage of this name; where that is forbidden, one that lasts as long as the page. */
export function storage(name) {
  try {
    return window[name];
  } catch {
    const held = new Map();
    return { passing: true, getItem: (key) => held.get(key) ?? null, setItem: (k, v) => held.set(k, v), removeItem: (key) => held.delete(key) };
  }
}
