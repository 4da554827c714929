/** Draws what lies over the dots: thumbnails where there is room, names of clusters, rings, the lasso. */

const MANY = 3000; // points in view, beyond which dots are all there is
const SMALL = 64; // CSS pixels of a thumbnail's side at least; twice that at most
const BEYOND = 0.25; // of the stage, on each side, in which thumbnails are chosen ahead
const FETCHED = 400; // thumbnails at most
const NAMES = [1.7, 4.5]; // zooms from which the next level of clusters is named
const SHOWN_NAMES = 2; // of a cluster
const PREVIEW = 128; // CSS pixels of the picture under the pointer

export class Over {
  constructor(canvas, thumbs, named) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.thumbs = thumbs;
    this.named = named; // the text of a cluster, "" for none
    this.shown = []; // points with a thumbnail
    this.region = null; // {level, bounds} for which they were chosen
    this.look = {};
  }

  resize(width, height) {
    this.ratio = Math.min(2, Math.max(1, window.devicePixelRatio || 1));
    this.canvas.width = Math.max(1, Math.round(width * this.ratio));
    this.canvas.height = Math.max(1, Math.round(height * this.ratio));
    this.region = null;
  }

  /** Take colours and type from the page's style. */
  dress(style) {
    const read = (name) => style.getPropertyValue(name).trim();
    this.look = { font: style.fontFamily, text: style.color, page: style.backgroundColor };
    for (const name of ["accent", "line-strong"]) this.look[name] = read(`--${name}`) || this.look.text;
  }

  /** Forget which points have thumbnails. */
  reset() {
    this.region = null;
  }

  /**
   * `now` is {points, view, isShown, isSelected, clusters, hovered, pointed, lasso, isFocused}:
   * functions of a point, a point or -1, and a list of places on the stage or null.
   */
  draw(now) {
    const { context, canvas, ratio } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.choose(now);
    this.drawThumbs(now);
    this.drawNames(now);
    if (now.pointed >= 0) this.drawRing(now, now.pointed);
    if (now.hovered >= 0) this.drawPreview(now);
    if (now.isFocused) this.drawCross(now.view);
    if (now.lasso) this.drawLasso(now.lasso);
  }

  /** The side of thumbnails in CSS pixels, from SMALL to twice that. */
  side(view) {
    return SMALL * 2 ** (Math.log2(view.zoom) - Math.floor(Math.log2(view.zoom)));
  }

  /**
   * Choose which points have a thumbnail: none that would lie on another. That is done for some more
   * than the stage shows, and again once it shows more or thumbnails are of another size.
   */
  choose({ points, view, isShown }) {
    const level = Math.floor(Math.log2(view.zoom));
    const bounds = view.bounds(SMALL);
    if (points.countIn(...bounds) > MANY) {
      if (this.shown.length) this.thumbs.want(points, []);
      this.shown = [];
      this.region = null;
      return;
    }
    if (this.region?.level === level && contains(this.region.bounds, bounds)) return;
    const more = [(bounds[2] - bounds[0]) * BEYOND, (bounds[3] - bounds[1]) * BEYOND];
    const around = [bounds[0] - more[0], bounds[1] - more[1], bounds[2] + more[0], bounds[3] + more[1]];
    this.region = { level, bounds: around };
    this.shown = chosen(points, around, this.side(view) / view.scale, isShown);
    const away = (at) => (points.x[at] - view.x) ** 2 + (points.y[at] - view.y) ** 2;
    const wanted = [...this.shown].sort((one, other) => away(one) - away(other));
    this.thumbs.want(points, wanted.slice(0, FETCHED));
  }

  drawThumbs({ points, view, isSelected, colourOf }) {
    const side = this.side(view) * 0.94;
    const { context, look } = this;
    for (const at of this.shown) {
      const [left, top] = view.toStage(points.x[at], points.y[at]);
      if (left < -side || top < -side || left > view.width + side || top > view.height + side) continue;
      const picture = this.thumbs.get(at);
      const [width, height] = sized(picture, side);
      if (picture) context.drawImage(picture, left - width / 2, top - height / 2, width, height);
      else {
        context.fillStyle = colourOf(at);
        context.globalAlpha = 0.25;
        context.fillRect(left - width / 2, top - height / 2, width, height);
        context.globalAlpha = 1;
      }
      if (!isSelected(at)) continue;
      context.lineWidth = 3;
      context.strokeStyle = look.accent;
      context.strokeRect(left - width / 2, top - height / 2, width, height);
    }
  }

  drawNames({ view, clusters }) {
    const { context, look } = this;
    const level = NAMES.filter((zoom) => view.zoom >= zoom).length;
    const deepest = Math.max(0, ...clusters.map((one) => one.level));
    const placed = [];
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const size = level === 0 ? 15 : 13;
    const above = this.shown.length ? this.side(view) / 2 + size : 0; // not on the picture in the middle
    context.font = `600 ${size}px ${look.font}`;
    for (const cluster of clusters) {
      if (cluster.level !== Math.min(level, deepest)) continue;
      const [x, middle] = view.toStage(cluster.x, cluster.y);
      const y = middle - above;
      if (x < 0 || y < 0 || x > view.width || y > view.height) continue;
      const text = this.named(cluster, SHOWN_NAMES);
      if (!text) continue;
      const half = context.measureText(text).width / 2 + 6;
      const left = Math.min(Math.max(x, half), Math.max(half, view.width - half)); // not cut off
      const box = [left - half, y - size, left + half, y + size];
      if (placed.some((other) => meets(box, other))) continue;
      placed.push(box);
      context.lineWidth = 4;
      context.strokeStyle = look.page;
      context.strokeText(text, left, y);
      context.fillStyle = look.text;
      context.fillText(text, left, y);
    }
  }

  drawRing({ points, view }, at) {
    const { context, look } = this;
    const [x, y] = view.toStage(points.x[at], points.y[at]);
    context.beginPath();
    context.arc(x, y, 9, 0, 2 * Math.PI);
    context.lineWidth = 3;
    context.strokeStyle = look.accent;
    context.stroke();
  }

  /** The picture under the pointer, where it is only a dot. */
  drawPreview(now) {
    const { points, view, hovered } = now;
    if (this.shown.includes(hovered)) return;
    this.drawRing(now, hovered);
    const picture = this.thumbs.get(hovered);
    if (!picture) return;
    const { context, look } = this;
    const [width, height] = sized(picture, PREVIEW);
    const [x, y] = view.toStage(points.x[hovered], points.y[hovered]);
    const left = Math.min(Math.max(4, x - width / 2), view.width - width - 4);
    const top = y - height - 18 < 4 ? y + 18 : y - height - 18;
    context.fillStyle = look.page;
    context.fillRect(left - 3, top - 3, width + 6, height + 6);
    context.drawImage(picture, left, top, width, height);
    context.lineWidth = 1;
    context.strokeStyle = look["line-strong"];
    context.strokeRect(left - 3, top - 3, width + 6, height + 6);
  }

  /** Mark the middle, which keys are about. */
  drawCross({ width, height }) {
    const { context, look } = this;
    const [x, y] = [width / 2, height / 2];
    context.beginPath();
    for (const [right, down] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 4 * right, y + 4 * down);
      context.lineTo(x + 14 * right, y + 14 * down);
    }
    for (const [wide, colour] of [[5, look.page], [2, look.accent]]) {
      context.lineWidth = wide;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  drawLasso(places) {
    const { context, look } = this;
    context.beginPath();
    for (const [x, y] of places) context.lineTo(x, y);
    context.closePath();
    context.globalAlpha = 0.14;
    context.fillStyle = look.accent;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = look.accent;
    context.stroke();
  }

  /** The point whose thumbnail is at a place of the stage; -1 for none. */
  thumbAt({ points, view }, x, y) {
    const half = (this.side(view) * 0.94) / 2;
    for (let place = this.shown.length - 1; place >= 0; place -= 1) {
      const at = this.shown[place];
      const [left, top] = view.toStage(points.x[at], points.y[at]);
      if (Math.abs(left - x) <= half && Math.abs(top - y) <= half) return at;
    }
    return -1;
  }
}

