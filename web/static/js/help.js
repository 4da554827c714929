/** The help: search syntax and keys. */

let dialog;

export function start() {
  dialog = document.getElementById("help");
  document.getElementById("open-help")?.addEventListener("click", toggle);
  dialog.addEventListener("click", (event) => {
    const onBackdrop = event.target === dialog;
    if (onBackdrop || event.target.closest("[data-action=close]")) dialog.close();
  });
}

export function toggle() {
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
