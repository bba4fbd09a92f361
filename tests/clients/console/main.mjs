// Drives the console in Chromium. The environment has URL, of the REST interface; HTTPS_PORT; MQTT_PORT; USERNAME and PASSWORD;
// BROWSER, a file; PICTURES, a directory or nothing; and CONSOLE_FILES, a directory or nothing. Writes what is wrong, a
// line for each fault. Exit code 0 if there is none.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { connect, fleet, publish, subscribe } from "./console_fleet.mjs";

const { URL: url, MQTT_PORT, USERNAME, PASSWORD, BROWSER: executablePath, PICTURES, CONSOLE_FILES } = process.env;
const port = Number(MQTT_PORT);
const secureUrl = `https://localhost:${process.env.HTTPS_PORT}`;
const FOREIGN = "broker.example"; // resolves to this machine in this browser
const foreignUrl = `http://${FOREIGN}:${new URL(url).port}`;
const CLIENTS = 1000;
const PATIENCE = 30_000; // milliseconds
const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const faults = [];
let step = "start";

// Answers that the console expects: who is logged out, and what a client does not have.
const isExpected = (status, target) =>
  (status === 404 && /\/keep-alive\/override\b|\/api\/v1\/client\b|\/bridges\/nobody/.test(target)) ||
  (status === 401 && step === "wrong password") ||
  (step === "logout" && status === 401);

async function open(browser, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1440, height: 900 },
    colorScheme: "light",
    locale: "en-GB",
    timezoneId: "Europe/Berlin",
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("pageerror", (error) => faults.push(`${step}: error of the page: ${error.stack}`));
  page.on("console", (message) => {
    const isAnswer = /Failed to load resource/.test(message.text()); // looked at below
    if (["error", "warning"].includes(message.type()) && !isAnswer) faults.push(`${step}: console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const isOwn = [url, secureUrl, foreignUrl].some((base) => request.url().startsWith(`${base}/`));
    if (!isOwn) faults.push(`${step}: from elsewhere: ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400 && !isExpected(response.status(), response.url())) {
      faults.push(`${step}: ${response.status()}: ${response.request().method()} ${response.url()}`);
    }
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(
        `Content-Security-Policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`,
      );
    });
  });
  if (CONSOLE_FILES) {
    await page.route(/\/console\/[a-z]+\.(js|css)$/, (route) => {
      const file = path.join(CONSOLE_FILES, path.basename(new URL(route.request().url()).pathname));
      return fs.existsSync(file) ? route.fulfill({ path: file }) : route.continue();
    });
  }
  return page;
}

async function barriers(page) {
  // axe is no part of the page: the policy of the page does not hold for the debugger's own scripts.
  const isThere = await page.evaluate(() => "axe" in window);
  if (!isThere) await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
    return violations.map(
      ({ id, help, nodes }) =>
        `${id}: ${help}: ${nodes
          .slice(0, 3)
          .map((node) => node.html.slice(0, 160))
          .join(" | ")}`,
    );
  });
  for (const one of found) faults.push(`${step}: axe: ${one}`);
}

async function picture(page, name) {
  if (!PICTURES) return;
  fs.mkdirSync(PICTURES, { recursive: true });
  await page.screenshot({ path: path.join(PICTURES, `${name}.png`) });
}

async function logIn(page, username, password, base = url) {
  await page.goto(`${base}/console`);
  await page.getByLabel("User name").fill(username);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.locator("#nav").waitFor({ state: "attached" });
}

async function goTo(page, name, title) {
  step = name;
  await page.evaluate((hash) => {
    location.hash = hash;
  }, `#/${name}`);
  await page.getByRole("heading", { level: 1, name: title }).waitFor();
}

const rows = (page, label) => page.getByRole("region", { name: label, exact: true }).locator("tbody tr[data-row]");

async function expectText(page, what, text) {
  try {
    await page.getByText(text).first().waitFor();
  } catch {
    faults.push(`${step}: ${what}: ${text} is not shown`);
  }
}

