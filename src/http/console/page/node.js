// The node: its configuration, its log, certificates, and advice on Keep Alive.

import { call, part } from "./api.js";
import { button, remove } from "./changes.js";
import { count, optionText } from "./format.js";
import {
  Ago,
  Answered,
  Fault,
  Field,
  Head,
  ListTable,
  Search,
  Table,
  Time,
  ask,
  goTo,
  html,
  linkTo,
  say,
  useCall,
  useEffect,
  useMemo,
  useNow,
  usePages,
  useRested,
  useState,
} from "./ui.js";

export function Configuration({ place }) {
  const answer = useCall("configuration");
  const [search, setSearch] = useState(place.query.search ?? "");
  const all = place.query.all === "true";
  const rested = useRested(search);
  const set = (more) => goTo(linkTo(["configuration"], { search: rested, all, ...more }), { replace: true });
  useEffect(() => set({}), [rested]);
  const rows = useMemo(
    () => (answer.data?.options ?? []).filter((option) => (all || option.is_changed) && option.name.includes(search)),
    [answer.data, all, search],
  );
  const columns = [
    { key: "name", label: "Option", is: "grow", cell: (row) => html`<code>${row.name}</code>` },
    {
      key: "value",
      label: "In force",
      is: "grow",
      cell: (row) =>
        row.is_hidden
          ? html`<i>set, and not shown</i>`
          : html`<span class=${row.is_changed ? "changed" : ""} title=${optionText(row.value)}>${optionText(row.value)}</span>`,
    },
    { key: "default", label: "Default", is: "wide grow", cell: (row) => optionText(row.default) },
    {
      key: "restart",
      label: "Change",
      is: "wide",
      cell: (row) => (row.needs_restart ? "needs a restart" : "at SIGHUP"),
    },
  ];
  return html`<${Head} title="Configuration" />
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Option" value=${search} onInput=${setSearch} placeholder="limits." />
      <label class="check"><input type="checkbox" checked=${all} onChange=${() => set({ all: !all })} /> Also those at their default</label>
    </form>
    <${Answered} of=${answer}>${(data) => html`
      <${Table} label="Options" columns=${columns} rows=${rows} keyOf=${(row) => row.name} empty="Every option is at its default." tall />
      <p class="quiet" role="status">${count(rows.length)} of ${count(data.options.length)} options; ${count(data.options.filter((option) => option.is_changed).length)} differ from the default</p>`}<//>`;
}

const LEVELS = ["error", "warn", "info", "debug", "trace"];

export function Log() {
  const answer = useCall("log");
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  const filter = text ?? answer.data?.filter ?? "";
  const save = async (event) => {
    event.preventDefault();
    try {
      await call("log", { method: "PUT", body: { filter } });
      setError(null);
      setText(null);
      answer.reload();
      say("The log has changed.");
    } catch (why) {
      setError(why);
    }
  };
  return html`<${Head} title="Log" />
    <${Answered} of=${answer}>${(data) => html`<section class="card">
      <p>The filter in force is <code>${data.filter}</code>. A change holds until the configuration is read again, or the broker is started again.</p>
      <form onSubmit=${save}>
        <fieldset class="choice"><legend>Level</legend>${LEVELS.map((level) => html`<label key=${level}><input type="radio" name="level" checked=${filter === level} onChange=${() => setText(level)} /> ${level}</label>`)}</fieldset>
        <${Field} label="Filter" help="a level, or a list such as warn,hearthmq=debug"><input required value=${filter} onInput=${(event) => setText(event.target.value)} spellcheck=${false} autocomplete="off" maxlength="1024" /><//>
        <${Fault} error=${error} />
        <div class="buttons"><button type="submit" class="primary" disabled=${filter === data.filter}>Change</button></div>
      </form></section>`}<//>`;
}

const DAY = 86_400_000;

function revoke(row, done) {
  ask({
    title: "Revoke the certificate",
    text: html`${row.subject} of ${row.issuer}. Its connections end, and no other is accepted.`,
    action: "Revoke",
    isDangerous: true,
    fields: [{ name: "reason", label: "Reason" }],
    run: async ({ reason }) => {
      const body = { issuer: row.issuer, serial_number: row.serial_number, reason: reason === "" ? undefined : reason };
      const answer = await call("certificates/revoked", { method: "POST", body });
      done();
      return `Revoked; ${count(answer.sessions_touched)} disconnected.`;
    },
  });
}

function accept(row, done) {
  ask({
    title: "Accept the certificate again",
    text: html`${row.serial_number} of ${row.issuer}`,
    action: "Accept",
    run: async () => {
      await call(`certificates/revoked/${part(row.serial_number)}`, {
        method: "DELETE",
        query: { issuer: row.issuer },
      });
      done();
      return "The certificate is accepted again.";
    },
  });
}

