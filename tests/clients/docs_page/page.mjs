// Opens the page of the REST calls in Chromium, logs in, and makes the call GET /api/v1/node on it.
//
// The environment has URL, of the REST interface; USERNAME and PASSWORD; and BROWSER, a file. Writes what is
// wrong, a line for each fault. Exit code 0 if there is none.

import puppeteer from "puppeteer-core";

const { URL: url, USERNAME: username, PASSWORD: password, BROWSER: executablePath } = process.env;
const PATIENCE = 60_000; // milliseconds
const CALL = "get-/api/v1/node";

const faults = [];
// Without the sandbox, because a container may not give Chromium the namespaces that it needs. The page is ours.
const args = ["--no-sandbox", "--disable-dev-shm-usage"];
const browser = await puppeteer.launch({ executablePath, headless: true, args });

try {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warn") faults.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`error of the page: ${error.message}`));
  page.on("requestfailed", (request) => faults.push(`not loaded: ${request.url()} ${request.failure()?.errorText}`));
  page.on("request", (request) => {
    const isOwn = request.url().startsWith(`${url}/`) || request.url().startsWith("data:");
    if (!isOwn) faults.push(`from elsewhere: ${request.url()}`);
  });
  page.on("response", (response) => {
    if (response.status() >= 400) faults.push(`${response.status()}: ${response.url()}`);
  });
  await page.exposeFunction("violated", (what) => faults.push(`content security policy: ${what}`));
  await page.evaluateOnNewDocument(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      window.violated(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });

  await page.goto(`${url}/api/v1/docs#?route=auth`, { waitUntil: "networkidle0" });
  await page.locator(">>> .api-key-user").fill(username);
  await page.locator(">>> .api-key-password").fill(password);
  await page.locator(">>> #auth button").click();
  await page.goto(`${url}/api/v1/docs#?route=${CALL}`); // the same document
  const [answer] = await Promise.all([
    page.waitForResponse(`${url}/api/v1/node`),
    page.locator(`>>> [id="api-request-${CALL}"] .btn-execute`).click(),
  ]);
  const node = await answer.json();
  if (answer.status() !== 200 || typeof node.version !== "string") {
    faults.push(`GET /api/v1/node: ${answer.status()} ${JSON.stringify(node)}`);
  }
  // A person sees it, too.
  const shown = () => page.$eval(`>>> [id="api-request-${CALL}"]`, (element) => element.innerText);
  const until = Date.now() + PATIENCE;
  while (!/\b200\b/.test(await shown()) && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  if (!/\b200\b/.test(await shown())) faults.push(`the page does not show the answer: ${await shown()}`);
} catch (error) {
  faults.push(String(error));
} finally {
  await browser.close();
}
for (const fault of faults) console.log(fault);
process.exitCode = faults.length > 0 ? 1 : 0;