async function call(line, body) {
  const [method, target] = line.split(" ");
  const answer = await fetch(`${url}${target}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(`${USERNAME}:${PASSWORD}`).toString("base64")}`,
      ...(body && { "Content-Type": "application/json" }),
    },
    body: body && JSON.stringify(body),
  });
  if (!answer.ok) throw new Error(`${line}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

/** Makes what the pages show: clients, messages, accounts, rules. */
async function populate() {
  await call("PUT /api/v1/rules/fleet", {
    priority: 500,
    effect: "allow",
    actions: ["connect", "publish", "subscribe"],
  });
  await call("PUT /api/v1/rules/watchers", {
    priority: 400,
    effect: "allow",
    actions: ["observe"],
    users: ["watcher"],
  });
  await call("POST /api/v1/users", { name: "watcher", password: "looks but does not touch", groups: ["people"] });
  await call("POST /api/v1/users", { name: "truck-9", groups: ["trucks", "north"] });
  await call("POST /api/v1/users/truck-9/secrets");
  await call("POST /api/v1/bans", { client_id: "stolen-*", reason: "reported stolen", ttl_seconds: 86_400 });
  await call("POST /api/v1/tokens", {
    name: "ci",
    rules: [{ effect: "allow", actions: ["observe"] }],
    ttl_seconds: 864_000,
  });
  const sockets = await fleet(port, CLIENTS);
  for (let number = 0; number < 50; number += 1) {
    subscribe(sockets[number], `cars/${number}/command`);
    subscribe(sockets[number], "cars/all/#");
    publish(sockets[number], `cars/${number}/state`, JSON.stringify({ speed: number, doors: "closed" }), {
      retain: true,
    });
  }
  const away = await connect(port, "away-1");
  subscribe(away, "cars/all/#");
  await new Promise((resolve) => {
    setTimeout(resolve, 200);
  });
  away.destroy();
  return sockets;
}

async function administrator(browser, sockets) {
  const page = await open(browser);
  step = "login";
  await page.goto(`${url}/console`);
  await page.getByLabel("User name").waitFor();
  await barriers(page);
  await picture(page, "login-light");
  step = "wrong password";
  await page.getByLabel("User name").fill(USERNAME);
  await page.getByLabel("Password").fill("wrong");
  await page.getByRole("button", { name: "Log in" }).click();
  await expectText(page, "a wrong password", "The user name or the password is wrong.");
  step = "login";
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await expectText(page, "the health", "The broker accepts clients and callers.");
  step = "overview";
  await page.locator(".tile .value", { hasText: "1,0" }).first().waitFor();
  for (let turn = 0; turn < 20; turn += 1) publish(sockets[turn], `cars/all/${turn}`, `turn ${turn}`);
  await page.getByRole("region", { name: "Messages per second" }).locator("canvas").waitFor();
  await barriers(page);
  await picture(page, "overview-light");

  await goTo(page, "clients", "Clients");
  await rows(page, "Clients").first().waitFor();
  await page.getByText(/^1,003 of 1,003/).waitFor();
  const inDocument = await rows(page, "Clients").count();
  if (inDocument > 80) faults.push(`clients: ${inDocument} rows are in the document`);
  await barriers(page);
  await picture(page, "clients-light");
  await page.getByRole("button", { name: /^Since/ }).click();
  await page.waitForURL(/sort=connected_at/);
  await page.getByLabel("Client", { exact: true }).fill("car-07");
  await page.getByText(/^100 of 100/).waitFor();
  await page.waitForURL(/search=car-07/);
  // The link leads to the same list, and back from a client.
  const link = page.url();
  await page.goto("about:blank");
  await page.goto(link);
  await page.getByText(/^100 of 100/).waitFor();
  await rows(page, "Clients").nth(3).getByRole("link").click();
  await page.getByRole("heading", { level: 1, name: /^car-07/ }).waitFor();
  await page.goBack();
  await page.getByText(/^100 of 100/).waitFor();
  // A row by the keyboard.
  await page.goto(`${url}/console#/clients`);
  await rows(page, "Clients").first().getByRole("link").focus();
  await page.keyboard.press("ArrowDown");
  await page.waitForFunction(() => document.activeElement?.closest("tr")?.dataset.row === "1");
  await page.keyboard.press("Enter");
  // Live: a client goes.
  await goTo(page, "clients", "Clients");
  await page.getByLabel("Client", { exact: true }).fill("car-0998");
  await page.locator(".feed.is-live").waitFor();
  sockets[998].destroy();
  await rows(page, "Clients").filter({ hasText: "offline" }).first().waitFor();

  await goTo(page, "clients/car-0001", "car-0001");
  await expectText(page, "the deadline", /the connection ends/);
  await barriers(page);
  await picture(page, "client-light");
  await page.getByRole("button", { name: "Keep Alive…" }).click();
  await page.getByLabel("Seconds", { exact: true }).fill("300");
  await page.getByLabel("Keep it for later connections").check();
  await barriers(page);
  await picture(page, "dialog-light");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await expectText(page, "the Keep Alive", "The Keep Alive is 300 s.");
  await expectText(page, "the kept Keep Alive", /is kept for later connections, set by admin/);
  await page.getByRole("button", { name: "Limits…" }).click();
  await page.getByLabel("Messages in a second").fill("50");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await expectText(page, "the limit", "message rate: 50");
  await page.getByRole("tab", { name: "Queue" }).click();
  await expectText(page, "the queue", "No message waits.");
  await page.getByRole("tab", { name: "History" }).click();
  await rows(page, "History").first().waitFor();
  await barriers(page);
  await trace(page, sockets[1], { payloads: true });
  await page.getByRole("button", { name: "End connection…" }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "End connection…" }).click();
  await page.getByRole("button", { name: "End connection", exact: true }).click();
  await expectText(page, "the end", "The connection has ended.");
  await page.locator("header .state.off").waitFor();

  await goTo(page, "presence", "Presence");
  await page.locator(".feed").first().waitFor();
  await page.waitForTimeout(500);
  const visitor = await connect(port, "visitor-1");
  await rows(page, "Events").filter({ hasText: "visitor-1" }).first().waitFor();
  visitor.destroy();
  await rows(page, "Events").filter({ hasText: "disconnected" }).first().waitFor();
  await barriers(page);
  await picture(page, "presence-light");

  await goTo(page, "messages", "Publish and subscribe");
  await page.getByLabel("Topic Filter").fill("shop/#");
  await page.getByRole("button", { name: "Subscribe", exact: true }).click();
  await page.locator(".feed").waitFor();
  await page.getByLabel("Topic", { exact: true }).fill("shop/door");
  await page.getByLabel("Payload").fill("open");
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await expectText(page, "what was published", /^Published for/);
  await rows(page, "Messages").filter({ hasText: "shop/door" }).first().waitFor();
  for (let number = 0; number < 500; number += 1) publish(sockets[5], "shop/flood", `message ${number}`);
  await expectText(page, "the count", "501 messages; the last 200 are shown");
  await rows(page, "Messages").first().getByRole("button").click();
  await expectText(page, "the message", "message 499");
  await barriers(page);
  await picture(page, "messages-light");

  await goTo(page, "receivers?topic=cars/all/1", "Who receives this");
  await rows(page, "Receivers").filter({ hasText: "car-0002" }).first().waitFor();
  await barriers(page);
  await picture(page, "receivers-light");
  await goTo(page, "retained", "Retained messages");
  await rows(page, "Retained messages").filter({ hasText: "cars/1/state" }).getByRole("button").click();
  await expectText(page, "the payload", /"speed":1/);
  await barriers(page);
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await rows(page, "Retained messages").filter({ hasText: "cars/1/state" }).waitFor({ state: "detached" });
  await picture(page, "retained-light");
  await access(page);
  await node(page);
  await bridges(page);
  await dots(page);
  await keys(page);

  step = "logout";
  const cookies = await page.context().cookies();
  const cookie = cookies.find(({ name }) => name.startsWith("hearthmq"));
  if (!cookie?.httpOnly || cookie.sameSite !== "Strict") faults.push(`the cookie: ${JSON.stringify(cookies)}`);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByLabel("User name").waitFor();
  const after = await fetch(`${url}/api/v1/me`, {
    headers: { Cookie: `${cookie.name}=${cookie.value}`, "X-HearthMQ-Console": "active" },
  });
  if (after.status !== 401 || after.headers.get("WWW-Authenticate")) faults.push(`logout: ${after.status}`);
  await page.context().close();
}

