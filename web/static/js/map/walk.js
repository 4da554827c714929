/** The pictures around one on the map as a list to walk along, the nearest first. */

import { image } from "../page/api.js";

const MOST = 200; // pictures in the list

export function walkFrom(points, at) {
  const ids = points.around(at, MOST).map((point) => points.ids[point]);
  const known = new Map(); // id -> a promise of the document
  return {
    count: () => ids.length,
    at: async (index) => {
      const id = ids[index];
      if (!known.has(id)) known.set(id, image(id));
      return known.get(id);
    },
    find: (id) => ids.indexOf(id),
    drop: (id) => ids.includes(id) && ids.splice(ids.indexOf(id), 1),
  };
}
