/** What one does with the file of a picture: open, download, copy it, show it in its folder. */

import { showInFolder } from "../page/api.js";
import { copyText } from "../page/clipboard.js";
import { t } from "../page/i18n.js";
import { emit } from "../page/store.js";
import { addressIn, canShow, wholeAddress } from "../query/picture.js";

const LARGEST = 4096; // pixels of the long side of a copied picture: a PNG of some 30 MB

const say = (key, kind = "info") => emit("toast", { text: t(key), kind });

/** Point the links that open and download a picture to it; `isConverted` if browsers cannot show it. */
export function showLinks({ open, download }, hit, isConverted) {
  const original = addressIn("original", hit);
  open.href = isConverted ? wholeAddress(hit) : original;
  open.querySelector("span").textContent = t(`detail.open_${isConverted ? "jpeg" : "original"}`);
  open.title = isConverted ? t("detail.open_jpeg_title") : "";
  download.href = `${original}?download=1`;
}

export async function copyPath(path) {
  await copyText(path).then(
    () => say("detail.path_copied"),
    () => say("copy.refused", "error"),
  );
}

let isShowing = false;

/** Have the server open the file manager of its desktop, which is this one. */
export async function showFile(id) {
  if (isShowing) return;
  isShowing = true;
  try {
    await showInFolder(id);
    say("detail.shown");
  } catch (error) {
    emit("toast", { text: error.message, kind: "error" });
  } finally {
    isShowing = false;
  }
}

/** Put a picture on the clipboard, as PNG, which is all that browsers take. */
export async function copyImage(hit) {
  const isAble = window.isSecureContext && navigator.clipboard?.write && window.ClipboardItem;
  if (!isAble) return say("copy.no_images", "error");
  say("copy.preparing");
  let isRead = true;
  const made = png(hit).catch((error) => {
    isRead = false;
    throw error;
  });
  made.catch(() => {}); // a browser that refuses does not wait for it
  try {
    // The promise, not its value: Safari allows this only at once after a click.
    await navigator.clipboard.write([new ClipboardItem({ "image/png": made })]);
    say("copy.image_copied");
  } catch {
    say(isRead ? "copy.refused" : "detail.unreachable", "error");
  }
}

async function png(hit) {
  const image = await shown(hit);
  const { naturalWidth: width, naturalHeight: height } = image;
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new Error("the picture is too large for a canvas");
  return blob;
}

/** The picture decoded by the browser, or else by the server. */
async function shown(hit) {
  const addresses = [canShow(hit) && addressIn("original", hit), wholeAddress(hit)];
  return firstOf(addresses.filter(Boolean));
}

/** The first of these addresses that is a picture, decoded; rejects if none is. */
export async function firstOf([address, ...others]) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
    return image;
  } catch (error) {
    if (!others.length) throw error;
    return firstOf(others);
  }
}
