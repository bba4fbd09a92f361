// What all pages are made of: places, calls with their states, tables, forms, dialogs.

import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./preact.js";
import { brokerNow, call } from "./api.js";
import { count, exactTime, span, time } from "./format.js";

// Places: `#/clients/car-17?tab=queue`.

/** Returns the place in the URL: its parts, and its query. */
export function placeOf(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const decode = (text) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };
  return {
    parts: path.split("/").map(decode),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** Returns a link to a place. Values that are empty are left out. */
export function linkTo(parts, query = {}) {
  const path = parts.map((text) => encodeURIComponent(text)).join("/");
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(given).toString();
  return `#/${path}${text === "" ? "" : `?${text}`}`;
}

/** Goes to a place; `replace` leaves no step for the back button. */
export function goTo(link, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", link);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = link;
  }
}

export function usePlace() {
  const [place, setPlace] = useState(() => placeOf(location.hash));
  useEffect(() => {
    const moved = () => setPlace(placeOf(location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

/** Returns a text that follows another one when that rests. */
export function useRested(value, milliseconds = 300) {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setRested(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value]);
  return rested;
}

/** Renders again every second; returns the time of the broker. */
export function useNow(milliseconds = 1000) {
  const [now, setNow] = useState(brokerNow);
  useEffect(() => {
    const timer = setInterval(() => setNow(brokerNow()), milliseconds);
    return () => clearInterval(timer);
  }, []);
  return now;
}

// Calls.

/** Makes a call, and repeats it after each interval in milliseconds. What it has answered stays until the next answer. */
export function useCall(path, { query, every, skip = false } = {}) {
  const key = skip ? "" : `${path} ${JSON.stringify(query ?? {})}`;
  const [state, setState] = useState({ key, loading: !skip });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (skip) return undefined;
    const ending = new AbortController();
    let timer;
    const load = async () => {
      if (document.hidden && turn === 0 && timer !== undefined) {
        timer = setTimeout(load, every);
        return;
      }
      try {
        const data = await call(path, { query, signal: ending.signal });
        if (!ending.signal.aborted) setState({ key, data, loading: false });
      } catch (error) {
        if (ending.signal.aborted) return;
        // What is gone is not shown any more; other failures may pass.
        const stays = (before) => before.key === key && error.status !== 404;
        setState((before) => ({ key, data: stays(before) ? before.data : undefined, error, loading: false }));
      }
      if (every) timer = setTimeout(load, every);
    };
    setState((before) => (before.key === key ? before : { key, loading: true }));
    load();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }, [key, turn]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  return { ...(state.key === key ? state : { loading: true }), reload };
}

/** Reads a list page by page. */
export function usePages(path, { query, limit = 500, skip = false } = {}) {
  const key = `${path} ${JSON.stringify(query ?? {})}`;
  const [state, setState] = useState({ key, items: [], loading: true });
  const [turn, setTurn] = useState(0);
  const asking = useRef(null);
  const read = useCallback(
    async (cursor) => {
      asking.current?.abort();
      const ending = new AbortController();
      asking.current = ending;
      // What is shown stays until the answer is there.
      const before = (state_) => (state_.key === key ? state_.items : []);
      setState((old) => ({ key, items: before(old), next: cursor, loading: true }));
      try {
        const answer = await call(path, { query: { ...query, limit, cursor }, signal: ending.signal });
        if (ending.signal.aborted) return;
        setState((old) => {
          const items = cursor === undefined ? answer.items : before(old).concat(answer.items);
          return { key, items, next: answer.next, loading: false };
        });
      } catch (error) {
        if (!ending.signal.aborted)
          setState((old) => ({ key, items: before(old), next: cursor, error, loading: false }));
      }
    },
    [key],
  );
  useEffect(() => {
    if (skip) return undefined;
    read(undefined);
    return () => asking.current?.abort();
  }, [key, turn, skip]);
  const more = useCallback(() => {
    if (!state.loading && state.next !== undefined && !state.error) read(state.next);
  }, [state]);
  const shown = state.key === key ? state : { items: [], loading: true };
  return { ...shown, more, reload: () => setTurn((before) => before + 1) };
}

// States.

export function Fault({ error, retry }) {
  if (!error) return null;
  return html`<div class="notice bad" role="alert">
    <p>${error.message}</p>
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

export const Loading = ({ what = "Loading" }) => html`<p class="quiet" role="status">${what}…</p>`;
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** Shows what a call has answered, or its state. */
export function Answered({ of, children }) {
  const { data, error, loading, reload } = of;
  return html`
    <${Fault} error=${error} retry=${reload} />
    ${data !== undefined ? children(data) : loading ? html`<${Loading} />` : null}`;
}

// Small things.

export function Time({ at }) {
  if (at === undefined || at === null) return null;
  return html`<time dateTime=${new Date(at).toISOString()} title=${exactTime(at)}>${time(at)}</time>`;
}

/** A time in the past or in the future, as a distance from now. */
export function Ago({ at, now }) {
  if (at === undefined || at === null) return null;
  const distance = now - at;
  const text = distance >= 0 ? `${span(distance)} ago` : `in ${span(-distance)}`;
  return html`<time dateTime=${new Date(at).toISOString()} title=${exactTime(at)}>${text}</time>`;
}

export const State = ({ online }) =>
  html`<span class=${online ? "state on" : "state off"}>${online ? "online" : "offline"}</span>`;

/** The head of a page. It takes the focus when the page opens. */
export function Head({ title, children }) {
  const head = useRef(null);
  useEffect(() => {
    document.title = `${title} · HearthMQ`;
  }, [title]);
  useLayoutEffect(() => head.current?.focus({ preventScroll: true }), []);
  return html`<header class="head">
    <h1 tabindex="-1" ref=${head}>${title}</h1>
    <div class="actions">${children}</div>
  </header>`;
}

/** Pairs of a name and a value. Pairs without a value are left out. */
export function Facts({ of }) {
  const given = of.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false);
  return html`<dl class="facts">${given.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export function Field({ label, help, children }) {
  return html`<div class="field"><label><span class="label">${label}</span>${children}</label>${help && html`<span class="help">${help}</span>`}</div>`;
}

export function Search({ label, value, onInput, placeholder }) {
  return html`<${Field} label=${label}>
    <input type="search" class="search" value=${value} placeholder=${placeholder ?? ""} spellcheck=${false}
      autocomplete="off" onInput=${(event) => onInput(event.target.value)} /><//>`;
}

export function Choice({ label, value, options, onChange }) {
  return html`<${Field} label=${label}>
    <select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}
    </select><//>`;
}

// Tables.

const ROW = 36; // pixels; the same as in the style sheet
const SPARE_ROWS = 8;

/** A table of any length: only the rows in sight are in the document.
 *
 * A column has `key`, `label` and `cell`; `is` of `num`, `wide` (not on a phone), `grow`; and `by`, the value to
 * sort by. */
export function Table({ label, columns, rows, keyOf, sort, onSort, onEnd, busy, empty, tall }) {
  const frame = useRef(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const look = useCallback(() => {
    const { scrollTop, clientHeight } = frame.current;
    const top = Math.floor(scrollTop / ROW);
    setView((before) =>
      before.top === top && before.height === clientHeight ? before : { top, height: clientHeight },
    );
  }, []);
  useLayoutEffect(() => {
    look();
    const watch = new ResizeObserver(look);
    watch.observe(frame.current);
    return () => watch.disconnect();
  }, []);
  const from = Math.max(0, view.top - SPARE_ROWS);
  const to = Math.min(rows.length, view.top + Math.ceil(view.height / ROW) + SPARE_ROWS);
  useEffect(() => {
    if (onEnd && to >= rows.length - SPARE_ROWS) onEnd();
  }, [to, rows.length, onEnd]);
  const step = (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15 };
    const by = steps[event.key];
    const row = event.target.closest?.("tr[data-row]");
    if (by === undefined || !row || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = Math.min(rows.length - 1, Math.max(0, Number(row.dataset.row) + by));
    const height = frame.current.clientHeight;
    const at = (next + 1) * ROW;
    if (at < frame.current.scrollTop + ROW) frame.current.scrollTop = at - ROW;
    if (at > frame.current.scrollTop + height - ROW) frame.current.scrollTop = at - height + ROW * 2;
    look();
    requestAnimationFrame(() =>
      requestAnimationFrame(() => {
        frame.current?.querySelector(`tr[data-row="${next}"] :is(a, button)`)?.focus({ preventScroll: true });
      }),
    );
  };
  const shown = rows.slice(from, to);
  return html`<div class=${tall ? "frame tall" : "frame"} ref=${frame} onScroll=${look} onKeyDown=${step}
      role="region" aria-label=${label} tabindex="0">
    <table aria-rowcount=${rows.length + 1} aria-busy=${busy ? "true" : "false"}>
      <thead><tr aria-rowindex="1">${columns.map((column) => html`<${HeadCell} key=${column.key} column=${column} sort=${sort} onSort=${onSort} />`)}</tr></thead>
      <tbody>
        ${from > 0 && html`<tr class="space" aria-hidden="true" style=${{ height: `${from * ROW}px` }}></tr>`}
        ${shown.map(
          (row, at) => html`<tr key=${keyOf(row)} data-row=${from + at} aria-rowindex=${from + at + 2}>
          ${columns.map((column) => html`<td key=${column.key} class=${column.is ?? ""}>${column.cell(row)}</td>`)}
        </tr>`,
        )}
        ${to < rows.length && html`<tr class="space" aria-hidden="true" style=${{ height: `${(rows.length - to) * ROW}px` }}></tr>`}
      </tbody>
    </table>
    ${rows.length === 0 && (busy ? html`<${Loading} />` : html`<${Empty}>${empty}<//>`)}
  </div>`;
}

function HeadCell({ column, sort, onSort }) {
  const { key, label, by, is } = column;
  if (!by || !onSort) return html`<th scope="col" class=${is ?? ""}>${label}</th>`;
  const isSorted = sort?.key === key;
  const order = isSorted ? (sort.down ? "descending" : "ascending") : "none";
  return html`<th scope="col" class=${is ?? ""} aria-sort=${order}>
    <button type="button" class="sort" onClick=${() => onSort({ key, down: isSorted ? !sort.down : false })}>
      ${label}<span aria-hidden="true">${isSorted ? (sort.down ? " ▼" : " ▲") : ""}</span>
    </button></th>`;
}

/** Returns rows in the order of a column. */
export function sorted(rows, columns, sort) {
  const by = columns.find((column) => column.key === sort?.key)?.by;
  if (!by) return rows;
  const sign = sort.down ? -1 : 1;
  const rank = (value) => (value === undefined || value === null || value === "" ? 1 : 0);
  return rows.slice().sort((one, other) => {
    const [a, b] = [by(one), by(other)];
    if (rank(a) !== rank(b)) return rank(a) - rank(b); // what is not known comes last
    return a < b ? -sign : a > b ? sign : 0;
  });
}

/** A table of a list that is read page by page. */
export function ListTable({ list, label, columns, keyOf, empty, tall = true, rows }) {
  const items = rows ?? list.items;
  return html`
    <${Fault} error=${list.error} retry=${list.reload} />
    <${Table} label=${label} columns=${columns} rows=${items} keyOf=${keyOf} busy=${list.loading} onEnd=${list.more}
      empty=${empty} tall=${tall} />
    <p class="quiet" role="status">${list.loading ? "Loading…" : `${count(items.length)}${list.next === undefined ? " in all" : " and more"}`}</p>`;
}

// Dialogs and messages, of which there is one at a time.

let open = () => {};
let tell = () => {};

/** Opens a dialog with fields, and runs `run` with their values. What `run` returns is told. */
export const ask = (what) => open(what);
/** Tells that something was done. */
export const say = (text) => tell({ text, at: Date.now() });

function Input({ field, value, onInput }) {
  const { name, type = "text", options, required, min, max, rows, autocomplete = "off", placeholder = "" } = field;
  const common = { id: `field-${name}`, name, required: required ?? false, disabled: field.disabled ?? false };
  if (type === "select") {
    return html`<select ...${common} value=${value} onChange=${(event) => onInput(event.target.value)}>
      ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}</select>`;
  }
  if (type === "area") {
    return html`<textarea ...${common} rows=${rows ?? 8} spellcheck=${false} value=${value} onInput=${(event) => onInput(event.target.value)}></textarea>`;
  }
  if (type === "check") {
    return html`<input ...${common} type="checkbox" checked=${value} onChange=${(event) => onInput(event.target.checked)} />`;
  }
  return html`<input ...${common} type=${type} min=${min} max=${max} placeholder=${placeholder} autocomplete=${autocomplete}
    spellcheck=${false} value=${value} onInput=${(event) => onInput(event.target.value)} />`;
}

function Dialog({ what, close }) {
  const dialog = useRef(null);
  const fields = what.fields ?? [];
  const [values, setValues] = useState(() =>
    Object.fromEntries(fields.map((field) => [field.name, field.value ?? (field.type === "check" ? false : "")])),
  );
  const [state, setState] = useState({});
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    dialog.current.querySelector("input, select, textarea, .primary, .danger")?.focus();
    return () => before?.focus?.();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      const told = await what.run(values);
      close();
      if (told) say(told);
    } catch (error) {
      setState({ error });
    }
  };
  const set = (name) => (value) => setValues((before) => ({ ...before, [name]: value }));
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${close} onCancel=${close}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title">${what.title}</h2>
      ${what.text && html`<p>${what.text}</p>`}
      ${what.content}
      ${fields
        .filter((field) => !field.when || field.when(values))
        .map(
          (field) => html`<div key=${field.name} class=${field.type === "check" ? "field check" : "field"}>
        <label class="label" for=${`field-${field.name}`}>${field.label}</label>
        <${Input} field=${field} value=${values[field.name]} onInput=${set(field.name)} />
        ${field.help && html`<span class="help">${field.help}</span>`}
      </div>`,
        )}
      <${Fault} error=${state.error} />
      <div class="buttons">
        <button type="button" onClick=${close}>${what.run ? "Cancel" : "Close"}</button>
        ${what.run && html`<button type="submit" class=${what.isDangerous ? "danger" : "primary"} disabled=${state.busy}>${what.action}</button>`}
      </div>
    </form>
  </dialog>`;
}

/** The place of dialogs and messages. */
export function Dialogs() {
  const [what, setWhat] = useState(null);
  const [told, setTold] = useState(null);
  open = (next) => setWhat({ ...next, number: Math.random() });
  tell = setTold;
  useEffect(() => {
    if (!told) return undefined;
    const timer = setTimeout(() => setTold(null), 6000);
    return () => clearTimeout(timer);
  }, [told]);
  return html`
    ${what && html`<${Dialog} key=${what.number} what=${what} close=${() => setWhat(null)} />`}
    <div class="told" role="status" aria-live="polite">${told && html`<p key=${told.at}>${told.text}</p>`}</div>`;
}

/** Returns a text with a button that copies it. */
export function Secret({ text }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
    } catch {
      setCopied(false);
    }
  };
  return html`<p class="secret"><code>${text}</code> <button type="button" onClick=${copy}>${copied ? "Copied" : "Copy"}</button></p>`;
}

/** Returns a number with its noun, such as `1 session`. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
/** Returns a number of the form, or `undefined` if nothing is entered. */
export const numberOf = (text) => (text === "" || text === undefined ? undefined : Number(text));
/** Returns the words of a form that are separated by commas. */
export const wordsOf = (text) =>
  text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");

/** Asks the broker what the caller may do to a client or on a topic. */
export function usePermissions(query) {
  const answer = useCall("me", { query });
  return answer.data?.permissions ?? {};
}

export { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState };
