#!/usr/bin/env python3
"""The console, as a person uses it in a browser.

    cargo build --release && tests/clients/console/run.py [PICTURES]

Chromium opens /console of a program with 1,000 clients, logs in, and drives every page: as an administrator, as an
account that may only look, in light and dark colours, and in the width of a phone; and it logs in over HTTPS, and under a name
over HTTP, where there is no login. axe looks for barriers on each page.
Nothing may be loaded from elsewhere, violate the Content-Security-Policy, or be an error in the browser's console. PICTURES is
a directory for screenshots.

Needs nodejs, npm, openssl and chromium. What drives the browser comes from its registry, in the versions below, into
target/clients. CONSOLE_FILES names a directory whose files are shown in place of those in the program, to work on them. Exit
code 0 if nothing is found.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from broker import ADMIN, Broker  # noqa: E402

TARGET = HERE.parents[2] / "target/clients"
PACKAGES = ["playwright-core@1.60.0", "axe-core@4.14.1"]  # the former is one for the Node.js of Debian 12
BROWSER = "chromium"
PATIENCE = 900  # seconds
# One bridge to a second broker, which is the first one to start, and one to nobody.
BRIDGES = """
[[bridges]]
name = "mirror"
addresses = ["mqtt://127.0.0.1:{port}"]
username = "{user}"
password_file = "{secret}"

[[bridges.topics]]
filter = "cars/#"
remote_prefix = "mirrored/"

[[bridges.topics]]
filter = "news/#"
direction = "in"

[[bridges]]
name = "away"
addresses = ["mqtt://127.9.9.9:9"]

[[bridges.topics]]
filter = "#"
"""
SETTINGS = ["auth.anonymous=true", "http.workers=2", "log.clients=none", "http.https=127.0.0.1:0"]


def install():
    TARGET.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", TARGET, *PACKAGES]
    subprocess.run(command, check=True, stdout=sys.stderr)
    for script in HERE.glob("*.mjs"):
        shutil.copy(script, TARGET / f"console_{script.name}")  # next to node_modules


def certificate(directory):
    """Makes a certificate for localhost; returns the settings for it."""
    files = {"certificate": directory / "server.pem", "key": directory / "server.key"}
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-out", files["certificate"], "-keyout", files["key"]]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return [f"tls.{name}={path}" for name, path in files.items()]


def configuration(directory, other):
    """Writes the bridges to the other broker; returns the path."""
    secret, path = directory / "secret", directory / "hearthmq.toml"
    secret.write_text(other.password)
    secret.chmod(0o600)
    path.write_text(BRIDGES.format(port=other.ports["mqtt"], user=ADMIN, secret=secret))
    return path


def https_port(broker):
    """Returns the port of the listener for HTTPS, whose line follows that of HTTP."""
    while True:
        found = re.search(r"listening on https://.*:(\d+)", broker.log.read_text())
        if found:
            return found[1]
        time.sleep(0.02)


def main():
    browser = shutil.which(BROWSER)
    if browser is None:
        raise SystemExit(f"{BROWSER} is not installed")
    install()
    with contextlib.ExitStack() as running:
        directory = pathlib.Path(running.enter_context(tempfile.TemporaryDirectory()))
        other = running.enter_context(Broker())
        os.environ["HEARTHMQ_CONFIG"] = str(configuration(directory, other))
        broker = running.enter_context(Broker(*SETTINGS, *certificate(directory)))
        environment = os.environ | {
            "URL": f"http://127.0.0.1:{broker.ports['http']}",
            "HTTPS_PORT": https_port(broker),
            "MQTT_PORT": str(broker.ports["mqtt"]),
            "USERNAME": ADMIN,
            "PASSWORD": broker.password,
            "BROWSER": browser,
            "PICTURES": str(pathlib.Path(sys.argv[1]).resolve()) if len(sys.argv) > 1 else "",
        }
        done = subprocess.run(["node", TARGET / "console_main.mjs"], env=environment, timeout=PATIENCE, check=False)
    print("console: ok" if done.returncode == 0 else "console: FAIL")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
