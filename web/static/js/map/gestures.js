/** Mouse, fingers and keys on the map's stage. */

const STILL = 6; // CSS pixels that a click may move
const WHEEL = 0.0016; // of a zoom for each pixel that the wheel turns
const STEP = 0.2; // of the stage that an arrow key moves
const DOUBLE_MS = 320; // between two taps of a double tap

/**
 * `act` has what the gestures do: pan(right, down), zoomAt(factor, x, y), zoomTo(factor), showAll(),
 * open(x, y), hover(x, y), leave(), toggleLasso(), drawLasso(places), endLasso(places, isAway),
 * openMiddle(), selectMiddle().
 */
export function listen(stage, act) {
  const fingers = new Map(); // pointer id -> place
  let started = null; // where the first pointer came down
  let hasMoved = false;
  let lasso = null; // places on the stage
  let tapped = { at: 0, x: 0, y: 0 };

  const place = (event) => {
    const { left, top } = stage.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  };
  const middle = () => {
    const places = [...fingers.values()];
    const [x, y] = [0, 1].map((axis) => places.reduce((sum, one) => sum + one[axis], 0) / places.length);
    const apart = places.length < 2 ? 0 : Math.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]);
    return { x, y, apart };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(event));
    if (fingers.size === 1) {
      started = place(event);
      hasMoved = false;
      if (event.shiftKey || act.isLasso()) lasso = [started];
    } else {
      lasso = null; // two fingers zoom
      hasMoved = true;
      act.drawLasso(null);
    }
  });

  stage.addEventListener("pointermove", (event) => {
    const here = place(event);
    if (!fingers.has(event.pointerId)) return act.hover(...here);
    const before = middle();
    fingers.set(event.pointerId, here);
    if (!hasMoved && Math.hypot(here[0] - started[0], here[1] - started[1]) > STILL) {
      hasMoved = true;
      stage.classList.add("is-dragged");
      act.leave();
    }
    if (!hasMoved) return;
    if (lasso) {
      lasso.push(here);
      return act.drawLasso(lasso);
    }
    const now = middle();
    act.pan(now.x - before.x, now.y - before.y);
    if (fingers.size === 2 && before.apart > 0) act.zoomAt(now.apart / before.apart, now.x, now.y);
  });

  const ended = (event) => {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    stage.classList.remove("is-dragged");
    const drawn = lasso;
    lasso = null;
    if (drawn) {
      act.drawLasso(null);
      if (hasMoved && event.type === "pointerup") return act.endLasso(drawn, event.altKey);
    }
    if (hasMoved || event.type !== "pointerup") return;
    const [x, y] = place(event);
    const isDouble =
      event.timeStamp - tapped.at < DOUBLE_MS && Math.hypot(x - tapped.x, y - tapped.y) < 4 * STILL;
    if (isDouble) {
      tapped = { at: 0, x: 0, y: 0 };
      return act.zoomAt(2.5, x, y);
    }
    tapped = { at: event.timeStamp, x, y };
    act.open(x, y);
  };
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, ended);
  stage.addEventListener("pointerleave", () => act.leave());
  stage.addEventListener("dblclick", (event) => event.preventDefault());

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const unit = event.deltaMode === 1 ? 16 : 1; // lines
      const by = event.deltaY * unit * (event.ctrlKey ? 6 : 1); // a pinch on a touchpad
      act.zoomAt(Math.exp(-Math.max(-400, Math.min(400, by)) * WHEEL), ...place(event));
    },
    { passive: false },
  );

  const keys = {
    ArrowLeft: () => act.panBy(STEP, 0),
    ArrowRight: () => act.panBy(-STEP, 0),
    ArrowUp: () => act.panBy(0, STEP),
    ArrowDown: () => act.panBy(0, -STEP),
    "+": () => act.zoomTo(1.6),
    "=": () => act.zoomTo(1.6),
    "-": () => act.zoomTo(1 / 1.6),
    0: () => act.showAll(),
    Home: () => act.showAll(),
    Enter: () => act.openMiddle(),
    x: () => act.selectMiddle(),
    " ": () => act.selectMiddle(),
    l: () => act.toggleLasso(),
  };
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
