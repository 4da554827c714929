/** Copy text, also on pages without a secure context. */

/** Put `text` on the clipboard; reject where the browser refuses. */
export async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
  } else if (!copyOldWay(text)) {
    throw new Error("the browser refused to copy");
  }
}

/**
 * Put a text on the clipboard that is still on its way. Some browsers take it only if they hear of
 * it while a click is handled.
 */
export async function copyComing(coming) {
  if (navigator.clipboard?.write && window.isSecureContext && window.ClipboardItem) {
    const plain = coming.then((text) => new Blob([text], { type: "text/plain" }));
    await Promise.all([coming, navigator.clipboard.write([new ClipboardItem({ "text/plain": plain })])]);
  } else await copyText(await coming);
}

/** Whether a path among these has a line break, or one was split at it: what is left of it is not absolute. */
export const areSplit = (paths) => paths.some((path) => path.includes("\n") || !/^([/\\]|[a-z]:)/i.test(path));

/** `navigator.clipboard` exists only on https and loopback addresses. */
function copyOldWay(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  const host = document.querySelector("dialog:modal") ?? document.body; // the rest is inert
  const focused = document.activeElement;
  host.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
    focused?.focus();
  }
}
