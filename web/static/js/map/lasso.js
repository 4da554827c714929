/** Which points lie within what was drawn around them. */

/** The points within a polygon, given by its corners on the map, that `fit`. */
export function inside(points, corners, fits) {
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  const bounds = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const found = [];
  points.runs(...bounds, (from, to) => {
    for (let at = from; at < to; at += 1) {
      if (fits(at) && isWithin(points.x[at], points.y[at], xs, ys)) found.push(at);
    }
  });
  return found;
}

/** Whether a ray from the place crosses the polygon an odd number of times. */
function isWithin(x, y, xs, ys) {
  let isOdd = false;
  for (let at = 0, before = xs.length - 1; at < xs.length; before = at, at += 1) {
    if (ys[at] > y === ys[before] > y) continue;
    const crossing = xs[at] + ((y - ys[at]) / (ys[before] - ys[at])) * (xs[before] - xs[at]);
    if (x < crossing) isOdd = !isOdd;
  }
  return isOdd;
}
