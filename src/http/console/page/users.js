// Accounts in the store.

import { call } from "./api.js";
import { button, etag, remove, touched } from "./changes.js";
import { count } from "./format.js";
import {
  Ago,
  Empty,
  Head,
  ListTable,
  Search,
  Secret,
  Time,
  ask,
  html,
  linkTo,
  useMemo,
  useNow,
  usePages,
  useState,
  wordsOf,
} from "./ui.js";

function addUser(done) {
  ask({
    title: "New user",
    action: "Create",
    fields: [
      { name: "name", label: "User name", required: true },
      {
        name: "password",
        label: "Password",
        type: "password",
        autocomplete: "new-password",
        help: "left out: the account logs in with device secrets",
      },
      { name: "groups", label: "Groups", help: "separated by commas" },
    ],
    run: async ({ name, password, groups }) => {
      await call("users", {
        method: "POST",
        body: { name, password: password === "" ? undefined : password, groups: wordsOf(groups) },
      });
      done();
      return "The account is created.";
    },
  });
}

function setPassword(row, done) {
  ask({
    title: `Password of ${row.name}`,
    text: "Clients that have logged in with the former password are disconnected.",
    action: "Set",
    fields: [
      { name: "password", label: "New password", type: "password", required: true, autocomplete: "new-password" },
    ],
    run: async ({ password }) => {
      const answer = await call("user/password", {
        query: { name: row.name },
        method: "PUT",
        body: { password },
        ifMatch: etag(row),
      });
      done();
      return `The password is set.${touched(answer)}`;
    },
  });
}

function setGroups(row, done) {
  ask({
    title: `Groups of ${row.name}`,
    action: "Set",
    fields: [{ name: "groups", label: "Groups", value: row.groups.join(", "), help: "separated by commas" }],
    run: async ({ groups }) => {
      const answer = await call("user", {
        query: { name: row.name },
        method: "PATCH",
        body: { groups: wordsOf(groups) },
        ifMatch: etag(row),
      });
      done();
      return `The groups are set.${touched(answer)}`;
    },
  });
}

function setDisabled(row, done) {
  const word = row.disabled ? "Enable" : "Disable";
  ask({
    title: `${word} ${row.name}`,
    action: word,
    isDangerous: !row.disabled,
    text: row.disabled
      ? "The user may log in again."
      : "The user is disconnected and may not log in. Its sessions wait.",
    run: async () => {
      const answer = await call("user", {
        query: { name: row.name },
        method: "PATCH",
        body: { disabled: !row.disabled },
        ifMatch: etag(row),
      });
      done();
      return `Done.${touched(answer)}`;
    },
  });
}

function addSecret(row, done) {
  ask({
    title: `New device secret of ${row.name}`,
    text: "Two are valid at the same time.",
    action: "Make",
    run: async () => {
      const { secret } = await call("user/secrets", { method: "POST", query: { name: row.name } });
      done();
      setTimeout(
        () =>
          ask({
            title: "Device secret",
            text: "It is shown this time only.",
            content: html`<${Secret} text=${secret} />`,
          }),
        0,
      );
    },
  });
}

/** Offers what can be changed of a user. */
function changeUser(row, done) {
  const acts = [
    ["Password…", setPassword],
    ["Groups…", setGroups],
    ["New device secret…", addSecret],
    [row.disabled ? "Enable…" : "Disable…", setDisabled],
    ["Remove…", () => remove({ what: row.name, path: "user", query: { name: row.name }, ifMatch: etag(row), done })],
  ];
  const secrets = row.secrets.map((secret) =>
    [
      "Remove",
      () =>
        remove({
          what: `device secret ${secret.id}`,
          path: "user/secret",
          query: { name: row.name, id: secret.id },
          done,
        }),
    ].concat(secret),
  );
  ask({
    title: row.name,
    content: html`<div class="menu-of">${acts.map(([label, act]) => html`<button key=${label} type="button" onClick=${() => act(row, done)}>${label}</button>`)}</div>
      ${
        secrets.length > 0 &&
        html`<h3>Device secrets</h3><ul class="plain">${secrets.map(
          ([
            label,
            act,
            secret,
          ]) => html`<li key=${secret.id}><code>${secret.id}</code>, made <${Time} at=${secret.created_at} />${" "}
        <button type="button" onClick=${act}>${label}</button></li>`,
        )}</ul>`
      }`,
  });
}

export function Users() {
  const [search, setSearch] = useState("");
  const list = usePages("users");
  const rows = useMemo(() => list.items.filter((row) => row.name.includes(search)), [list.items, search]);
  const now = useNow(5000);
  const lastUse = (row) => Math.max(0, ...row.secrets.map((secret) => secret.last_used_at ?? 0));
  const columns = [
    {
      key: "name",
      label: "Name",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients"], { user: row.name })}>${row.name}</a>`,
    },
    {
      key: "state",
      label: "State",
      cell: (row) =>
        html`<span class=${row.disabled ? "state off" : "state on"}>${row.disabled ? "disabled" : "enabled"}</span>`,
    },
    { key: "password", label: "Password", is: "wide", cell: (row) => row.password ?? "none" },
    {
      key: "secrets",
      label: "Secrets",
      is: "wide",
      cell: (row) =>
        row.secrets.length === 0
          ? ""
          : html`${count(row.secrets.length)}${lastUse(row) > 0 ? html`, used <${Ago} at=${lastUse(row)} now=${now} />` : ""}`,
    },
    { key: "groups", label: "Groups", is: "wide", cell: (row) => row.groups.join(", ") },
    { key: "act", label: "Change", is: "act", cell: (row) => button("Change…", () => changeUser(row, list.reload)) },
  ];
  const isWithout = list.error?.code === "no_stored_users";
  return html`<${Head} title="Users">${!isWithout && html`<button type="button" class="primary" onClick=${() => addUser(list.reload)}>New user…</button>`}<//>
    <p class="quiet">Accounts in the store. Those of the file are not shown.</p>
    ${
      isWithout
        ? html`<${Empty}>This broker has no accounts in its store: auth.sources does not name users.<//>`
        : html`
      <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}><${Search} label="Name" value=${search} onInput=${setSearch} /></form>
      <${ListTable} list=${list} rows=${rows} label="Users" columns=${columns} keyOf=${(row) => row.name} empty="The store has no such account." />`
    }`;
}
