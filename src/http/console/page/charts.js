// Numbers over time, drawn by uPlot, which is a script of its own.

import { html, useEffect, useRef, useState } from "./ui.js";
import { exactTime, perSecond, time } from "./format.js";

const { uPlot } = window;
const HEIGHT = 190;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
// Steps of the scales of time and of bytes.
const MINUTES = [1, 2, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720].map((minutes) => minutes * 60);
const POWERS = Array.from({ length: 45 }, (_, power) => 2 ** power);

/** Returns the colours of the style sheet for a canvas, which knows no variables. */
function colours(place) {
  const probe = place.appendChild(document.createElement("span"));
  const of = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const found = { lines: [of("--line-1"), of("--line-2"), of("--line-3")], grid: of("--edge"), text: of("--muted") };
  probe.remove();
  return found;
}

/** Renders again when the colours change. */
function useScheme() {
  const [scheme, setScheme] = useState(0);
  useEffect(() => {
    const changed = () => setScheme((before) => before + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", changed);
    const watch = new MutationObserver(changed);
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-scheme"] });
    return () => {
      dark.removeEventListener("change", changed);
      watch.disconnect();
    };
  }, []);
  return scheme;
}

/** Draws series over the same times. `format` writes a value; the scale goes at least to `least`. */
export function Chart({ title, times, series, format = perSecond, least = 1, isBinary = false }) {
  const place = useRef(null);
  const chart = useRef(null);
  const scheme = useScheme();
  const data = [times.map((at) => at / 1000), ...series.map((one) => one.values)];
  const names = series.map((one) => one.label).join(" ");
  useEffect(() => {
    const { lines, grid, text } = colours(place.current);
    const font = "12px system-ui, sans-serif";
    const axis = { stroke: text, font, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    chart.current = new uPlot(
      {
        width: Math.max(200, place.current.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { points: { size: 6 }, drag: { x: false, y: false } },
        scales: {
          x: { range: (_, low, high) => [Math.min(low ?? 0, (high ?? 0) - 300), high ?? 0] },
          y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(least, (high ?? 0) * 1.1)] },
        },
        axes: [
          { ...axis, incrs: MINUTES, space: 70, values: (_, ticks) => ticks.map((at) => clock.format(at * 1000)) },
          { ...axis, size: 68, incrs: isBinary ? POWERS : undefined, values: (_, ticks) => ticks.map(format) },
        ],
        series: [
          {},
          ...series.map((one, at) => ({
            label: one.label,
            stroke: lines[at % lines.length],
            width: 2,
            points: { show: false },
            dash: at === 1 ? [6, 4] : at === 2 ? [2, 3] : undefined,
          })),
        ],
      },
      data,
      place.current,
    );
    const watch = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width) chart.current.setSize({ width, height: HEIGHT });
    });
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      chart.current.destroy();
    };
  }, [names, scheme]);
  useEffect(() => chart.current?.setData(data), [times, series]);
  const last = (one) => (one.values.length > 0 ? format(one.values.at(-1)) : "");
  const shown = times
    .map((at, place_) => [at, place_])
    .slice(-10)
    .reverse();
  return html`<section class="chart" aria-label=${title}>
    <h2>${title}</h2>
    <ul class="legend">${series.map((one, at) => html`<li key=${one.label}><span class=${`mark mark-${at + 1}`} aria-hidden="true"></span>${one.label} <b>${last(one)}</b></li>`)}</ul>
    <div class="plot" ref=${place} role="img" aria-label=${`${title} over time; the last values are in the table below`}>
      ${times.length === 0 && html`<p class="quiet">The first values come in a few seconds.</p>`}</div>
    <details><summary>Last values</summary>
      <table class="plain"><thead><tr><th scope="col">Time</th>${series.map((one) => html`<th scope="col" class="num" key=${one.label}>${one.label}</th>`)}</tr></thead>
        <tbody>${shown.map(
          ([
            at,
            place_,
          ]) => html`<tr key=${at}><td><time dateTime=${new Date(at).toISOString()} title=${exactTime(at)}>${time(at)}</time></td>
          ${series.map((one) => html`<td class="num" key=${one.label}>${format(one.values[place_])}</td>`)}</tr>`,
        )}</tbody></table>
    </details>
  </section>`;
}
