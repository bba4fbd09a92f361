// What the broker does now, and has done in the last hours.

import { Choice, Facts, Fault, Head, Time, goTo, html, linkTo, useCall, useNow } from "./ui.js";
import { Chart } from "./charts.js";
import { bytes, count, perSecond, span } from "./format.js";

const READINESS = {
  ready: "The broker accepts clients and callers.",
  not_ready: "The broker is shutting down.",
  store_unavailable: "The store cannot be written: durable messages are refused.",
  redirecting: "New clients are sent to another server.",
};

const rateOf = (stats, name) => stats.rates.find((rate) => rate.name === name)?.per_second_10s;

function valueOf(stats, name) {
  const samples = stats.metrics.filter((sample) => sample.name === name);
  return samples.length === 0 ? undefined : samples.reduce((sum, sample) => sum + sample.value, 0);
}

/** The reasons of a counter, the most frequent first. */
function reasonsOf(stats, name) {
  const samples = stats.metrics.filter((sample) => sample.name === name && sample.value > 0);
  return samples.map((sample) => [sample.labels?.reason ?? "", sample.value]).sort((a, b) => b[1] - a[1]);
}

function Tile({ name, value, unit, note, link, bad }) {
  const content = html`<span class="name">${name}</span><span class="value">${value}${unit && html` <small>${unit}</small>`}</span><span class="note">${note ?? " "}</span>`;
  const kind = bad ? "tile bad" : "tile";
  return link ? html`<a class=${kind} href=${link}>${content}</a>` : html`<div class=${kind}>${content}</div>`;
}

function Reasons({ title, of }) {
  if (of.length === 0) return null;
  return html`<section class="card"><h2>${title}</h2>
    <table class="plain"><thead><tr><th scope="col">Reason</th><th scope="col" class="num">Since the start</th></tr></thead>
      <tbody>${of.map(([reason, value]) => html`<tr key=${reason}><td><code>${reason}</code></td><td class="num">${count(value)}</td></tr>`)}</tbody></table></section>`;
}

const NOTHING = { rates: [], metrics: [] };

function Now({ node = {}, stats = NOTHING }) {
  const rate = (name) => {
    const value = rateOf(stats, name);
    return value === undefined ? "–" : perSecond(value);
  };
  const queued =
    (valueOf(stats, "hearthmq_queue_messages") ?? 0) + (valueOf(stats, "hearthmq_queue_stored_messages") ?? 0);
  const queuedBytes =
    (valueOf(stats, "hearthmq_queue_bytes") ?? 0) + (valueOf(stats, "hearthmq_queue_stored_bytes") ?? 0);
  const losing = valueOf(stats, "hearthmq_sessions_over_half_queue") ?? 0;
  const dropped = rateOf(stats, "hearthmq_messages_dropped_total") ?? 0;
  const held = valueOf(stats, "hearthmq_publishers_held") ?? 0;
  const writable = valueOf(stats, "hearthmq_store_writable") ?? 1;
  return html`<div class="tiles">
    <${Tile} name="Clients online" value=${node.connections === undefined ? "–" : count(node.connections)} note=${node.sessions === undefined ? "" : `${count(node.sessions)} sessions`} link=${linkTo(["clients"], { connected: "true" })} />
    <${Tile} name="Messages in" value=${rate("hearthmq_messages_received_total")} unit="/s" note=${`${count(valueOf(stats, "hearthmq_messages_received_total"))} in all`} />
    <${Tile} name="Messages out" value=${rate("hearthmq_messages_sent_total")} unit="/s" note=${`${count(valueOf(stats, "hearthmq_messages_sent_total"))} in all`} />
    <${Tile} name="Dropped" value=${rate("hearthmq_messages_dropped_total")} unit="/s" bad=${dropped > 0} note=${`${count(valueOf(stats, "hearthmq_messages_dropped_total"))} in all`} />
    <${Tile} name="Waiting in queues" value=${count(queued)} note=${bytes(queuedBytes)} link=${linkTo(["clients"], { queued: "1" })} />
    <${Tile} name="Queues over half" value=${count(losing)} bad=${losing > 0} note="sessions" />
    <${Tile} name="Keep Alive timeouts" value=${count(valueOf(stats, "hearthmq_keep_alive_timeouts_total") ?? 0)} note="since the start" link=${linkTo(["advice"])} />
    <${Tile} name="Publishers held" value=${count(held)} bad=${held > 0} note="wait for subscribers" />
    <${Tile} name="Retained" value=${count(valueOf(stats, "hearthmq_retained_messages") ?? 0)} note=${bytes(valueOf(stats, "hearthmq_retained_bytes") ?? 0)} link=${linkTo(["retained"])} />
    <${Tile} name="Store" value=${writable === 1 ? "writable" : "not writable"} bad=${writable !== 1} note="sessions, messages" />
  </div>`;
}

