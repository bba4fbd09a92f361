// One client in full, and what can be done to it.

import { bytesOf, call } from "./api.js";
import { bytes, count, expiry, payload, span, version } from "./format.js";
import { Trace } from "./trace.js";
import {
  Ago,
  Answered,
  Empty,
  Facts,
  Head,
  ListTable,
  State,
  Time,
  ask,
  counted,
  html,
  linkTo,
  numberOf,
  say,
  useCall,
  useNow,
  usePages,
  usePermissions,
} from "./ui.js";

function setKeepAlive(id, client, reload) {
  const now = client.connection?.keep_alive?.in_force;
  ask({
    title: "Set Keep Alive",
    text: client.online
      ? "The change applies at once, and the connection is not affected."
      : "The client is offline: the value counts when it connects, if it is kept.",
    action: "Set",
    fields: [
      {
        name: "interval",
        label: "Seconds",
        type: "number",
        min: 30,
        max: 1200,
        required: true,
        value: String(Math.min(1200, Math.max(30, now ?? 60))),
        help: "30 to 1,200",
      },
      { name: "sticky", label: "Keep it for later connections", type: "check", value: !client.online },
      { name: "ttl", label: "For seconds", type: "number", min: 1, help: "left out: it does not end by itself" },
    ],
    run: async ({ interval, sticky, ttl }) => {
      if (!sticky && ttl === "") {
        const { keepalive } = await call("/keep-alive", { method: "POST", query: { "client-id": id, interval } });
        reload();
        return `The Keep Alive is ${count(keepalive)} s.`;
      }
      const item = { client_id: id, interval: Number(interval), sticky, ttl_seconds: numberOf(ttl) };
      const {
        results: [result],
      } = await call("keep-alive", { method: "POST", body: [item] });
      if (!result.success) throw new Error(`The Keep Alive was not changed: ${result.code}.`);
      reload();
      return `The Keep Alive is ${count(result.keepalive)} s.${result.warning ? ` ${result.warning}` : result.not_told ? " The client cannot be told." : ""}`;
    },
  });
}

function kick(id, reload) {
  ask({
    title: "End the connection",
    text: html`The connection of <b>${id}</b> ends. The client may connect again.`,
    action: "End connection",
    isDangerous: true,
    fields: [
      { name: "reason", label: "Reason for the client", help: "MQTT 5.0 clients are told" },
      { name: "session", label: "End its session as well", type: "check" },
      { name: "will", label: "Do not publish its Will", type: "check" },
    ],
    run: async ({ reason, session, will }) => {
      await call("client", {
        method: "DELETE",
        query: { id, reason, session: session ? "end" : "", will: will ? "discard" : "" },
      });
      reload();
      return "The connection has ended.";
    },
  });
}

const LIMITS = [
  ["message_rate", "Messages in a second", "PUBLISH packets that are read"],
  ["byte_rate", "Bytes in a second", "topics and payloads that are read"],
  ["queue_messages_max", "Messages in the queue"],
  ["queue_bytes_max", "Bytes in the queue"],
  ["in_flight_max", "Messages in flight", "unacknowledged ones of QoS 1 and 2"],
  ["session_expiry_interval", "Session Expiry Interval", "seconds"],
];

function setLimits(id, client, reload) {
  const now = client.session?.settings ?? {};
  ask({
    title: "Limits of the client",
    text: "An empty field removes the limit of this client; those of the configuration still count.",
    action: "Set",
    fields: [
      ...LIMITS.map(([name, label, help]) => ({
        name,
        label,
        help,
        type: "number",
        min: name === "session_expiry_interval" ? 0 : 1,
        value: now[name] === undefined ? "" : String(now[name]),
      })),
      { name: "sticky", label: "Keep them for later connections", type: "check", value: !client.online },
    ],
    run: async ({ sticky, ...values }) => {
      const body = {};
      for (const [name] of LIMITS) {
        const value = numberOf(values[name]) ?? null;
        if (value !== (now[name] ?? null)) body[name] = value;
      }
      await call("client", { method: "PATCH", query: { id }, body: { ...body, sticky } });
      reload();
      return "The limits hold from the next packet on.";
    },
  });
}

/** Asks for a ban of a client identifier. */
export function ban(kind, value, done) {
  ask({
    title: "Ban",
    text: html`<b>${value}</b> is kept out of MQTT, and disconnected.`,
    action: "Ban",
    isDangerous: true,
    fields: [
      { name: "reason", label: "Reason" },
      { name: "ttl", label: "For seconds", type: "number", min: 1, help: "left out: until the ban is lifted" },
    ],
    run: async ({ reason, ttl }) => {
      const body = { [kind]: value, reason: reason === "" ? undefined : reason, ttl_seconds: numberOf(ttl) };
      const { sessions_touched: touched } = await call("bans", { method: "POST", body });
      done();
      return `Banned; ${count(touched)} disconnected.`;
    },
  });
}

function subscribe(id, reload) {
  ask({
    title: "Subscribe for the client",
    text: "The client is not told; it must expect messages for which it has not asked.",
    action: "Subscribe",
    fields: [
      { name: "filter", label: "Topic Filter", required: true },
      {
        name: "qos",
        label: "QoS",
        type: "select",
        value: "0",
        options: [
          ["0", "0"],
          ["1", "1"],
          ["2", "2"],
        ],
      },
    ],
    run: async ({ filter, qos }) => {
      const body = { subscriptions: [{ filter, qos: Number(qos) }] };
      const {
        results: [result],
      } = await call("client/subscribe", { method: "POST", query: { id }, body });
      if (!result.success) throw new Error(`It was not subscribed: ${result.code}.`);
      reload();
      return `Subscribed with QoS ${result.qos}.`;
    },
  });
}

function unsubscribe(id, filter, reload) {
  ask({
    title: "Unsubscribe for the client",
    text: html`The subscription to <code>${filter}</code> ends.`,
    action: "Unsubscribe",
    isDangerous: true,
    run: async () => {
      const {
        results: [result],
      } = await call("client/unsubscribe", { method: "POST", query: { id }, body: { filters: [filter] } });
      if (!result.success) throw new Error(`It was not unsubscribed: ${result.code}.`);
      reload();
      return "Unsubscribed.";
    },
  });
}

function Deadline({ keepAlive, lastPacketAt }) {
  const now = useNow();
  if (!keepAlive || keepAlive.in_force === 0)
    return html`<p>Keep Alive is off: silence does not end the connection.</p>`;
  const { deadline, in_force: secs } = keepAlive;
  const left = Math.max(0, deadline - now);
  const whole = Math.max(secs * 1500, deadline - (lastPacketAt ?? now));
  return html`<div class="deadline">
    <p>${left > 0 ? html`Without a packet, the connection ends <b>in ${span(left)}</b>.` : "The deadline has passed."}</p>
    <meter min="0" max=${whole} low=${whole / 4} high=${whole / 3} optimum=${whole} value=${left} aria-label="Time until the deadline">${span(left)}</meter>
    <p class="quiet">The last packet came <${Ago} at=${lastPacketAt} now=${now} />; the client may be silent for ${count(secs * 1.5)} s.</p>
  </div>`;
}

/** Returns when the session of a connected client ends. */
const after = (seconds) =>
  seconds > 0 && seconds < 4_294_967_295 ? `${expiry(seconds)} after the connection` : expiry(seconds);

const settingsText = (settings) =>
  settings && Object.keys(settings).length > 0
    ? Object.entries(settings)
        .map(([name, value]) => `${name.replaceAll("_", " ")}: ${count(value)}`)
        .join(", ")
    : "";

