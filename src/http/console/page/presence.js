// Who comes and goes, as it happens.

import { feedPosition, followOn } from "./api.js";
import { count, span } from "./format.js";
import {
  Choice,
  Fault,
  Head,
  Search,
  Table,
  Time,
  counted,
  html,
  linkTo,
  useEffect,
  useMemo,
  useRef,
  useRested,
  useState,
  goTo,
} from "./ui.js";

const KEPT = 1000;

const KINDS = {
  client_connected: "connected",
  client_disconnected: "disconnected",
  client_keepalive_changed: "Keep Alive changed",
  client_refused: "refused",
  client_banned: "banned",
  session_subscribed: "subscribed",
  session_unsubscribed: "unsubscribed",
};

function details({ event, data }) {
  switch (event) {
    case "client_connected":
      return `Keep Alive ${count(data.keepalive)} s${data.clean_start ? ", new session" : ""}`;
    case "client_disconnected":
      return html`<code>${data.reason}</code> after ${span(data.disconnected_at - data.connected_at)}`;
    case "client_keepalive_changed":
      return `${count(data.old)} s to ${count(data.new)} s${data.by ? ` by ${data.by}` : ""}`;
    case "client_refused":
      return html`<code>${data.reason}</code>`;
    case "session_subscribed":
      return html`<code>${data.topic}</code> QoS ${data.qos}`;
    case "session_unsubscribed":
      return html`<code>${data.topic}</code>`;
    case "client_banned":
      return `${data.kind.replace("_id", "")} ${data.value}${data.reason ? `: ${data.reason}` : ""}${data.by ? ` by ${data.by}` : ""}`;
    default:
      return data.reason ?? "";
  }
}

const COLUMNS = [
  { key: "at", label: "Time", cell: (row) => html`<${Time} at=${row.data.timestamp} />` },
  {
    key: "event",
    label: "What",
    cell: (row) => html`<span class=${`event ${row.event}`}>${KINDS[row.event] ?? row.event}</span>`,
  },
  {
    key: "client",
    label: "Client",
    is: "grow",
    cell: (row) =>
      row.data.clientid ? html`<a href=${linkTo(["clients", row.data.clientid])}>${row.data.clientid}</a>` : "",
  },
  { key: "user", label: "User", is: "wide", cell: (row) => row.data.username },
  { key: "details", label: "Details", is: "wide grow", cell: details },
  { key: "address", label: "Address", is: "wide ip", cell: (row) => row.data.peername },
];

export function Presence({ place }) {
  const [pattern, setPattern] = useState(place.query.client ?? "");
  const rested = useRested(pattern);
  const kind = place.query.kind ?? "";
  const [state, setState] = useState({ rows: [], seen: 0 });
  const [live, setLive] = useState("connecting");
  const [error, setError] = useState(null);
  const [isPaused, setPaused] = useState(false);
  const [turn, setTurn] = useState(0);
  const paused = useRef(false);
  paused.current = isPaused;
  useEffect(() => {
    goTo(linkTo(["presence"], { client: rested, kind }), { replace: true });
  }, [rested]);
  useEffect(() => {
    const ending = new AbortController();
    const { signal } = ending;
    let at;
    let waiting = [];
    let timer;
    setState({ rows: [], seen: 0 });
    setError(null);
    const show = () => {
      timer = undefined;
      if (paused.current) {
        timer = setTimeout(show, 300);
        waiting = waiting.slice(-KEPT);
        return;
      }
      const fresh = waiting.reverse();
      waiting = [];
      setState((before) => ({ rows: fresh.concat(before.rows).slice(0, KEPT), seen: before.seen + fresh.length }));
    };
    (async () => {
      try {
        at = await feedPosition(signal);
        const client = rested === "" || rested.includes("*") ? rested : `*${rested}*`;
        await followOn(
          "events",
          {
            queryOf: () => ({ last_event_id: at, client_id: client, kinds: kind }),
            signal,
            state: (now, why) => {
              setLive(now);
              setError(why ?? null);
            },
          },
          (events) => {
            for (const event of events) at = event.id;
            waiting.push(...events.filter((event) => event.event in KINDS));
            timer ??= setTimeout(show, 250);
          },
        );
      } catch (why) {
        if (!signal.aborted) setError(why);
      }
    })();
    return () => {
      ending.abort();
      clearTimeout(timer);
    };
  }, [rested, kind, turn]);
  const rows = useMemo(() => state.rows, [state]);
  return html`<${Head} title="Presence">
      <span class=${`feed is-${live}`} role="status">${live === "live" ? "live" : live === "broken" ? "not live" : "connecting"}</span>
      <button type="button" aria-pressed=${isPaused ? "true" : "false"} onClick=${() => setPaused(!isPaused)}>${isPaused ? "Go on" : "Pause"}</button>
    <//>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Client" value=${pattern} onInput=${setPattern} placeholder="id, or id* or *id*" />
      <${Choice} label="What" value=${kind} options=${[["", "everything"], ...Object.entries(KINDS)]} onChange=${(next) => goTo(linkTo(["presence"], { client: rested, kind: next }), { replace: true })} />
    </form>
    <${Fault} error=${error} retry=${() => setTurn(turn + 1)} />
    <${Table} label="Events" columns=${COLUMNS} rows=${rows} keyOf=${(row) => row.id} tall busy=${false} empty="Nothing has happened since the page was opened." />
    <p class="quiet" role="status">${counted(state.seen, "event")}${state.seen > rows.length ? `; the last ${count(rows.length)} are shown` : ""}</p>`;
}