/** Waits until the broker has no trace. */
async function traced(count) {
  const until = Date.now() + PATIENCE;
  while ((await call("GET /api/v1/traces")).items.length !== count) {
    if (Date.now() > until) throw new Error(`there are not ${count} traces`);
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
  }
}

/** On the page of the client of this socket: its trace, started and stopped, and as another page leaves it. */
async function trace(page, socket, { payloads }) {
  const own = step;
  step = `${own}, trace`;
  await page.getByRole("tab", { name: "Trace" }).click();
  await expectText(page, "what a trace is", "Start a trace to see every packet of the client");
  await barriers(page);
  await page.getByRole("button", { name: "Start trace" }).click();
  await rows(page, "Trace").filter({ hasText: "CONNECTION FOLLOWED" }).first().waitFor();
  publish(socket, "cars/traced", "a message");
  const message = rows(page, "Trace").filter({ hasText: "PUBLISH" }).filter({ hasText: "cars/traced" });
  await message.first().waitFor();
  await page.locator(".feed.is-live").waitFor();
  if ((await page.getByText("a message").count()) > 0) faults.push(`${step}: a payload is shown`);
  await barriers(page);
  await picture(page, `trace-${payloads ? "light" : "watcher"}`);
  await page.getByRole("button", { name: "Stop trace" }).click();
  await page.locator(".feed").waitFor({ state: "detached" });
  await traced(0);
  const box = page.getByLabel("With payloads");
  if ((await box.count()) !== (payloads ? 1 : 0)) faults.push(`${step}: payloads are ${payloads ? "not " : ""}offered`);
  if (payloads) {
    await box.check();
    await page.getByRole("button", { name: "Start trace" }).click();
    await rows(page, "Trace").filter({ hasText: "CONNECTION FOLLOWED" }).first().waitFor();
    publish(socket, "cars/traced", "a message");
    await message.filter({ hasText: "a message" }).first().waitFor();
    await barriers(page);
    await picture(page, "trace-payloads-light");
  } else {
    await page.getByRole("button", { name: "Start trace" }).click();
    await page.locator(".feed.is-live").waitFor();
  }
  await traced(1);
  // Another part of the page ends it.
  await page.getByRole("tab", { name: "History" }).click();
  await traced(0);
  step = own;
}

