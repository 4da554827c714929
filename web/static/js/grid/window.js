/** How much of the window does not show pictures: bars lie over its top and its bottom. */

export const coveredAbove = () => document.querySelector(".top")?.offsetHeight ?? 0;

/** The height from the upper edge of the bar of a selection on. */
export function coveredBelow() {
  const bar = document.getElementById("selection");
  return bar && !bar.hidden ? innerHeight - bar.offsetTop : 0;
}
