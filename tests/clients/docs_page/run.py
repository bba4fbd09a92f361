#!/usr/bin/env python3
"""The page of the REST calls, as a person uses it in a browser.

    cargo build --release && tests/clients/docs_page/run.py

Chromium opens /api/v1/docs of a fresh program, logs in and makes a call. Nothing may be loaded from elsewhere, violate
the Content-Security-Policy of the page, or be an error in the console.

Needs nodejs, npm and chromium. What drives the browser comes from its registry, in the version below, into
target/clients. Exit code 0 if nothing is found.
"""

import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from broker import ADMIN, Broker  # noqa: E402

TARGET = HERE.parents[2] / "target/clients"
PUPPETEER = "puppeteer-core@24.43.1"  # the last one for the Node.js of Debian 12
BROWSER = "chromium"
PATIENCE = 300  # seconds


def install():
    TARGET.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", TARGET, PUPPETEER]
    subprocess.run(command, check=True, stdout=sys.stderr)
    shutil.copy(HERE / "page.mjs", TARGET / "docs_page.mjs")  # next to node_modules


def main():
    browser = shutil.which(BROWSER)
    if browser is None:
        raise SystemExit(f"{BROWSER} is not installed")
    install()
    with Broker() as broker:
        environment = os.environ | {
            "URL": f"http://127.0.0.1:{broker.ports['http']}",
            "USERNAME": ADMIN,
            "PASSWORD": broker.password,
            "BROWSER": browser,
        }
        done = subprocess.run(["node", TARGET / "docs_page.mjs"], env=environment, timeout=PATIENCE, check=False)
    print("page of the REST calls: ok" if done.returncode == 0 else "page of the REST calls: FAIL")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