/** A client, a topic, a user and a ban named `..`, which a browser removes from a path. */
async function dots(page) {
  const socket = await connect(port, "..");
  subscribe(socket, "dots/#");
  publish(socket, "..", "up", { retain: true });
  await goTo(page, "clients/..", "..");
  step = "client ..";
  await rows(page, "Subscriptions").filter({ hasText: "dots/#" }).waitFor();
  await page.getByRole("button", { name: "Keep Alive…" }).click();
  await page.getByLabel("Seconds", { exact: true }).fill("300");
  await page.getByLabel("Keep it for later connections").check();
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await expectText(page, "the Keep Alive", "The Keep Alive is 300 s.");
  await expectText(page, "the kept Keep Alive", /is kept for later connections, set by admin/);
  await page.locator(".notice").getByRole("button", { name: "Remove" }).click();
  await page.locator(".notice", { hasText: "is kept" }).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Limits…" }).click();
  await page.getByLabel("Messages in a second").fill("50");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await expectText(page, "the limit", "message rate: 50");
  await page.getByRole("button", { name: "End connection…" }).click();
  await page.getByRole("button", { name: "End connection", exact: true }).click();
  await expectText(page, "the end", "The connection has ended.");
  await page.locator("header .state.off").waitFor();
  await call("POST /api/v1/publish", [{ topic: "dots/1", payload: "it waits", qos: 1 }]);
  await page.getByRole("tab", { name: "Queue" }).click();
  await rows(page, "Queue").filter({ hasText: "dots/1" }).filter({ hasText: "it waits" }).waitFor();
  await page.getByRole("button", { name: "Drop the queue…" }).click();
  await page.getByRole("button", { name: "Drop", exact: true }).click();
  await expectText(page, "the queue", "No message waits.");
  await page.getByRole("tab", { name: "History" }).click();
  await rows(page, "History").filter({ hasText: "kicked" }).first().waitFor();
  await page.getByRole("button", { name: "Ban…" }).click();
  await page.getByRole("button", { name: "Ban", exact: true }).click();
  await expectText(page, "the ban", /^Banned;/);
  await goTo(page, "bans", "Bans");
  const banned = rows(page, "Bans").filter({ has: page.getByText("..", { exact: true }) });
  await banned.getByRole("button", { name: "Lift" }).click();
  await page.locator("dialog").getByRole("button", { name: "Remove" }).click();
  await banned.waitFor({ state: "detached" });
  (await connect(port, "..")).destroy();
  await goTo(page, "retained", "Retained messages");
  const topic = rows(page, "Retained messages").getByRole("button", { name: "..", exact: true });
  await topic.click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await topic.waitFor({ state: "detached" });
  await call("POST /api/v1/users", { name: ".." });
  await goTo(page, "users", "Users");
  const user = rows(page, "Users").filter({ has: page.getByText("..", { exact: true }) });
  await user.getByRole("button", { name: "Change…" }).click();
  await page.getByRole("button", { name: "New device secret…" }).click();
  await page.getByRole("button", { name: "Make", exact: true }).click();
  await expectText(page, "the secret", /^hmq_d_/);
  await page.getByRole("button", { name: "Close" }).click();
  await user.getByRole("button", { name: "Change…" }).click();
  await page.getByRole("button", { name: "Remove…" }).first().click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await user.waitFor({ state: "detached" });
}

