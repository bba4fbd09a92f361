// Every packet of a client, as it comes.

import { bytesOf, call, followOn } from "./api.js";
import { bytes, count, payload } from "./format.js";
import { Fault, Field, Table, Time, counted, html, useEffect, useRef, useState } from "./ui.js";

const SHOWN = 200;

/** Returns what a record says beside its kind, topic and size. */
function details(row) {
  const given = [
    ["id", row.packet_id],
    ["QoS", row.qos],
    ["protocol", row.protocol],
    ["Keep Alive", row.keep_alive],
    ["user", row.username],
    ["by", row.by],
  ];
  const shown = given.filter(([, value]) => value !== undefined).map(([name, value]) => `${name} ${value}`);
  for (const flag of ["dup", "retain", "clean_start", "session_present"]) {
    if (row[flag]) shown.push(flag.replace("_", " "));
  }
  const codes = row.reason_codes ?? (row.reason_code ? [row.reason_code] : []);
  shown.push(...codes.map((code) => `0x${code.toString(16).padStart(2, "0")}`));
  if (row.reason) shown.push(row.reason);
  for (const [name, value] of Object.entries(row.properties ?? {})) {
    shown.push(`${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  }
  return shown.join(", ");
}

const topicsOf = (row) => row.topic ?? (row.filters ?? []).map(({ filter }) => filter).join(" ");

const ARROWS = { in: ["→", "from the client"], out: ["←", "to the client"] };

function Direction({ of }) {
  const [arrow, words] = ARROWS[of] ?? ["·", "event"];
  return html`<span title=${words} aria-label=${words} role="img">${arrow}</span>`;
}

export function Trace({ id, permissions }) {
  const [seconds, setSeconds] = useState("60");
  const [withPayloads, setWithPayloads] = useState(false);
  const [trace, setTrace] = useState(null);
  const [state, setState] = useState({ rows: [], seen: 0, missed: 0 });
  const [live, setLive] = useState("");
  const [error, setError] = useState(null);
  const last = useRef(0);
  useEffect(() => {
    if (trace === null) return undefined;
    const ending = new AbortController();
    let waiting = [];
    let timer;
    last.current = 0;
    setState({ rows: [], seen: 0, missed: 0 });
    const show = () => {
      timer = undefined;
      const fresh = waiting.reverse();
      waiting = [];
      const missed = fresh.reduce((sum, row) => sum + (row.missed ?? 0), 0);
      setState((before) => ({
        rows: fresh.concat(before.rows).slice(0, SHOWN),
        seen: before.seen + fresh.length,
        missed: before.missed + missed,
      }));
    };
    const note = (now, why) => {
      setLive(now);
      setError(why ?? null);
    };
    followOn(`traces/${trace}`, { queryOf: () => ({ after: last.current }), signal: ending.signal, state: note }, (rows) => {
      for (const row of rows) {
        if (row.kind === "trace_ended") {
          ending.abort();
          setLive("ended");
        } else {
          last.current = row.number;
          waiting.push(row);
        }
      }
      timer ??= setTimeout(show, 200);
    });
    return () => {
      ending.abort();
      clearTimeout(timer);
      // The page that has started it does not show it any more.
      call(`traces/${trace}`, { method: "DELETE" }).catch(() => {});
    };
  }, [trace]);
  const start = async (event) => {
    event.preventDefault();
    setError(null);
    try {
      const body = { client_id: id, duration_seconds: Number(seconds), payloads: withPayloads };
      const started = await call("traces", { method: "POST", body });
      setTrace(started.id);
    } catch (failure) {
      setError(failure);
    }
  };
  const stop = () => {
    setTrace(null);
    setLive("");
  };
  const isRunning = trace !== null && live !== "ended";
  const columns = [
    { key: "at", label: "Time", cell: (row) => html`<${Time} at=${row.at} />` },
    { key: "direction", label: "Way", is: "short", cell: (row) => html`<${Direction} of=${row.direction} />` },
    { key: "kind", label: "Packet", is: "grow", cell: (row) => html`<code>${row.kind.replaceAll("_", " ").toUpperCase()}</code>` },
    { key: "topic", label: "Topic", is: "grow", cell: (row) => html`<code>${topicsOf(row)}</code>` },
    { key: "details", label: "Details", is: "wide grow", cell: details },
    ...(withPayloads
      ? [
          {
            key: "payload",
            label: "Payload",
            is: "wide grow",
            cell: (row) => html`<code>${payload(bytesOf((row.payload_base64 ?? "").slice(0, 128))).text}</code>`,
          },
        ]
      : []),
    { key: "bytes", label: "Size", is: "num wide", cell: (row) => bytes(row.bytes) },
  ];
  return html`<form class="filters" onSubmit=${start}>
      <${Field} label="Seconds to trace"><input type="number" min="1" max="3600" required value=${seconds} onInput=${(event) => setSeconds(event.target.value)} /><//>
      ${permissions.administer && html`<label class="check"><input type="checkbox" checked=${withPayloads} onChange=${(event) => setWithPayloads(event.target.checked)} /> With payloads</label>`}
      <button type="submit" class="primary" disabled=${isRunning}>Start trace</button>
      <button type="button" disabled=${!isRunning} onClick=${stop}>Stop trace</button>
      ${live !== "" && html`<span class=${`feed is-${live}`} role="status">${live === "live" ? "live" : live === "ended" ? "ended" : live === "broken" ? "not live" : "connecting"}</span>`}
    </form>
    <${Fault} error=${error} />
    <${Table} label="Trace" columns=${columns} rows=${state.rows} keyOf=${(row) => row.number} empty=${isRunning ? "No packet has come yet." : "Start a trace to see every packet of the client, also while it connects."} />
    <p class="quiet" role="status">${counted(state.seen, "record")}${state.seen > SHOWN ? `; the last ${SHOWN} are shown` : ""}${state.missed > 0 ? `; ${count(state.missed)} more were left out` : ""}</p>`;
}