function About({ client, now }) {
  const { connection = {}, session = {} } = client;
  const { keep_alive: keepAlive, tls } = connection;
  const certificate = tls?.certificate;
  const dropped = Object.entries(session.dropped ?? {}).filter(([, messages]) => messages > 0);
  return html`<div class="cards">
    <section class="card"><h2>Connection</h2>
      ${client.online && html`<${Deadline} keepAlive=${keepAlive} lastPacketAt=${connection.last_packet_at} />`}
      <${Facts} of=${[
        ["Connected", connection.connected_at && html`<${Time} at=${connection.connected_at} />`],
        ["Address", connection.address],
        ["Listener", connection.listener && html`<code>${connection.listener}</code>`],
        ["MQTT", version(connection.protocol)],
        ["TLS", tls?.version],
        ["Keep Alive", keepAlive && `${count(keepAlive.in_force)} s in force, ${count(keepAlive.asked)} s asked for`],
        ["Changed by", keepAlive?.changed_by && html`${keepAlive.changed_by}, <${Time} at=${keepAlive.changed_at} />`],
        [
          "Certificate",
          certificate &&
            html`${certificate.subject}<br />of ${certificate.issuer}, until <${Time} at=${certificate.expires_at} />`,
        ],
        [
          "Last end",
          client.last_end &&
            html`<code>${client.last_end.reason}</code>${client.last_end.by && ` by ${client.last_end.by}`}, <${Time} at=${client.last_end.at} />`,
        ],
        ["Connections so far", count(client.version)],
        ["Node", client.node],
      ]} /></section>
    <section class="card"><h2>Session</h2>
      <${Facts} of=${[
        ["User", client.username],
        [
          "Ends",
          session.expires_at ? html`<${Ago} at=${session.expires_at} now=${now} />` : after(session.expiry_interval),
        ],
        ["Subscriptions", count(session.subscriptions)],
        ["Queue", session.queue && `${counted(session.queue.messages, "message")}, ${bytes(session.queue.bytes)}`],
        ["Oldest message", session.queue?.oldest_since && html`<${Ago} at=${session.queue.oldest_since} now=${now} />`],
        [
          "In flight",
          session.in_flight &&
            `${count(session.in_flight.messages)} of ${count(session.in_flight.messages_max)}, ${bytes(session.in_flight.bytes)}`,
        ],
        [
          "Losing",
          session.losing &&
            html`<b class="bad-text">the full queue loses messages: ${count(session.losing.messages)}</b>`,
        ],
        [
          "Dropped",
          dropped.length > 0 &&
            dropped.map(([reason, messages]) => `${reason.replaceAll("_", " ")}: ${count(messages)}`).join(", "),
        ],
        ["Limits", settingsText(session.settings)],
        ["Kept limits", settingsText(session.sticky_settings)],
        ["Limits of its user", settingsText(session.user_settings)],
      ]} /></section>
  </div>`;
}

function Subscriptions({ id, permissions, online }) {
  const list = usePages("client/subscriptions", { query: { id } });
  const columns = [
    { key: "filter", label: "Topic Filter", is: "grow", cell: (row) => html`<code>${row.filter}</code>` },
    { key: "qos", label: "QoS", is: "num short", cell: (row) => row.qos },
    { key: "no_local", label: "No Local", is: "wide", cell: (row) => (row.no_local ? "yes" : "") },
    { key: "identifier", label: "Identifier", is: "num wide", cell: (row) => row.identifier },
    ...(permissions.control && online
      ? [
          {
            key: "act",
            label: "Change",
            is: "act",
            cell: (row) =>
              html`<button type="button" onClick=${() => unsubscribe(id, row.filter, list.reload)}>Unsubscribe</button>`,
          },
        ]
      : []),
  ];
  return html`
    ${permissions.control && online && html`<p><button type="button" onClick=${() => subscribe(id, list.reload)}>Subscribe…</button></p>`}
    <${ListTable} list=${list} label="Subscriptions" columns=${columns} keyOf=${(row) => row.filter} empty="The client has no subscriptions." tall=${false} />`;
}

function Queue({ id, permissions, reload }) {
  const list = usePages("client/queue", {
    query: { id, payload: permissions.administer ? "true" : undefined },
  });
  const now = useNow(5000);
  const columns = [
    { key: "topic", label: "Topic", is: "grow", cell: (row) => html`<code>${row.topic}</code>` },
    { key: "qos", label: "QoS", is: "num short wide", cell: (row) => row.qos },
    { key: "payload_bytes", label: "Payload", is: "num", cell: (row) => bytes(row.payload_bytes) },
    ...(permissions.administer
      ? [
          {
            key: "payload",
            label: "Beginning",
            is: "wide grow",
            cell: (row) =>
              html`<code>${row.payload_base64 === undefined ? "" : payload(bytesOf(row.payload_base64.slice(0, 128))).text}</code>`,
          },
        ]
      : []),
    { key: "received_at", label: "Came", cell: (row) => html`<${Ago} at=${row.received_at} now=${now} />` },
  ];
  const clear = () =>
    ask({
      title: "Drop the queue",
      text: "All messages that wait for the client are dropped.",
      action: "Drop",
      isDangerous: true,
      run: async () => {
        const { cleared } = await call("client/queue", { method: "DELETE", query: { id } });
        list.reload();
        reload();
        return `Dropped: ${counted(cleared, "message")}.`;
      },
    });
  return html`
    ${permissions.control && list.items.length > 0 && html`<p><button type="button" class="danger" onClick=${clear}>Drop the queue…</button></p>`}
    <${ListTable} list=${list} label="Queue" columns=${columns} keyOf=${(row) => `${row.topic} ${row.received_at} ${list.items.indexOf(row)}`} empty="No message waits." tall=${false} />`;
}

