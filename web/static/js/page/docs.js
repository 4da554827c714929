/** The description of the API: a button beside each command that copies it. */

import { copyText } from "./clipboard.js";

const SAID_MS = 2000;

for (const block of document.querySelectorAll("pre")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  const text = block.textContent;
  button.addEventListener("click", async () => {
    button.textContent = await copyText(text).then(
      () => "Copied",
      () => "Cannot copy",
    );
    setTimeout(() => (button.textContent = "Copy"), SAID_MS);
  });
  block.append(button);
}