async function access(page) {
  await goTo(page, "users", "Users");
  await rows(page, "Users").filter({ hasText: "truck-9" }).waitFor();
  await barriers(page);
  await picture(page, "users-light");
  await page.getByRole("button", { name: "New user…" }).click();
  await page.getByLabel("User name").fill("driver-1");
  await page.getByLabel("Password").fill("correct horse battery staple");
  await page.getByRole("button", { name: "Create" }).click();
  const driver = rows(page, "Users").filter({ hasText: "driver-1" });
  await driver.waitFor();
  const change = async (what) => {
    await driver.getByRole("button", { name: "Change…" }).click();
    await page.getByRole("button", { name: what }).click();
  };
  await change("Disable…");
  await page.getByRole("button", { name: "Disable", exact: true }).click();
  await driver.filter({ hasText: "disabled" }).waitFor();
  await change("New device secret…");
  await page.getByRole("button", { name: "Make", exact: true }).click();
  await expectText(page, "the secret", /^hmq_d_/);
  await page.getByRole("button", { name: "Close" }).click();
  await driver.getByRole("button", { name: "Change…" }).click();
  await barriers(page);
  await picture(page, "user-light");
  await page.getByRole("button", { name: "Remove…" }).click();
  await page.getByRole("button", { name: "Remove", exact: true }).click();
  await driver.waitFor({ state: "detached" });

  await goTo(page, "rules", "Rules");
  await rows(page, "Rules").filter({ hasText: "watchers" }).waitFor();
  await page.getByLabel("User", { exact: true }).fill("guest");
  await page.getByLabel("Topic", { exact: true }).fill("cars/1/state");
  await page.getByRole("button", { name: "Check" }).click();
  await expectText(page, "the check", "the rule fleet in the store");
  await barriers(page);
  await picture(page, "rules-light");
  await page.getByRole("button", { name: "New rule…" }).click();
  await page.getByLabel("Identifier").fill("no-guests");
  await page.getByLabel("Rule", { exact: true }).fill('{"priority":5,"effect":"deny","users":["guest"');
  await page.getByRole("button", { name: "Save" }).click();
  await expectText(page, "what is wrong", /This is not JSON/);
  await page.getByLabel("Rule", { exact: true }).fill('{"priority":5,"effect":"deny","users":["guest"]}');
  await page.getByRole("button", { name: "Save" }).click();
  const rule = rows(page, "Rules").filter({ hasText: "no-guests" });
  await rule.waitFor();
  await rule.getByRole("button", { name: "Remove" }).click();
  await page.locator("dialog").getByRole("button", { name: "Remove" }).click();
  await rule.waitFor({ state: "detached" });

  await goTo(page, "tokens", "API tokens");
  await rows(page, "API tokens").filter({ hasText: "ci" }).waitFor();
  await page.getByRole("button", { name: "New token…" }).click();
  await page.getByLabel("Name").fill("nightly");
  await page.getByRole("button", { name: "Make" }).click();
  await expectText(page, "the token", /^hmq_t_/);
  await page.getByRole("button", { name: "Close" }).click();
  await rows(page, "API tokens").filter({ hasText: "nightly" }).waitFor();
  await barriers(page);
  await picture(page, "tokens-light");

  await goTo(page, "bans", "Bans");
  await rows(page, "Bans").filter({ hasText: "stolen-*" }).waitFor();
  await page.getByRole("button", { name: "New ban…" }).click();
  await page.getByLabel("Which").fill("car-0500");
  await page.getByLabel("Reason").fill("test");
  await page.getByRole("button", { name: "Ban", exact: true }).click();
  await expectText(page, "the ban", "Banned; 1 disconnected.");
  const lifted = rows(page, "Bans").filter({ hasText: "car-0500" });
  await lifted.waitFor();
  await barriers(page);
  await picture(page, "bans-light");
  await lifted.getByRole("button", { name: "Lift" }).click();
  await page.locator("dialog").getByRole("button", { name: "Remove" }).click();
  await lifted.waitFor({ state: "detached" });

  await goTo(page, "logins", "Failed logins");
  await rows(page, "Failed logins").first().waitFor();
  await barriers(page);
  await picture(page, "logins-light");
  await goTo(page, "certificates", "Certificates");
  await expectText(page, "certificates", "No connected client has shown a certificate.");
  await page.getByRole("tab", { name: "Revoked" }).click();
  await expectText(page, "revoked certificates", "No certificate was revoked here.");
  await page.getByRole("tab", { name: "Pinned" }).click();
  await expectText(page, "pinned certificates", "No certificate is pinned to a client.");
  await barriers(page);
  await picture(page, "certificates-light");
  await goTo(page, "audit", "Audit log");
  await rows(page, "Changes").filter({ hasText: "no-guests" }).first().waitFor();
  await barriers(page);
  await picture(page, "audit-light");
}

