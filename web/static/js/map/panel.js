/** The list of clusters beside the map: each leads there, and to its pictures in a list. */

import * as api from "../page/api.js";
import { element, printable } from "../page/dom.js";
import * as format from "../page/format.js";
import { inLanguage, t } from "../page/i18n.js";
import { emit } from "../page/store.js";
import { neighboursOf } from "../results/walks.js";

const ADDRESS = /^#cluster-(\d+)$/;
const PAGE = 60; // pictures in a request

export class Panel {
  /** `parts` are the map's elements; `go(cluster)` is called with a cluster, or null for all. */
  constructor(parts, go) {
    this.parts = parts;
    this.go = go;
    this.clusters = [];
    this.shown = null; // a cluster; null for all
    this.hits = []; // of its pictures
    this.total = 0;
    this.countOf = () => null; // how many hits of the query a cluster has; null without a query
    parts.panel.addEventListener("click", (event) => this.clicked(event));
    addEventListener("popstate", () => this.follow());
  }

  /** The clusters' text: their names, at most so many; "" where nothing sets one apart. */
  named(cluster, most = 3) {
    const names = inLanguage(cluster.names, cluster.names_zh);
    return names.slice(0, most).join(t("map.between"));
  }

  show(clusters) {
    this.clusters = clusters;
    const { id } = this.shown ?? {};
    this.shown = clusters.find((one) => one.id === id) ?? null;
    this.draw();
    if (this.shown) this.load();
  }

  /** Follow the address, which may name a cluster. */
  follow() {
    if (location.hash.startsWith("#image-")) return;
    const [, id] = ADDRESS.exec(location.hash) ?? [];
    const cluster = this.clusters.find((one) => one.id === Number(id)) ?? null;
    if (cluster !== this.shown) this.enter(id === undefined ? null : cluster);
  }

  enter(cluster, hasFocus = false) {
    this.shown = cluster;
    this.hits = [];
    this.total = 0;
    this.draw();
    this.go(cluster);
    if (hasFocus) this.parts.title.focus({ preventScroll: true });
    this.parts.panel.scrollTop = 0;
    if (cluster) this.load();
  }

  draw() {
    const { parts, shown } = this;
    const within = this.clusters.filter((one) => one.parent === (shown?.id ?? null));
    const around = shown && this.clusters.find((one) => one.id === shown.parent);
    parts.title.textContent = shown ? this.named(shown) || t("map.unnamed") : t("map.clusters");
    parts.back.hidden = !shown;
    parts.up.textContent = `← ${around ? this.named(around) || t("map.unnamed") : t("map.all")}`;
    parts.up.setAttribute("href", around ? `#cluster-${around.id}` : "#");
    parts.count.textContent = shown ? t("map.count", { count: format.number(shown.count) }) : "";
    parts.count.hidden = !shown;
    parts.actions.hidden = !shown;
    parts.clusters.replaceChildren(...within.map((one) => this.item(one)));
    this.drawPictures(0);
  }

  item(cluster) {
    const name = this.named(cluster);
    const found = this.countOf(cluster);
    const count = format.number(cluster.count);
    const said = t("map.count", { count });
    return element(
      "li",
      {},
      element(
        "a",
        { class: "map-cluster", href: `#cluster-${cluster.id}` },
        element("img", { src: cluster.thumbnail ? `${cluster.thumbnail}&size=256` : null, alt: "", loading: "lazy", decoding: "async" }),
        element("span", { class: `map-cluster-name${name ? "" : " is-unnamed"}` }, name || t("map.unnamed")),
        element(
          "span",
          { class: "map-cluster-count" },
          found === null ? count : `${format.number(found)} / ${count}`,
          element("span", { class: "visually-hidden" }, ` (${said})`),
        ),
      ),
    );
  }

  drawPictures(from) {
    const { parts, hits } = this;
    if (!from) parts.pictures.replaceChildren();
    parts.pictures.append(
      ...hits.slice(from).map((hit, place) => {
        const name = printable(hit.name);
        const link = { href: `#image-${hit.image_id}`, title: name, dataset: { index: from + place } };
        const picture = { src: `${hit.thumbnail}&size=256`, alt: name, loading: "lazy", decoding: "async" };
        return element("li", {}, element("a", link, element("img", picture)));
      }),
    );
    parts.more.hidden = hits.length >= this.total;
  }

  /** Load the next pictures of the cluster. */
  async load() {
    const { shown } = this;
    const from = this.hits.length;
    try {
      const found = await api.mapPictures(shown.id, { offset: from, limit: PAGE });
      if (shown !== this.shown || from !== this.hits.length) return;
      this.hits.push(...found.hits);
      this.total = found.hits.length ? found.total : this.hits.length;
      this.drawPictures(from);
    } catch (error) {
      if (shown === this.shown) emit("toast", { text: error.message, kind: "error" });
    }
  }

  clicked(event) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    const link = event.target.closest("a");
    if (event.target.closest("[data-action=more]")) return this.loadMore();
    if (!link) return;
    event.preventDefault();
    if (link.dataset.index !== undefined) return this.open(Number(link.dataset.index));
    const [, id] = ADDRESS.exec(link.getAttribute("href")) ?? [];
    const cluster = this.clusters.find((one) => one.id === Number(id)) ?? null;
    const hash = cluster ? `#cluster-${cluster.id}` : "";
    history.pushState({ y: 0 }, "", location.pathname + location.search + hash);
    this.enter(cluster, true);
  }

  async loadMore() {
    const from = this.hits.length;
    await this.load();
    this.parts.pictures.children[from]?.querySelector("a").focus();
  }

  open(index) {
    emit("open", { image_id: this.hits[index].image_id, index, list: neighboursOf(this.hits) });
  }
}
