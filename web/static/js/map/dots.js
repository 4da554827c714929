/** Draws points as dots, straight into the pixels of a canvas: a hundred thousand in some milliseconds. */

const PAD = 12; // pixels around the canvas, so that no dot needs to be cut
const LARGEST = 6_000_000; // pixels of the canvas; beyond, it is drawn more coarsely

export class Dots {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.image = null;
    this.ratio = 1;
    this.stamps = new Map();
  }

  resize(width, height) {
    const dense = Math.max(1, window.devicePixelRatio || 1);
    this.ratio = Math.min(dense, Math.max(1, Math.sqrt(LARGEST / Math.max(1, width * height))));
    this.canvas.width = Math.max(1, Math.round(width * this.ratio));
    this.canvas.height = Math.max(1, Math.round(height * this.ratio));
    this.image = this.context.createImageData(this.canvas.width + 2 * PAD, this.canvas.height + 2 * PAD);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.stamps.clear();
  }

  /**
   * Draw the points of a view. `tones` has a number below `colours.length` for each point, 255 for
   * none; higher tones are drawn over lower ones. `radii` has the radius of each tone in CSS pixels.
   */
  draw(points, view, tones, colours, radii) {
    const { pixels, ratio, image } = this;
    pixels.fill(0);
    const wide = image.width;
    const [right, bottom] = [wide - PAD, image.height - PAD];
    const scale = view.scale * ratio;
    const left = (view.width / 2) * ratio - view.x * scale + PAD;
    const top = (view.height / 2) * ratio - view.y * scale + PAD;
    const stamps = radii.map((radius) => this.stamp(radius * ratio, wide));
    const layers = new Set(radii).size > 1 ? [...new Set(radii)].sort((one, other) => one - other) : [null];
    const { x, y } = points;
    const bounds = view.bounds(PAD);
    for (const layer of layers) {
      points.runs(...bounds, (from, to) => {
        for (let at = from; at < to; at += 1) {
          const tone = tones[at];
          if (tone === 255 || (layer !== null && radii[tone] !== layer)) continue;
          const column = (x[at] * scale + left) | 0;
          const row = (y[at] * scale + top) | 0;
          if (column < PAD || row < PAD || column >= right || row >= bottom) continue;
          const middle = row * wide + column;
          const colour = colours[tone];
          const { solid, soft, shares } = stamps[tone];
          for (let part = 0; part < solid.length; part += 1) pixels[middle + solid[part]] = colour;
          for (let part = 0; part < soft.length; part += 1) {
            const place = middle + soft[part];
            if (pixels[place] >>> 24 < shares[part]) pixels[place] = (colour & 0xffffff) | (shares[part] << 24);
          }
        }
      });
    }
    this.context.putImageData(image, -PAD, -PAD);
  }

  /** The pixels of a dot, as offsets: those within it, and those on its edge with how opaque they are. */
  stamp(radius, wide) {
    const key = Math.round(radius * 8);
    if (this.stamps.has(key)) return this.stamps.get(key);
    const solid = [];
    const soft = [];
    const shares = [];
    const reach = Math.min(PAD - 1, Math.ceil(radius));
    for (let row = -reach; row <= reach; row += 1) {
      for (let column = -reach; column <= reach; column += 1) {
        const share = radius + 0.5 - Math.hypot(row, column);
        if (share >= 1 || (!row && !column)) solid.push(row * wide + column);
        else if (share > 0.1) {
          soft.push(row * wide + column);
          shares.push(Math.round(share * 255));
        }
      }
    }
    const made = { solid: Int32Array.from(solid), soft: Int32Array.from(soft), shares: Uint8Array.from(shares) };
    this.stamps.set(key, made);
    return made;
  }
}

/** A CSS colour as the pixels of a canvas have it. */
export function pixelOf(colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return new Uint32Array(context.getImageData(0, 0, 1, 1).data.buffer)[0];
}
