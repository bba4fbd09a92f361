// The console: who is logged in, which page is shown, and the way between pages.

import { render } from "./preact.js";
import { CallError, call, logIn, logOut, session, whenLoggedOut } from "./api.js";
import { Dialogs, Fault, Loading, ask, goTo, html, linkTo, useEffect, useRef, useState, usePlace } from "./ui.js";
import { Overview } from "./overview.js";
import { Bridges } from "./bridges.js";
import { Clients } from "./clients.js";
import { Client } from "./client.js";
import { Presence } from "./presence.js";
import { Messages, Receivers, Retained } from "./topics.js";
import { Users } from "./users.js";
import { Audit, Bans, Logins, Rules, Tokens } from "./access.js";
import { Advice, Certificates, Configuration, Log } from "./node.js";

// Each page: its name in the URL, its title, what it needs, the letter behind `g`, and what it shows.
const PAGES = [
  [
    "Live",
    [
      ["overview", "Overview", "observe", "o", Overview],
      ["clients", "Clients", "", "c", Clients],
      ["presence", "Presence", "", "p", Presence],
      ["bridges", "Bridges", "observe", "i", Bridges],
    ],
  ],
  [
    "Messages",
    [
      ["messages", "Publish and subscribe", "", "m", Messages],
      ["receivers", "Who receives this", "", "w", Receivers],
      ["retained", "Retained", "", "r", Retained],
    ],
  ],
  [
    "Access",
    [
      ["users", "Users", "administer", "u", Users],
      ["rules", "Rules", "administer", "l", Rules],
      ["tokens", "API tokens", "administer", "t", Tokens],
      ["bans", "Bans", "administer", "b", Bans],
      ["logins", "Failed logins", "administer", "f", Logins],
      ["certificates", "Certificates", "administer", "x", Certificates],
      ["audit", "Audit log", "administer", "a", Audit],
    ],
  ],
  [
    "Node",
    [
      ["advice", "Keep Alive advice", "observe", "k", Advice],
      ["configuration", "Configuration", "administer", "s", Configuration],
      ["log", "Log", "administer", "d", Log],
    ],
  ],
];
const ALL = PAGES.flatMap(([, pages]) => pages);

const WHY = {
  insecure: html`<p>This page was loaded over HTTP without encryption, so the password would be readable on its way.</p>
    <p>Open it over HTTPS, or on the machine of the broker at <code>http://localhost</code>. Behind a proxy with HTTPS, the proxy must be in <code>http.proxy_trusted</code> and send <code>X-Forwarded-Proto</code>.</p>`,
  off: html`<p>Logins on this page are turned off: <code>http.session_idle_secs</code> is 0.</p>`,
};

