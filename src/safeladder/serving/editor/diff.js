// Word differences between two texts.

const LONGEST_TABLE = 4_000_000;
/* A table larger than this is not filled; what lies between the common ends then counts as replaced. */

const SEGMENTER = new Intl.Segmenter(undefined, { granularity: "word" });

/** Words, and single marks; each takes the white space after it along, so that joined they are the text. */
export function words(text) {
  const found = [];
  for (const { segment } of SEGMENTER.segment(text)) {
    if (found.length && segment.trim() === "") found[found.length - 1] += segment;
    else found.push(segment);
  }
  return found;
}

/**
 * The shortest word edit from `before` to `after` (longest common subsequence).
 * Returns runs {kind: "same" | "removed" | "added", text} and how many words each kind has.
 */
export function diff(before, after) {
  const a = words(before);
  const b = words(after);
  const same = (i, j) => a[i].trim() === b[j].trim();
  let start = 0;
  while (start < a.length && start < b.length && same(start, start)) start++;
  let tail = 0;
  while (tail < a.length - start && tail < b.length - start && same(a.length - 1 - tail, b.length - 1 - tail)) tail++;

  const runs = [];
  const count = { same: 0, removed: 0, added: 0 };
  const put = (kind, text) => {
    count[kind]++;
    const last = runs.at(-1);
    if (last?.kind === kind) last.text += text;
    else runs.push({ kind, text });
  };
  for (let j = 0; j < start; j++) put("same", b[j]);
  middle(start, a.length - tail, start, b.length - tail);
  for (let j = b.length - tail; j < b.length; j++) put("same", b[j]);
  return { runs, count, distance: distance(count) };

  function middle(fromA, toA, fromB, toB) {
    const rows = toA - fromA;
    const columns = toB - fromB;
    let i = 0;
    let j = 0;
    if (rows && columns && rows * columns <= LONGEST_TABLE) {
      const width = columns + 1;
      const common = new Uint32Array((rows + 1) * width);
      for (let r = rows - 1; r >= 0; r--) {
        for (let c = columns - 1; c >= 0; c--) {
          common[r * width + c] = same(fromA + r, fromB + c)
            ? common[(r + 1) * width + c + 1] + 1
            : Math.max(common[(r + 1) * width + c], common[r * width + c + 1]);
        }
      }
      while (i < rows && j < columns) {
        if (same(fromA + i, fromB + j)) {
          put("same", b[fromB + j++]);
          i++;
        } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) put("removed", a[fromA + i++]);
        else put("added", b[fromB + j++]);
      }
    }
    while (i < rows) put("removed", a[fromA + i++]);
    while (j < columns) put("added", b[fromB + j++]);
  }
}

/** Share of words that differ: (removed + added) / (removed + added + 2 same); 0 = equal, 1 = nothing in common. */
function distance({ same, removed, added }) {
  const total = removed + added + 2 * same;
  return total ? (removed + added) / total : 0;
}
