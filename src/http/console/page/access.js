// Permissions and their changes: rules, tokens, bans, failed logins, and the audit log.

import { call, part } from "./api.js";
import { button, etag, remove, touched } from "./changes.js";
import { count, span } from "./format.js";
import {
  Ago,
  Fault,
  Field,
  Head,
  ListTable,
  Search,
  Secret,
  Time,
  ask,
  html,
  linkTo,
  numberOf,
  useEffect,
  useMemo,
  useNow,
  usePages,
  useState,
  wordsOf,
} from "./ui.js";

/** Parses JSON that a person has written. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`This is not JSON: ${error.message}`);
  }
}

// Rules.

const NEW_RULE = JSON.stringify(
  { priority: 100, effect: "allow", actions: ["publish", "subscribe"], users: ["fleet"], topics: ["cars/#"] },
  null,
  2,
);

function editRule(row, done) {
  ask({
    title: row ? `Rule ${row.id}` : "New rule",
    action: "Save",
    text: "The change holds for all sessions when it is saved.",
    fields: [
      {
        name: "id",
        label: "Identifier",
        value: row?.id ?? "",
        disabled: row !== undefined,
        help: row ? "" : "left out: the broker chooses one",
      },
      {
        name: "rule",
        label: "Rule",
        type: "area",
        rows: 12,
        required: true,
        value: row ? JSON.stringify(row.rule, null, 2) : NEW_RULE,
      },
    ],
    run: async ({ id, rule }) => {
      const body = parsed(rule);
      const answer =
        id === ""
          ? await call("rules", { method: "POST", body })
          : await call("rule", { method: "PUT", query: { id }, body, ifMatch: row ? etag(row) : undefined });
      done();
      return `Saved.${touched(answer)}`;
    },
  });
}

const conditions = (rule) =>
  Object.entries(rule)
    .filter(([name]) => !["priority", "effect", "actions"].includes(name))
    .map(
      ([name, value]) =>
        `${name}: ${Array.isArray(value) ? value.join(", ") : typeof value === "object" ? JSON.stringify(value) : value}`,
    )
    .join("; ");

const ACTIONS = ["connect", "publish", "subscribe", "observe", "control", "administer"];
const DECIDERS = {
  file: (answer) => `the rule of the policy file on line ${answer.line}`,
  stored: (answer) => `the rule ${answer.id} in the store`,
  application: (answer) => `rule ${answer.position} of the application`,
  no_rule: () => "no rule matches",
  broker: () => "only the broker publishes to this topic",
  authorizer: () => "the application has an authorizer of its own",
  ban: ({ ban }) => (ban ? `the ban of ${BANNED[ban.kind] ?? ban.kind} ${ban.value}` : "a ban"),
  account: () => "the account is disabled",
  acl: (answer) => `rule ${answer.position} of the identity itself`,
};

function RuleCheck() {
  const [values, setValues] = useState({
    username: "",
    client_id: "",
    address: "",
    action: "publish",
    topic: "",
    groups: "",
  });
  const [state, setState] = useState({});
  const set = (name) => (event) => setValues({ ...values, [name]: event.target.value });
  const needsTopic = ["publish", "subscribe"].includes(values.action);
  const check = async (event) => {
    event.preventDefault();
    try {
      const body = { action: values.action, client_id: values.client_id };
      for (const name of ["username", "address"]) if (values[name] !== "") body[name] = values[name];
      if (needsTopic) body.topic = values.topic;
      if (values.groups !== "") body.groups = wordsOf(values.groups);
      setState({ answer: await call("rules/check", { method: "POST", body }) });
    } catch (error) {
      setState({ error });
    }
  };
  const { answer, error } = state;
  return html`<section class="card"><h2>May somebody do this?</h2>
    <form class="filters" onSubmit=${check}>
      <${Field} label="User"><input value=${values.username} onInput=${set("username")} autocomplete="off" /><//>
      <${Field} label="Client"><input value=${values.client_id} onInput=${set("client_id")} autocomplete="off" /><//>
      <${Field} label="Groups"><input value=${values.groups} onInput=${set("groups")} autocomplete="off" /><//>
      <${Field} label="Address"><input value=${values.address} onInput=${set("address")} autocomplete="off" /><//>
      <${Field} label="Action"><select value=${values.action} onChange=${set("action")}>${ACTIONS.map((action) => html`<option key=${action} value=${action} selected=${action === values.action}>${action}</option>`)}</select><//>
      ${needsTopic && html`<${Field} label="Topic"><input required value=${values.topic} onInput=${set("topic")} autocomplete="off" /><//>`}
      <button type="submit" class="primary">Check</button>
    </form>
    <${Fault} error=${error} />
    <div role="status">${answer && html`<p class=${answer.decision === "allow" ? "notice good" : "notice bad"}><b>${answer.decision === "allow" ? "Allowed" : "Denied"}</b>: ${(DECIDERS[answer.by] ?? (() => answer.by))(answer)}.${answer.not_known?.length > 0 ? ` Not known, and possibly decisive: ${answer.not_known.join(", ")}.` : ""}</p>`}</div>
  </section>`;
}

export function Rules() {
  const list = usePages("rules");
  const columns = [
    { key: "priority", label: "Priority", is: "num short wide", cell: (row) => count(row.priority) },
    {
      key: "id",
      label: "Identifier",
      is: "grow",
      cell: (row) =>
        html`<button type="button" class="link" onClick=${() => editRule(row, list.reload)}>${row.id}</button>`,
    },
    {
      key: "effect",
      label: "Effect",
      cell: (row) =>
        html`<span class=${row.rule.effect === "allow" ? "state on" : "state bad"}>${row.rule.effect}</span>`,
    },
    {
      key: "actions",
      label: "Actions",
      is: "wide grow",
      cell: (row) => (row.rule.actions ?? ["all but administer"]).join(", "),
    },
    { key: "conditions", label: "Conditions", is: "wide grow", cell: (row) => conditions(row.rule) },
    { key: "by", label: "Written", is: "wide ip", cell: (row) => html`${row.by ?? ""} <${Time} at=${row.set_at} />` },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        button(
          "Remove",
          () =>
            remove({
              what: `rule ${row.id}`,
              path: "rule",
              query: { id: row.id },
              ifMatch: etag(row),
              done: list.reload,
            }),
          true,
        ),
    },
  ];
  return html`<${Head} title="Rules"><button type="button" class="primary" onClick=${() => editRule(undefined, list.reload)}>New rule…</button><//>
    <p class="quiet">Rules in the store, in the order in which they are evaluated. Those of the policy file come first where priorities are equal.</p>
    <${ListTable} list=${list} label="Rules" columns=${columns} keyOf=${(row) => row.id} empty="The store has no rule; the policy file decides." tall=${false} />
    <${RuleCheck} />`;
}

// Tokens.

function addToken(done) {
  const rules = JSON.stringify([{ effect: "allow", actions: ["observe"] }], null, 2);
  ask({
    title: "New token",
    action: "Make",
    text: "What the rules of a token do not allow is denied.",
    fields: [
      { name: "name", label: "Name", required: true },
      { name: "ttl", label: "Valid for days", type: "number", min: 1, help: "left out: it does not expire" },
      { name: "rules", label: "Rules", type: "area", value: rules, required: true },
    ],
    run: async ({ name, ttl, rules: text }) => {
      const days = numberOf(ttl);
      const { token } = await call("tokens", {
        method: "POST",
        body: { name, rules: parsed(text), ttl_seconds: days === undefined ? undefined : days * 86_400 },
      });
      done();
      setTimeout(
        () =>
          ask({
            title: `Token ${name}`,
            text: "It is shown this time only.",
            content: html`<${Secret} text=${token} />`,
          }),
        0,
      );
    },
  });
}

export function Tokens() {
  const list = usePages("tokens");
  const now = useNow(5000);
  const columns = [
    { key: "name", label: "Name", is: "grow", cell: (row) => row.name },
    {
      key: "rules",
      label: "Rules",
      is: "wide grow",
      cell: (row) =>
        (row.rules ?? []).map((rule) => `${rule.effect} ${(rule.actions ?? ["all"]).join(", ")}`).join("; "),
    },
    { key: "created", label: "Made", is: "wide", cell: (row) => html`<${Time} at=${row.created_at} />` },
    {
      key: "expires",
      label: "Expires",
      cell: (row) => (row.expires_at ? html`<${Ago} at=${row.expires_at} now=${now} />` : "never"),
    },
    {
      key: "used",
      label: "Last used",
      is: "wide",
      cell: (row) => (row.last_used_at ? html`<${Ago} at=${row.last_used_at} now=${now} />` : ""),
    },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        button(
          "Remove",
          () =>
            remove({ what: `token ${row.name}`, path: "token", query: { name: row.name }, done: list.reload }),
          true,
        ),
    },
  ];
  return html`<${Head} title="API tokens"><button type="button" class="primary" onClick=${() => addToken(list.reload)}>New token…</button><//>
    <${ListTable} list=${list} label="API tokens" columns=${columns} keyOf=${(row) => row.name} empty="There are no tokens." />`;
}

// Bans.

const BANNED = { client_id: "client", user: "user", address: "address" };

function addBan(done) {
  ask({
    title: "New ban",
    action: "Ban",
    isDangerous: true,
    fields: [
      {
        name: "kind",
        label: "Of a",
        type: "select",
        value: "client_id",
        options: [
          ["client_id", "client, or pattern with *"],
          ["user", "user, or pattern with *"],
          ["address", "address or network"],
        ],
      },
      { name: "value", label: "Which", required: true },
      { name: "reason", label: "Reason" },
      { name: "ttl", label: "For seconds", type: "number", min: 1, help: "left out: until the ban is lifted" },
    ],
    run: async ({ kind, value, reason, ttl }) => {
      const body = { [kind]: value, reason: reason === "" ? undefined : reason, ttl_seconds: numberOf(ttl) };
      const answer = await call("bans", { method: "POST", body });
      done();
      return `Banned; ${count(answer.sessions_touched)} disconnected.`;
    },
  });
}

export function Bans() {
  const list = usePages("bans");
  const now = useNow(5000);
  const columns = [
    { key: "kind", label: "Of a", is: "wide", cell: (row) => BANNED[row.kind] ?? row.kind },
    { key: "value", label: "Which", is: "grow", cell: (row) => html`<code>${row.value}</code>` },
    {
      key: "reason",
      label: "Reason",
      is: "wide grow",
      cell: (row) => (row.flapping ? "connects too often" : (row.reason ?? "")),
    },
    { key: "by", label: "Set", is: "wide ip", cell: (row) => html`${row.by ?? ""} <${Time} at=${row.set_at} />` },
    {
      key: "expires",
      label: "Ends",
      cell: (row) => (row.expires_at ? html`<${Ago} at=${row.expires_at} now=${now} />` : "never"),
    },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        button("Lift", () =>
          remove({
            what: `the ban of ${row.value}`,
            path: "ban",
            query: { kind: row.kind, value: row.value },
            done: list.reload,
          }),
        ),
    },
  ];
  return html`<${Head} title="Bans"><button type="button" class="danger" onClick=${() => addBan(list.reload)}>New ban…</button><//>
    <${ListTable} list=${list} label="Bans" columns=${columns} keyOf=${(row) => `${row.kind} ${row.value}`} empty="Nobody is banned." />`;
}

// Failed logins.

export function Logins() {
  const list = usePages("logins");
  const columns = [
    {
      key: "address",
      label: "Address",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients"], { address: row.address })}>${row.address}</a>`,
    },
    { key: "over", label: "Over", is: "wide", cell: (row) => (row.over === "mqtt" ? "MQTT" : "HTTP") },
    { key: "failures", label: "Failures", is: "num", cell: (row) => count(row.failures) },
    {
      key: "refused",
      label: "Refused for",
      is: "wide",
      cell: (row) => (row.refused_seconds ? span(row.refused_seconds * 1000) : ""),
    },
    {
      key: "act",
      label: "Change",
      is: "act",
      cell: (row) =>
        button("Forget", () =>
          remove({ what: `the failures of ${row.address}`, path: `logins/${part(row.address)}`, done: list.reload }),
        ),
    },
  ];
  return html`<${Head} title="Failed logins"><button type="button" onClick=${list.reload}>Look again</button><//>
    <${ListTable} list=${list} label="Failed logins" columns=${columns} keyOf=${(row) => `${row.address} ${row.over}`} empty="No failed logins count now." />`;
}

// Audit log.

export function Audit() {
  const [search, setSearch] = useState("");
  const list = usePages("audit", { limit: 2000 });
  useEffect(() => list.more(), [list.items.length, list.loading]);
  const rows = useMemo(() => {
    const has = (row) =>
      search === "" ||
      [row.action, row.user, row.target, row.address, row.old, row.new].some((text) => text?.includes(search));
    return list.items.filter(has).reverse();
  }, [list.items, search]);
  const columns = [
    { key: "at", label: "Time", cell: (row) => html`<${Time} at=${row.at} />` },
    { key: "user", label: "Who", cell: (row) => row.user ?? "" },
    { key: "action", label: "What", cell: (row) => row.action },
    { key: "target", label: "Of what", is: "grow", cell: (row) => html`<code>${row.target ?? ""}</code>` },
    {
      key: "change",
      label: "Change",
      is: "wide grow",
      cell: (row) => (row.old || row.new ? `${row.old ?? ""} → ${row.new ?? ""}` : ""),
    },
    { key: "address", label: "From", is: "wide ip", cell: (row) => row.address ?? "" },
  ];
  return html`<${Head} title="Audit log"><button type="button" onClick=${list.reload}>Look again</button><//>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}><${Search} label="Search" value=${search} onInput=${setSearch} /></form>
    <${ListTable} list=${list} rows=${rows} label="Changes" columns=${columns} keyOf=${(row) => row.number} empty="Nothing was changed." />`;
}
