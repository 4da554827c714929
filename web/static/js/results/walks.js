/** Lists of pictures to walk along: the hits of the grid, or pictures similar to one. */

import * as grid from "./grid.js";

/** The hits of the grid, loaded or not: `find` knows those that are, `locate` asks for the others. */
export const results = {
  total: 0,
  count: () => results.total,
  at: async (index) => grid.hitAt(index) ?? (await grid.load(index)),
  find: (id) => grid.find(id),
  locate: (id) => grid.locate(id),
};

export const neighboursOf = (hits) => ({
  count: () => hits.length,
  at: async (index) => hits[index],
  find: (id) => hits.findIndex((hit) => hit.image_id === id),
  drop: (id) => hits.splice(0, hits.length, ...hits.filter((hit) => hit.image_id !== id)),
});
