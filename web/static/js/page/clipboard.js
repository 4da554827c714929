/** Copy text, also on pages without a secure context. */

/** Put `text` on the clipboard; reject where the browser refuses. */
export async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
  } else if (!copyOldWay(text)) {
    throw new Error("the browser refused to copy");
  }
}

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