function Login({ state, done, why }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const first = useRef(null);
  useEffect(() => {
    document.title = "Log in · HearthMQ";
    first.current?.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const { username, password } = event.target.elements;
    setBusy(true);
    try {
      await logIn(username.value, password.value);
      done();
    } catch (failure) {
      const isWrong = failure.status === 401;
      setError(isWrong ? new CallError(401, "", "The user name or the password is wrong.") : failure);
      setBusy(false);
      password.value = "";
      password.focus();
    }
  };
  return html`<main class="login" id="main">
    <h1>HearthMQ</h1>
    ${
      state in WHY
        ? html`<div class="notice bad" role="alert">${WHY[state]}</div>`
        : html`
      <form onSubmit=${submit}>
        ${why && html`<p class="notice" role="status">${why}</p>`}
        <label class="field"><span class="label">User name</span><input ref=${first} name="username" autocomplete="username" autocapitalize="none" spellcheck=${false} required /></label>
        <label class="field"><span class="label">Password</span><input name="password" type="password" autocomplete="current-password" required /></label>
        <${Fault} error=${error} />
        <div class="buttons"><button type="submit" class="primary" disabled=${busy}>Log in</button></div>
      </form>`
    }
  </main>`;
}

const SCHEMES = ["auto", "light", "dark"];
const SCHEME_SIGNS = { auto: "◐", light: "☀", dark: "☾" };

function useScheme() {
  const [scheme, setScheme] = useState(() => localStorage.getItem("hearthmq-scheme") ?? "auto");
  useEffect(() => {
    localStorage.setItem("hearthmq-scheme", scheme);
    document.documentElement.dataset.scheme = scheme;
  }, [scheme]);
  return [scheme, () => setScheme(SCHEMES[(SCHEMES.indexOf(scheme) + 1) % SCHEMES.length])];
}

function help(pages) {
  const keys = [
    ["/", "Search on this page"],
    ["?", "This help"],
    ["↑ ↓", "The row before or after, in a table"],
    ...pages.map(([, title, , letter]) => [`g ${letter}`, title]),
  ];
  ask({
    title: "Keys",
    content: html`<dl class="keys">${keys.map(([key, meaning]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${meaning}</dd></div>`)}</dl>`,
  });
}

/** Goes to pages by keys, unless a person writes. */
function useKeys(pages) {
  useEffect(() => {
    let isGoing = false;
    let timer;
    const pressed = (event) => {
      const isWriting = event.target.closest?.("input, textarea, select, dialog");
      if (isWriting || event.altKey || event.ctrlKey || event.metaKey) return;
      if (isGoing) {
        isGoing = false;
        const page = pages.find(([, , , letter]) => letter === event.key);
        if (page) goTo(linkTo([page[0]]));
        return;
      }
      if (event.key === "g") {
        isGoing = true;
        clearTimeout(timer);
        timer = setTimeout(() => {
          isGoing = false;
        }, 1500);
      } else if (event.key === "/") {
        event.preventDefault();
        document.querySelector("input.search")?.focus();
      } else if (event.key === "?") {
        help(pages);
      }
    };
    addEventListener("keydown", pressed);
    return () => {
      removeEventListener("keydown", pressed);
      clearTimeout(timer);
    };
  }, [pages]);
}

function Shell({ me, ended }) {
  const place = usePlace();
  const [scheme, nextScheme] = useScheme();
  const [isOpen, setOpen] = useState(false);
  const may = ([, , needed]) => needed === "" || me.permissions[needed];
  const pages = ALL.filter(may);
  useKeys(pages);
  const name = place.parts[0] === "" ? pages[0][0] : place.parts[0];
  useEffect(() => setOpen(false), [place]);
  const page = ALL.find(([key]) => key === name);
  const leave = async () => {
    try {
      await logOut();
    } catch {
      // It has ended already.
    }
    ended("");
  };
  const Shown = page?.[4];
  const content =
    name === "clients" && place.parts.length > 1
      ? html`<${Client} key=${place.parts[1]} place=${place} />`
      : !page
        ? html`<h1>There is no such page</h1><p><a href=${linkTo([pages[0][0]])}>Go to the beginning</a></p>`
        : may(page)
          ? html`<${Shown} key=${name} place=${place} />`
          : html`<h1>${page[1]}</h1><p class="empty">This account may not see this page: it needs <code>${page[2]}</code>.</p>`;
  return html`<a class="skip" href="#main" onClick=${(event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  }}>Skip to the content</a>
    <header class="top">
      <button type="button" class="menu" aria-expanded=${isOpen ? "true" : "false"} aria-controls="nav" onClick=${() => setOpen(!isOpen)}>Menu</button>
      <a class="brand" href=${linkTo([pages[0][0]])}>HearthMQ</a>
      <span class="who"><span class="user" title=${me.username}>${me.username}</span>
        <button type="button" onClick=${nextScheme} aria-label=${`Colours: ${scheme}`} title="Colours: those of the system, light or dark">${SCHEME_SIGNS[scheme]}</button>
        <button type="button" aria-label="Keys" title="Keys" onClick=${() => help(pages)}>?</button>
        <button type="button" onClick=${leave}>Log out</button></span>
    </header>
    <nav id="nav" class=${isOpen ? "side open" : "side"} aria-label="Pages">${PAGES.map(([title, group]) => {
      const shown = group.filter(may);
      return (
        shown.length > 0 &&
        html`<div key=${title}><h2>${title}</h2><ul>${shown.map(([key, label]) => html`<li key=${key}><a href=${linkTo([key])} aria-current=${key === name ? "page" : undefined}>${label}</a></li>`)}</ul></div>`
      );
    })}</nav>
    <main id="main" tabindex="-1">${content}</main>`;
}

function Console() {
  const [state, setState] = useState({ is: "loading" });
  const look = async (why = "") => {
    try {
      const found = await session();
      if (found.username === undefined) {
        setState({ is: "out", login: found.login, why });
        return;
      }
      setState({ is: "in", me: await call("me") });
    } catch (error) {
      setState({ is: "broken", error });
    }
  };
  useEffect(() => {
    look();
    whenLoggedOut(() =>
      setState((before) => {
        if (before.is === "in") look("The session has ended. Log in to go on.");
        return before;
      }),
    );
  }, []);
  const shown = {
    loading: () => html`<main class="login" id="main"><h1>HearthMQ</h1><${Loading} /></main>`,
    broken: () =>
      html`<main class="login" id="main"><h1>HearthMQ</h1><${Fault} error=${state.error} retry=${() => look()} /></main>`,
    out: () => html`<${Login} state=${state.login} why=${state.why} done=${() => look()} />`,
    in: () => html`<${Shell} me=${state.me} ended=${(why) => look(why)} />`,
  };
  return html`${shown[state.is]()}<${Dialogs} />`;
}

document.documentElement.dataset.scheme = localStorage.getItem("hearthmq-scheme") ?? "auto";
const place = document.getElementById("console");
place.textContent = "";
render(html`<${Console} />`, place);
