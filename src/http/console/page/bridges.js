// Bridges to other brokers: all of them, and one in full.

import { call, part } from "./api.js";
import { button } from "./changes.js";
import { bytes, count } from "./format.js";
import {
  Ago,
  Answered,
  Empty,
  Facts,
  Head,
  Table,
  Time,
  ask,
  counted,
  html,
  linkTo,
  useCall,
  useNow,
  usePermissions,
} from "./ui.js";

const EVERY = 2000; // milliseconds

const STATE_CLASSES = { connected: "on", connecting: "off", stopped: "off", waiting: "bad" };
const State = ({ is }) => html`<span class=${`state ${STATE_CLASSES[is] ?? "off"}`}>${is}</span>`;

function setEnabled(bridge, done) {
  const word = bridge.enabled ? "Stop" : "Start";
  ask({
    title: `${word} bridge ${bridge.name}`,
    text: bridge.enabled
      ? "Its connection ends. Messages wait for it, up to the bounds of its queue, until it is started."
      : "It connects, and sends what waits.",
    action: word,
    isDangerous: bridge.enabled,
    run: async () => {
      await call(`bridges/${part(bridge.name)}`, { method: "PATCH", body: { enabled: !bridge.enabled } });
      done();
      return bridge.enabled ? "The bridge stops." : "The bridge starts.";
    },
  });
}

function reconnect(bridge, done) {
  ask({
    title: `Connect bridge ${bridge.name} again`,
    text: "Its connection, or its wait for the next attempt, ends, and it connects now.",
    action: "Connect again",
    run: async () => {
      await call(`bridges/${part(bridge.name)}/reconnect`, { method: "POST" });
      done();
      return "The bridge connects.";
    },
  });
}

const Problem = ({ of: error, now }) =>
  error && html`<code>${error.code}</code>: ${error.message}, <${Ago} at=${error.at} now=${now} />`;

/** All bridges, or the one of the place. */
export function Bridges({ place }) {
  return place.parts.length > 1
    ? html`<${Bridge} key=${place.parts[1]} name=${place.parts[1]} />`
    : html`<${List} />`;
}

function List() {
  const found = useCall("bridges", { every: EVERY });
  const now = useNow();
  const columns = [
    {
      key: "name",
      label: "Name",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["bridges", row.name])}>${row.name}</a>`,
    },
    { key: "state", label: "State", cell: (row) => html`<${State} is=${row.state} />` },
    { key: "since", label: "Since", is: "wide", cell: (row) => html`<${Ago} at=${row.since} now=${now} />` },
    { key: "out", label: "Out", is: "num wide", cell: (row) => count(row.out.messages) },
    { key: "in", label: "In", is: "num wide", cell: (row) => count(row.in.messages) },
    { key: "queued", label: "Waiting", is: "num", cell: (row) => count(row.queued.messages) },
    {
      key: "error",
      label: "Last error",
      is: "wide grow",
      cell: (row) => row.last_error && html`<code>${row.last_error.code}</code>`,
    },
  ];
  return html`<${Head} title="Bridges" />
    <p class="quiet">Connections to other brokers, from <code>[[bridges]]</code> of the configuration.</p>
    <${Answered} of=${found}>${({ items }) => html`<${Table} label="Bridges" columns=${columns} rows=${items} keyOf=${(row) => row.name} empty="The configuration has no bridge that this account may see." />`}<//>`;
}

function Actions({ bridge, reload }) {
  const permissions = usePermissions({ client_id: bridge.client_id });
  if (!permissions.administer) return null;
  return [
    bridge.enabled && button("Connect again…", () => reconnect(bridge, reload)),
    button(bridge.enabled ? "Stop…" : "Start…", () => setEnabled(bridge, reload), bridge.enabled),
  ];
}

function About({ bridge, now }) {
  return html`<div class="cards">
    <section class="card"><h2>Connection</h2>
      <${Facts} of=${[
        ["State", html`<${State} is=${bridge.state} />, since <${Time} at=${bridge.since} />`],
        ["Next attempt", bridge.retry_at && html`<${Ago} at=${bridge.retry_at} now=${now} />`],
        ["Address", bridge.address && html`<code>${bridge.address}</code>`],
        ["MQTT", bridge.protocol === "5" ? "5.0" : bridge.protocol],
        [
          "Session there",
          bridge.session_present !== undefined && (bridge.session_present ? "was present" : "was new"),
        ],
        ["Connections so far", count(bridge.connects)],
        ["Failed attempts and connections", count(bridge.failures)],
        ["Last error", bridge.last_error && html`<${Problem} of=${bridge.last_error} now=${now} />`],
      ]} /></section>
    <section class="card"><h2>Messages</h2>
      <${Facts} of=${[
        ["Sent", `${counted(bridge.out.messages, "message")}, ${bytes(bridge.out.bytes)}`],
        ["Received", `${counted(bridge.in.messages, "message")}, ${bytes(bridge.in.bytes)}`],
        ["Dropped on the way out", bridge.out.dropped > 0 && counted(bridge.out.dropped, "message")],
        ["Dropped on the way in", bridge.in.dropped > 0 && counted(bridge.in.dropped, "message")],
        ["Waiting", `${counted(bridge.queued.messages, "message")}, ${bytes(bridge.queued.bytes)}`],
        ["In flight", count(bridge.in_flight)],
        [
          "Session here",
          html`<a href=${linkTo(["clients", bridge.client_id])}><code>${bridge.client_id}</code></a>`,
        ],
      ]} /></section>
  </div>`;
}

const TOPICS = [
  { key: "direction", label: "Way", is: "short", cell: (row) => row.direction },
  { key: "local", label: "Topics here", is: "grow", cell: (row) => html`<code>${row.local_prefix}${row.filter}</code>` },
  {
    key: "remote",
    label: "Topics there",
    is: "grow",
    cell: (row) => html`<code>${row.remote_prefix}${row.filter}</code>`,
  },
  { key: "qos", label: "QoS", is: "num short", cell: (row) => row.qos },
  { key: "retained", label: "Retained messages", is: "wide", cell: (row) => row.retained },
];

function Bridge({ name }) {
  const found = useCall(`bridges/${part(name)}`, { every: EVERY });
  const now = useNow();
  const bridge = found.data;
  return html`<nav class="crumbs" aria-label="Way here"><a href=${linkTo(["bridges"])}>Bridges</a></nav>
    <${Head} title=${name}>${bridge && html`<${State} is=${bridge.state} /><${Actions} bridge=${bridge} reload=${found.reload} />`}<//>
    ${
      found.error?.status === 404
        ? html`<${Empty}>There is no bridge with this name.<//>`
        : html`<${Answered} of=${found}>${(shown) => html`<${About} bridge=${shown} now=${now} />
      <h2>Topics</h2>
      <${Table} label="Topics" columns=${TOPICS} rows=${shown.topics} keyOf=${(row) => shown.topics.indexOf(row)} empty="It has no topics." />`}<//>`
    }`;
}
