#!/usr/bin/env python3
"""Dashboard and alerts of deploy/, held against what /metrics of the program says.

    cargo build --release && tests/clients/monitoring/run.py

promtool checks and tests the alerts. Then Prometheus scrapes the program, with deploy/prometheus/prometheus.yml as it
is, except for addresses and intervals. Every query of the dashboard must have a result, every alert must be evaluated
without an error, and every metric and label value that an alert names must exist.

Needs prometheus (Debian: `prometheus`). Exit code 0 if nothing is found.
"""

import base64
import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import broker as program  # noqa: E402

ROOT = HERE.parents[2]
RULES = ROOT / "deploy/prometheus/hearthmq.rules.yml"
CONFIGURATION = ROOT / "deploy/prometheus/prometheus.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/hearthmq.json"
PATIENCE = 60  # seconds
# Grafana replaces these; job and instance are chosen in the dashboard.
VARIABLES = {"$__rate_interval": "30s", "$job": ".+", "$instance": ".+"}
# Labels that Prometheus adds, or whose values appear with the first call.
NOT_OF_THE_PROGRAM = {"job", "instance", "le", "status"}
# An endpoint and a broker that do not answer, so that metrics of webhooks and bridges exist.
CONFIGURED = """
[[webhook]]
name = "fleet"
url = "http://127.9.9.9:9/"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]

[[bridges]]
name = "plant"
addresses = ["mqtt://127.9.9.9:9"]

[[bridges.topics]]
filter = "sensors/#"
"""


def promtool():
    """Returns whether the files pass the checks and tests of promtool."""
    commands = (
        ["promtool", "check", "config", CONFIGURATION],
        ["promtool", "check", "rules", "--lint=all", "--lint-fatal", RULES],
        ["promtool", "test", "rules", RULES.with_suffix(".test.yml")],
    )
    return all([subprocess.run(command, check=False).returncode == 0 for command in commands])


def dashboard_queries():
    """Returns title and query of each target, and the queries of annotations and variables."""
    dashboard = json.loads(DASHBOARD.read_text())
    # An annotation selects the moments at which something was above 0: none in this short run.
    found = [(it["name"], it["expr"].removesuffix(" > 0")) for it in dashboard["annotations"]["list"]]
    for panel in dashboard["panels"]:
        found += [(panel["title"], target["expr"]) for target in panel.get("targets", ())]
    for variable in dashboard["templating"]["list"]:
        if labels := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", "")):
            found.append((variable["name"], f"count by ({labels[2]}) ({labels[1]})"))
    for name, value in VARIABLES.items():
        found = [(title, query.replace(name, value)) for title, query in found]
    return found


class Prometheus:
    """A running Prometheus that scrapes one address."""

    def __init__(self, directory, target):
        text = CONFIGURATION.read_text().replace("hearthmq:8080", target).replace(": 15s", ": 1s")
        (directory / "prometheus.yml").write_text(text)
        shutil.copy(RULES, directory)
        self.log = directory / "prometheus.log"
        command = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=log)
        self.address = None
        while self.address is None:
            try:
                raise SystemExit(f"no Prometheus: exit code {self.process.wait(0.1)}\n{self.log.read_text()}")
            except subprocess.TimeoutExpired:
                found = re.search(r'"?Listening on"? address=(\S+)', self.log.read_text())
                self.address = found and found[1]

    def ask(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path} {parameters}: {error.read().decode()}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def make_traffic(broker):
    """Makes what some queries count: a REST call, and a connection that is refused."""
    login = base64.b64encode(f"{program.ADMIN}:{broker.password}".encode()).decode()
    url = f"http://127.0.0.1:{broker.ports['http']}/client-id/nobody/status"
    urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Basic {login}"})).read()
    with socket.create_connection(("127.0.0.1", broker.ports["mqtt"])) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stranger.recv(1)


def without_result(prometheus, broker):
    """Waits until every query of the dashboard has a result; returns those that stay without one."""
    missing, until = dashboard_queries(), time.monotonic() + PATIENCE
    print(f"{len(missing)} queries of the dashboard")
    while missing and time.monotonic() < until:
        make_traffic(broker)
        time.sleep(0.5)
        missing = [(title, query) for title, query in missing if not prometheus.ask("query", query=query)["result"]]
    return [f"dashboard, {title}: no result for {query}" for title, query in missing]


def faults_of_rules(prometheus):
    faults, names = [], set()
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["health"] != "ok":
            faults.append(f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}")
        if rule["state"] == "firing":
            faults.append(f"{rule['name']} fires for a broker that has just started")
        faults += fault_of_runbook(rule)
        # Functions have a bracket behind their name; what is left are selectors.
        for name, matchers in re.findall(r"\b((?:hearthmq|process)_\w+)(?:\{([^}]*)\})?", rule["query"]):
            names.add(name)
            faults += [f"{rule['name']}: {fault}" for fault in faults_of_selector(prometheus, name, matchers)]
    print(f"{len(rules)} alerts with {len(names)} metrics")
    return faults


def faults_of_selector(prometheus, name, matchers):
    series = prometheus.ask("series", **{"match[]": name})
    if not series:
        yield f"there is no {name}"
    for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
        if label in NOT_OF_THE_PROGRAM:
            continue
        known = {one.get(label) for one in series}
        yield from (f"{name} has no {label} {value}" for value in values.split("|") if value not in known)


def fault_of_runbook(rule):
    """Yields a link that leads to no heading of the documents."""
    link = rule["annotations"]["runbook_url"]
    _, path = link.split("/blob/main/")
    file, _, anchor = path.partition("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / file).read_text(), re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    if anchor not in anchors:
        yield f"{rule['name']}: {link} leads nowhere"


def main():
    missing = [tool for tool in ("prometheus", "promtool") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)}: not installed")
    right = promtool()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hearthmq-monitoring-"))
    configuration = directory / "hearthmq.toml"
    configuration.write_text(CONFIGURED)
    program.os.environ["HEARTHMQ_CONFIG"] = str(configuration)
    with program.Broker() as broker, Prometheus(directory, f"127.0.0.1:{broker.ports['http']}") as prometheus:
        faults = without_result(prometheus, broker) + faults_of_rules(prometheus)
    shutil.rmtree(directory)
    for fault in faults:
        print(f"FAIL {fault}")
    right = right and not faults
    print(f"dashboard and alerts: {'ok' if right else 'FAIL'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
