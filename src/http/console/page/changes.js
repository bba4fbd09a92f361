// What pages have in common that change things in the store.

import { call } from "./api.js";
import { ask, counted, html } from "./ui.js";

export const button = (label, act, isDangerous) =>
  html`<button key=${label} type="button" class=${isDangerous ? "danger" : ""} onClick=${act}>${label}</button>`;

/** Says how many sessions a change has touched. */
export const touched = ({ sessions_touched: sessions }) =>
  sessions > 0 ? ` It has touched ${counted(sessions, "session")}.` : "";

/** Returns the value of `If-Match` for what is shown. */
export const etag = (row) => `"${row.revision}"`;

/** Asks whether something is removed, and removes it. */
export function remove({ what, path, query, ifMatch, done }) {
  ask({
    title: `Remove ${what}`,
    text: "This cannot be taken back.",
    action: "Remove",
    isDangerous: true,
    run: async () => {
      const answer = await call(path, { method: "DELETE", query, ifMatch });
      done();
      return `Removed.${touched(answer)}`;
    },
  });
}