const NO_HISTORY = { times: [], series: [] };

function Charts({ history, node }) {
  const found = history?.nodes.find((one) => one.node === node) ?? history?.nodes[0] ?? NO_HISTORY;
  const of = (name, label) => ({ label, values: found.series.find((series) => series.name === name)?.values ?? [] });
  const { times } = found;
  return html`<div class="charts">
    <${Chart} title="Messages per second" times=${times} series=${[of("messages_received", "in"), of("messages_sent", "out")]} />
    <${Chart} title="Clients" times=${times} format=${count} least=${5} series=${[of("connections", "online"), of("sessions", "sessions")]} />
    <${Chart} title="Bytes per second" times=${times} format=${bytes} least=${128} isBinary series=${[of("bytes_received", "in"), of("bytes_sent", "out")]} />
    <${Chart} title="Messages in queues" times=${times} format=${count} least=${5} series=${[of("queue_messages", "waiting")]} />
    <${Chart} title="Connections per second" times=${times} series=${[of("connects_accepted", "accepted"), of("connects_refused", "refused")]} />
    <${Chart} title="Trouble per second" times=${times} series=${[of("messages_dropped", "dropped messages"), of("keep_alive_timeouts", "Keep Alive timeouts")]} />
  </div>`;
}

export function Overview({ place }) {
  const wanted = place.query.span === "day" ? "day" : "hour";
  const node = useCall("node", { every: 5000 });
  const stats = useCall("stats", { every: 5000 });
  const history = useCall("stats/history", { query: { span: wanted }, every: 10_000 });
  const now = useNow();
  const set = (span_) =>
    goTo(linkTo(["overview"], { span: span_ === "hour" ? "" : span_, node: place.query.node }), { replace: true });
  const about = node.data;
  const nodes = history.data?.nodes.map((one) => one.node) ?? [];
  return html`<${Head} title="Overview">
      ${
        nodes.length > 1 &&
        html`<${Choice} label="Node" value=${place.query.node ?? nodes[0]} options=${nodes.map((name) => [name, name])}
        onChange=${(name) => goTo(linkTo(["overview"], { ...place.query, node: name }), { replace: true })} />`
      }
      <${Choice} label="Time" value=${wanted} options=${[
        ["hour", "last hour"],
        ["day", "last day"],
      ]} onChange=${set} />
    <//>
    <${Fault} error=${node.error ?? stats.error ?? history.error} retry=${() => {
      node.reload();
      stats.reload();
      history.reload();
    }} />
    <div class=${about === undefined ? "notice" : about.ready ? "notice good" : "notice bad"} role="status"><p>${about === undefined ? "Looking…" : (READINESS[about.readiness] ?? about.readiness)}${about?.draining ? ` (${about.draining.server_reference})` : ""}</p></div>
    <${Now} node=${about} stats=${stats.data} />
    <${Charts} history=${history.data} node=${place.query.node} />
    ${
      stats.data &&
      html`<div class="cards">
      <${Reasons} title="Dropped messages" of=${reasonsOf(stats.data, "hearthmq_messages_dropped_total")} />
      <${Reasons} title="Refused connections" of=${reasonsOf(stats.data, "hearthmq_connects_refused_total")} />
      <${Reasons} title="Ends of connections" of=${reasonsOf(stats.data, "hearthmq_disconnects_total")} />
    </div>`
    }
    ${
      node.data &&
      html`<section class="card"><h2>Node</h2><${Facts} of=${[
        ["Name", node.data.node],
        ["Version", node.data.version],
        ["Started", html`<${Time} at=${node.data.started_at} />`],
        ["Runs for", span(now - node.data.started_at)],
        ["Shards", count(node.data.shards)],
        [
          "MQTT listeners",
          html`<ul class="plain">${node.data.listeners.map((url) => html`<li key=${url}><code>${url}</code></li>`)}</ul>`,
        ],
      ]} /></section>`
    }`;
}