function History({ id }) {
  const list = usePages("client/history", { query: { id } });
  const columns = [
    { key: "version", label: "No.", is: "num short wide", cell: (row) => count(row.version) },
    { key: "connected_at", label: "From", cell: (row) => html`<${Time} at=${row.connected_at} />` },
    {
      key: "duration",
      label: "For",
      cell: (row) =>
        row.online ? html`<${State} online />` : row.duration_ms === undefined ? "" : span(row.duration_ms),
    },
    {
      key: "reason",
      label: "End",
      is: "grow",
      cell: (row) => html`<code>${row.reason ?? ""}</code>${row.by ? ` by ${row.by}` : ""}`,
    },
    { key: "address", label: "Address", is: "wide", cell: (row) => row.address },
    { key: "protocol", label: "MQTT", is: "wide short", cell: (row) => version(row.protocol) },
  ];
  return html`<${ListTable} list=${list} label="History" columns=${columns} keyOf=${(row) => row.version} empty="There is no history." tall=${false} />`;
}

const TABS = [
  ["subscriptions", "Subscriptions"],
  ["queue", "Queue"],
  ["history", "History"],
  ["trace", "Trace"],
];

export function Client({ place }) {
  const id = place.parts[1];
  const found = useCall("client", { query: { id }, every: 2000 });
  const permissions = usePermissions({ client_id: id });
  const now = useNow();
  const tab = place.query.tab ?? "subscriptions";
  const client = found.data;
  const isGone = found.error?.status === 404;
  const removeOverride = async () => {
    await call("keep-alive/override", { method: "DELETE", query: { id } });
    override.reload();
    found.reload();
    say("The kept Keep Alive is removed.");
  };
  const override = useCall("keep-alive/override", { query: { id } });
  return html`<nav class="crumbs" aria-label="Way here"><a href=${linkTo(["clients"])}>Clients</a></nav>
    <${Head} title=${id}>
      ${client && html`<${State} online=${client.online} />`}
      ${
        permissions.control &&
        html`
        <button type="button" onClick=${() =>
          setKeepAlive(id, client ?? { online: false }, () => {
            found.reload();
            override.reload();
          })}>Keep Alive…</button>
        <button type="button" onClick=${() => setLimits(id, client ?? { online: false }, found.reload)}>Limits…</button>
        ${client?.online && html`<button type="button" class="danger" onClick=${() => kick(id, found.reload)}>End connection…</button>`}`
      }
      ${permissions.administer && html`<button type="button" class="danger" onClick=${() => ban("client_id", id, found.reload)}>Ban…</button>`}
    <//>
    ${isGone ? html`<${Empty}>No client with this id has a connection or a session. Its history may remain.<//>` : html`<${Answered} of=${found}>${(shown) => html`<${About} client=${shown} now=${now} />`}<//>`}
    ${
      override.data &&
      html`<p class="notice" role="status">A Keep Alive of ${count(override.data.interval)} s is kept for later connections${override.data.by ? `, set by ${override.data.by}` : ""}${override.data.expires_at ? html`, until <${Time} at=${override.data.expires_at} />` : ""}.
      ${permissions.control && html` <button type="button" onClick=${removeOverride}>Remove</button>`}</p>`
    }
    <div class="tabs" role="tablist" aria-label="Parts of the client">${TABS.map(([key, label]) => html`<a key=${key} role="tab" id=${`tab-${key}`} href=${linkTo(["clients", id], { tab: key === "subscriptions" ? "" : key })} aria-selected=${tab === key ? "true" : "false"} aria-controls="tab-panel">${label}</a>`)}</div>
    <div role="tabpanel" id="tab-panel" aria-labelledby=${`tab-${tab}`}>
      ${
        tab === "history"
          ? html`<${History} id=${id} />`
          : tab === "trace"
          ? html`<${Trace} key=${id} id=${id} permissions=${permissions} />`
          : isGone || !client
            ? null
            : tab === "queue"
              ? html`<${Queue} id=${id} permissions=${permissions} reload=${found.reload} />`
              : html`<${Subscriptions} id=${id} permissions=${permissions} online=${client.online} />`
      }
    </div>`;
}