const contains = (outer, inner) =>
  outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];

/** Points of a part of the map, none nearer to another than `across` both ways; by chance, always the same. */
function chosen(points, bounds, across, fits) {
  const near = [];
  points.runs(...bounds, (from, to) => {
    for (let at = from; at < to; at += 1) if (fits(at)) near.push(at);
  });
  near.sort((one, other) => points.order[one] - points.order[other]);
  const taken = new Map(); // cell -> point
  const found = [];
  for (const at of near) {
    const [x, y] = [points.x[at], points.y[at]];
    const column = Math.floor(x / across);
    const row = Math.floor(y / across);
    let isFree = true;
    for (let cell = 0; cell < 9 && isFree; cell += 1) {
      const other = taken.get((row + ((cell / 3) | 0) - 1) * 65_536 + column + (cell % 3) - 1);
      if (other === undefined) continue;
      isFree = Math.abs(x - points.x[other]) >= across || Math.abs(y - points.y[other]) >= across;
    }
    if (!isFree) continue;
    taken.set(row * 65_536 + column, at);
    found.push(at);
  }
  return found;
}

const meets = (one, other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];

/** Width and height of a picture whose longer side is `side`. */
function sized(picture, side) {
  if (!picture) return [side * 0.8, side * 0.8];
  const by = side / Math.max(picture.width, picture.height);
  return [picture.width * by, picture.height * by];
}