async function node(page) {
  await goTo(page, "advice", "Advice on Keep Alive");
  await rows(page, "Advice").first().waitFor();
  await barriers(page);
  await picture(page, "advice-light");
  await goTo(page, "configuration", "Configuration");
  await rows(page, "Options").filter({ hasText: "auth.anonymous" }).first().waitFor();
  await page.getByLabel("Also those at their default").check();
  await page.getByLabel("Option", { exact: true }).fill("limits.connections_max");
  await expectText(page, "an option", "100,000");
  await barriers(page);
  await picture(page, "configuration-light");
  await goTo(page, "log", "Log");
  await page.getByLabel("warn", { exact: true }).check();
  await page.getByRole("button", { name: "Change" }).click();
  await page
    .locator("main code", { hasText: /^warn$/ })
    .first()
    .waitFor();
  await page.getByLabel("Filter", { exact: true }).fill("loud=very");
  step = "log, wrong filter";
  const before = faults.length;
  await page.getByRole("button", { name: "Change" }).click();
  await expectText(page, "a wrong filter", /must be a level such as info/);
  faults.splice(before, faults.length - before, ...faults.slice(before).filter((fault) => !/400: PUT/.test(fault)));
  await barriers(page);
  await picture(page, "log-light");
}

async function keys(page) {
  step = "keys";
  await page.locator("h1").focus();
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await barriers(page);
  await page.keyboard.press("Escape");
  await page.keyboard.press("g");
  await page.keyboard.press("c");
  await page.getByRole("heading", { level: 1, name: "Clients" }).waitFor();
  await page.keyboard.press("/");
  const isInSearch = await page.evaluate(() => document.activeElement?.type === "search");
  if (!isInSearch) faults.push("keys: / does not lead to the search");
}

