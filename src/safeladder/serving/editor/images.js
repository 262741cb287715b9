// Images of a question: read from files, the clipboard or a drop, kept as data URLs, shown on canvases
// (a canvas needs no `img-src data:` in the page's security policy).

const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const EDGE = 96;

/** {name, type, size, url} of an image file. Rejects with a sentence where it is none. */
export async function readImage(file) {
  if (!TYPES.includes(file.type)) throw new Error(`${file.name || "This"} is not a PNG, JPEG, WebP or GIF image.`);
  try {
    (await createImageBitmap(file)).close();
  } catch {
    throw new Error(`${file.name || "This image"} cannot be read as an image.`);
  }
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
  return { name: file.name || "pasted image", type: file.type, size: file.size, url };
}

/** Files that are images, of a clipboard or a drop. */
export function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
}

/** A canvas that shows the image; its name where the image itself was not kept. */
export function thumbnail(image) {
  if (!image.url) {
    const missing = document.createElement("span");
    missing.className = "missing";
    missing.textContent = `${image.name} (not kept)`;
    return missing;
  }
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", image.name);
  canvas.title = image.name;
  draw(canvas, image.url);
  return canvas;
}

async function draw(canvas, url) {
  try {
    const bitmap = await createImageBitmap(blobOf(url));
    const scale = Math.min(1, (EDGE * devicePixelRatio) / Math.max(bitmap.width, bitmap.height));
    canvas.width = Math.max(1, Math.round(bitmap.width * scale));
    canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
  } catch {
    canvas.classList.add("missing");
  }
}

function blobOf(url) {
  const [head, data] = url.split(",", 2);
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice("data:".length).split(";")[0] });
}