function Connected() {
  const list = usePages("certificates");
  const now = useNow(60_000);
  const kind = (at) => (at < now ? "bad-text" : at < now + 30 * DAY ? "warn-text" : "");
  const columns = [
    {
      key: "expires",
      label: "Expires",
      cell: (row) => html`<span class=${kind(row.expires_at)}><${Ago} at=${row.expires_at} now=${now} /></span>`,
    },
    {
      key: "client",
      label: "Client",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients", row.client_id])}>${row.client_id}</a>`,
    },
    { key: "subject", label: "Subject", is: "wide grow", cell: (row) => row.subject },
    { key: "issuer", label: "Issuer", is: "wide grow", cell: (row) => row.issuer },
    { key: "serial", label: "Serial number", is: "wide", cell: (row) => html`<code>${row.serial_number}</code>` },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        html`<button type="button" class="danger" onClick=${() => revoke(row, list.reload)}>Revoke</button>`,
    },
  ];
  return html`<${ListTable} list=${list} label="Certificates of connected clients" columns=${columns} keyOf=${(row) => row.client_id} empty="No connected client has shown a certificate." />`;
}

function Revoked() {
  const list = usePages("certificates/revoked");
  const columns = [
    { key: "serial", label: "Serial number", cell: (row) => html`<code>${row.serial_number}</code>` },
    { key: "issuer", label: "Issuer", is: "grow", cell: (row) => row.issuer },
    { key: "reason", label: "Reason", is: "wide grow", cell: (row) => row.reason ?? "" },
    {
      key: "by",
      label: "Revoked",
      is: "wide ip",
      cell: (row) => html`${row.by ?? ""} <${Time} at=${row.revoked_at} />`,
    },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) => html`<button type="button" onClick=${() => accept(row, list.reload)}>Accept again</button>`,
    },
  ];
  return html`<${ListTable} list=${list} label="Revoked certificates" columns=${columns} keyOf=${(row) => `${row.issuer} ${row.serial_number}`} empty="No certificate was revoked here." />`;
}

function Pinned() {
  const list = usePages("certificates/pins");
  const columns = [
    {
      key: "client",
      label: "Client",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients", row.client_id])}>${row.client_id}</a>`,
    },
    { key: "subject", label: "Subject", is: "wide grow", cell: (row) => row.subject },
    { key: "issuer", label: "Issuer", is: "wide grow", cell: (row) => row.issuer },
    { key: "serial", label: "Serial number", is: "wide", cell: (row) => html`<code>${row.serial_number}</code>` },
    { key: "at", label: "Pinned", cell: (row) => html`<${Time} at=${row.pinned_at} />` },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        button(
          "Remove",
          () =>
            remove({
              what: `the pin of ${row.client_id}`,
              path: "certificates/pin",
              query: { id: row.client_id },
              done: list.reload,
            }),
          true,
        ),
    },
  ];
  return html`<${ListTable} list=${list} label="Pinned certificates" columns=${columns} keyOf=${(row) => row.client_id} empty="No certificate is pinned to a client." />`;
}

const CERTIFICATES = { connected: Connected, revoked: Revoked, pinned: Pinned };
const CERTIFICATE_TABS = [
  ["connected", "Connected, by expiry"],
  ["revoked", "Revoked"],
  ["pinned", "Pinned"],
];

export function Certificates({ place }) {
  const shown = place.query.show in CERTIFICATES ? place.query.show : "connected";
  const Shown = CERTIFICATES[shown];
  return html`<${Head} title="Certificates" />
    <div class="tabs" role="tablist" aria-label="Which certificates">${CERTIFICATE_TABS.map(
      ([key, label]) =>
        html`<a key=${key} role="tab" href=${linkTo(["certificates"], { show: key === "connected" ? "" : key })} aria-selected=${shown === key ? "true" : "false"} aria-controls="certificates" id=${`tab-${key}`}>${label}</a>`,
    )}</div>
    <div role="tabpanel" id="certificates" aria-labelledby=${`tab-${shown}`}><${Shown} key=${shown} /></div>`;
}

export function Advice() {
  const list = usePages("keep-alive/advice");
  const seconds = (value) => (value === undefined ? "" : `${count(value)} s`);
  const columns = [
    {
      key: "network",
      label: "Network",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients"], { address: row.network })}>${row.network}</a>`,
    },
    { key: "listener", label: "Listener", is: "wide grow", cell: (row) => html`<code>${row.listener}</code>` },
    { key: "connections", label: "Connections", is: "num wide", cell: (row) => count(row.connections) },
    { key: "survived", label: "Survived silence", is: "num wide ip", cell: (row) => seconds(row.survived?.max) },
    { key: "fatal", label: "Fatal silence from", is: "num wide ip", cell: (row) => seconds(row.fatal?.shortest) },
    { key: "advised", label: "Advised Keep Alive", is: "num ip", cell: (row) => seconds(row.advised_keep_alive) },
    { key: "certainty", label: "Certainty", is: "wide", cell: (row) => row.certainty ?? "" },
  ];
  return html`<${Head} title="Advice on Keep Alive"><button type="button" onClick=${list.reload}>Look again</button><//>
    <p class="quiet">Which silences the connections of each network have survived since the start of the broker, and the Keep Alive that follows.</p>
    <${ListTable} list=${list} label="Advice" columns=${columns} keyOf=${(row) => `${row.network} ${row.listener}`} empty="No connection has ended since the start of the broker." />`;
}