/** The bridge mirror leads to a second broker, the other one to a port where nobody answers. */
async function bridges(page) {
  await goTo(page, "bridges", "Bridges");
  await rows(page, "Bridges").filter({ hasText: "mirror" }).filter({ hasText: "connected" }).waitFor();
  await rows(page, "Bridges").filter({ hasText: "away" }).filter({ hasText: "unreachable" }).waitFor();
  await barriers(page);
  await picture(page, "bridges-light");
  await rows(page, "Bridges").getByRole("link", { name: "mirror" }).click();
  await page.getByRole("heading", { level: 1, name: "mirror" }).waitFor();
  step = "bridges/mirror";
  await rows(page, "Topics").filter({ hasText: "mirrored/cars/" }).first().waitFor();
  await barriers(page);
  await picture(page, "bridge-light");
  await page.getByRole("button", { name: "Connect again…" }).click();
  await page.getByRole("button", { name: "Connect again", exact: true }).click();
  await expectText(page, "another connection", "The bridge connects.");
  await page.locator("header .state.on").waitFor();
  await page.getByRole("button", { name: "Stop…" }).click();
  await barriers(page);
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await expectText(page, "the end of its connection", "The bridge stops.");
  await page.locator("header .state.off").waitFor();
  await page.getByRole("button", { name: "Start…" }).click();
  await page.getByRole("button", { name: "Start", exact: true }).click();
  await page.locator("header .state.on").waitFor();
  await page.getByRole("link", { name: "$bridge/mirror" }).click();
  await page.getByRole("heading", { level: 1, name: "$bridge/mirror" }).waitFor();
  await goTo(page, "bridges/nobody", "nobody");
  step = "bridge, unknown";
  await expectText(page, "no such bridge", "There is no bridge with this name.");
}

const PAGES = [
  ["overview", "Overview"],
  ["clients", "Clients"],
  ["clients/car-0003", "car-0003"],
  ["clients/car-0003?tab=trace", "car-0003"],
  ["bridges/mirror", "mirror"],
  ["presence", "Presence"],
  ["bridges", "Bridges"],
  ["bridges/away", "away"],
  ["messages", "Publish and subscribe"],
  ["receivers?topic=cars/all/1", "Who receives this"],
  ["retained", "Retained messages"],
  ["users", "Users"],
  ["rules", "Rules"],
  ["tokens", "API tokens"],
  ["bans", "Bans"],
  ["logins", "Failed logins"],
  ["certificates", "Certificates"],
  ["audit", "Audit log"],
  ["advice", "Advice on Keep Alive"],
  ["configuration", "Configuration"],
  ["log", "Log"],
];

/** Looks at all pages in other colours or another width. */
async function looks(browser, kind, options) {
  const page = await open(browser, options);
  step = `login, ${kind}`;
  await page.goto(`${url}/console`);
  await page.getByLabel("User name").waitFor();
  await barriers(page);
  await picture(page, `login-${kind}`);
  await logIn(page, USERNAME, PASSWORD);
  for (const [name, title] of PAGES) {
    await goTo(page, name, title);
    step = `${name}, ${kind}`;
    await page.waitForTimeout(700);
    await barriers(page);
    await picture(page, `${name.split("?topic=")[0].replaceAll(/[/?=]/g, "-")}-${kind}`);
    const overflow = await page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
    if (overflow > 0) faults.push(`${step}: the page is ${overflow} pixels too wide`);
  }
  if (kind === "phone") {
    step = "menu, phone";
    await page.getByRole("button", { name: "Menu" }).click();
    await page.getByRole("link", { name: "Clients", exact: true }).waitFor();
    await barriers(page);
    await picture(page, "menu-phone");
  }
  await page.context().close();
}

/** Over HTTPS the cookie is for HTTPS alone; under another name over HTTP there is no login, and the page says why. */
async function ways(browser) {
  const secure = await open(browser, { ignoreHTTPSErrors: true });
  step = "https";
  await logIn(secure, USERNAME, PASSWORD, secureUrl);
  await secure.locator(".tile").first().waitFor();
  const [cookie] = await secure.context().cookies();
  const isRight = cookie.name.startsWith("__Host-") && cookie.secure && cookie.httpOnly && cookie.sameSite === "Strict";
  if (!isRight) faults.push(`https: the cookie is ${JSON.stringify(cookie)}`);
  await secure.context().close();
  const open_ = await open(browser);
  step = "http elsewhere";
  await open_.goto(`${foreignUrl}/console`);
  await expectText(open_, "why there is no login", /the password would be readable on its way/);
  if ((await open_.getByLabel("Password").count()) > 0) faults.push("http elsewhere: there is a form");
  await barriers(open_);
  await picture(open_, "insecure-light");
  await open_.context().close();
}

