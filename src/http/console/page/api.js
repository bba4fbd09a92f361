// Calls of the REST interface, with the session of this browser.

const MOUNT = new URL("./", document.baseURI);
const BASE = new URL("api/v1/", MOUNT);

// Says for each call whether a person has caused it: the page alone does not keep a session alive.
let touched = true;
for (const kind of ["pointerdown", "keydown"]) {
  addEventListener(
    kind,
    () => {
      touched = true;
    },
    { capture: true, passive: true },
  );
}

function headers(more) {
  const all = { "X-HearthMQ-Console": touched ? "active" : "background", ...more };
  touched = false;
  return all;
}

/** The failure of a call. */
export class CallError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let onLogout = () => {};

/** Sets what happens when the session has ended. */
export function whenLoggedOut(react) {
  onLogout = react;
}

// Milliseconds that the clock of the broker is ahead of that of the browser.
let clockAhead = 0;

function noteClock(response) {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(date)) return;
  // The header has whole seconds.
  const ahead = date + 500 - Date.now();
  if (Math.abs(ahead - clockAhead) > 1500) clockAhead = Math.abs(ahead) > 1500 ? ahead : 0;
}

/** Returns the time of the broker. */
export const brokerNow = () => Date.now() + clockAhead;

/** Returns the URL of a call: below `/api/v1`, or with a slash at its beginning below the mount. Values that are
 * empty are left out. */
export function urlOf(path, query = {}) {
  const url = path.startsWith("/") ? new URL(path.slice(1), MOUNT) : new URL(path, BASE);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** Percent-encodes a part of a path. Names that others choose belong into the query: a browser removes `..` from a path. */
export const part = encodeURIComponent;

async function failure(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy may have answered.
  }
  const message = body.message ?? `The answer has the status ${response.status}.`;
  const error = new CallError(response.status, body.code ?? "", message);
  if (response.status === 401) onLogout();
  return error;
}

async function send(path, { method = "GET", query, body, raw, type, accept, ifMatch, signal } = {}) {
  const given = {};
  if (body !== undefined) given["Content-Type"] = type ?? "application/json";
  if (accept) given.Accept = accept;
  if (ifMatch) given["If-Match"] = ifMatch;
  let response;
  try {
    response = await fetch(urlOf(path, query), {
      method,
      headers: headers(given),
      body: raw ? body : body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError(0, "unreachable", "The broker does not answer. Is it running?");
  }
  noteClock(response);
  if (!response.ok) throw await failure(response);
  return response;
}

/** Makes a call; returns the JSON of the answer. */
export async function call(path, options) {
  const response = await send(path, options);
  const text = await response.text();
  return text === "" ? null : JSON.parse(text);
}

/** Makes a call whose answer goes on; gives each object in it to `take`, those of one piece together. */
async function follow(path, { query, signal, begun }, take) {
  const response = await send(path, { query, signal, accept: "application/x-ndjson" });
  begun();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    const items = lines.filter((line) => line !== "").map((line) => JSON.parse(line));
    take(items);
  }
}

/** Follows an answer again and again until `signal` says so. Tells `state` whether it does. */
export async function followOn(path, { queryOf, signal, state }, take) {
  let wait = 1000;
  while (!signal.aborted) {
    try {
      state("connecting");
      await follow(path, { query: queryOf(), signal, begun: () => state("live") }, (items) => {
        wait = 1000;
        take(items);
      });
      state("broken");
    } catch (error) {
      if (signal.aborted) return;
      state("broken", error);
      if ([400, 401, 403, 404].includes(error.status)) return;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, wait);
    });
    wait = Math.min(wait * 2, 15_000);
  }
}

/** Returns the place in the feed from which changes follow, without those before it. */
export async function feedPosition(signal) {
  let after;
  for (;;) {
    // Without `client_connected`, the snapshot has no clients.
    const answer = await call("events", { query: { kinds: "session_subscribed", after }, signal });
    after = answer.next;
    const last = answer.events.at(-1);
    if (last === undefined || last.event !== "snapshot") return after;
  }
}

export const session = () => call("session");
export const logIn = (username, password) => call("session", { method: "POST", body: { username, password } });
export const logOut = () => call("session", { method: "DELETE" });

/** Decodes Base64 to bytes. */
export const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