/** A list of 100,000 clients, which the broker is not asked for: only the rows in sight are in the document. */
async function large(browser) {
  const ALL = 100_000;
  const page = await open(browser);
  await page.route(/\/api\/v1\/clients\?/, (route) => {
    const query = new URL(route.request().url()).searchParams;
    const from = Number(query.get("cursor") ?? 0);
    const to = Math.min(ALL, from + Number(query.get("limit")));
    const items = Array.from({ length: to - from }, (_, at) => ({
      client_id: `device-${String(from + at).padStart(6, "0")}`,
      online: (from + at) % 3 !== 0,
      keep_alive: 60,
      protocol: 5,
      connected_at: 1_764_000_000_000 + at * 977,
      subscriptions: at % 7,
      queued: (from + at) % 1000,
    }));
    return route.fulfill({
      json: { items, next: to < ALL ? String(to) : undefined, total: from === 0 ? ALL : undefined },
    });
  });
  step = "login, many";
  await logIn(page, USERNAME, PASSWORD);
  await goTo(page, "clients", "Clients");
  step = "many";
  await page.getByText(/^2,000 of 100,000/).waitFor();
  await page.getByRole("button", { name: /^Queued/ }).click(); // another order needs all of them
  await page.getByText(/^100,000 of 100,000$/).waitFor();
  const frame = page.getByRole("region", { name: "Clients", exact: true });
  await frame.evaluate((element) => {
    element.scrollTop = element.scrollHeight;
  });
  await rows(page, "Clients").filter({ hasText: "999" }).last().waitFor();
  const inDocument = await rows(page, "Clients").count();
  if (inDocument > 80) faults.push(`many: ${inDocument} rows are in the document`);
  await page.context().close();
}

/** An account that may only look sees no button that would be refused. */
async function watcher(browser, sockets) {
  const page = await open(browser);
  step = "login, watcher";
  await logIn(page, "watcher", "looks but does not touch");
  step = "watcher";
  const pages = await page.getByRole("navigation", { name: "Pages" }).getByRole("link").allTextContents();
  const expected = [
    "Overview",
    "Clients",
    "Presence",
    "Bridges",
    "Publish and subscribe",
    "Who receives this",
    "Retained",
    "Keep Alive advice",
  ];
  if (pages.join() !== expected.join()) faults.push(`watcher: pages ${pages}`);
  await goTo(page, "clients/car-0003", "car-0003");
  await page.getByRole("heading", { name: "Session" }).waitFor();
  await rows(page, "Subscriptions").first().waitFor();
  const noButtons = async () => {
    const buttons = await page.locator("main button").allTextContents();
    if (buttons.length > 0) faults.push(`${step}: buttons ${buttons}`);
  };
  await noButtons();
  await trace(page, sockets[3], { payloads: false });
  await goTo(page, "bridges/mirror", "mirror");
  step = "watcher, bridge";
  await rows(page, "Topics").first().waitFor();
  await noButtons();
  await goTo(page, "users", "Users");
  await expectText(page, "a page that it may not see", /may not see this page/);
  await goTo(page, "overview", "Overview");
  await page.locator(".tile").first().waitFor();
  // The account is disabled: the next call ends the session.
  step = "logout";
  await call("PATCH /api/v1/users/watcher", { disabled: true });
  await expectText(page, "the end of the session", "The session has ended. Log in to go on.");
  await page.context().close();
}

// Without the sandbox, because a container may not give Chromium the namespaces that it needs. The page is ours.
const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: ["--no-sandbox", "--disable-dev-shm-usage", `--host-resolver-rules=MAP ${FOREIGN} 127.0.0.1`],
});
try {
  const sockets = await populate();
  await administrator(browser, sockets);
  await looks(browser, "dark", { colorScheme: "dark" });
  await looks(browser, "phone", {
    viewport: { width: 390, height: 844 },
    isMobile: true,
    hasTouch: true,
    deviceScaleFactor: 2,
  });
  await ways(browser);
  await large(browser);
  await watcher(browser, sockets);
} catch (error) {
  faults.push(`${step}: ${error.stack}`);
  for (const context of browser.contexts()) {
    for (const page of context.pages()) await picture(page, "at-the-fault").catch(() => {});
  }
} finally {
  await browser.close();
}
for (const fault of faults) console.log(fault);
process.exit(faults.length > 0 ? 1 : 0);
