#!/usr/bin/env python3
"""Lints and renders the Helm chart, and checks what it renders against the schemas of Kubernetes.

    cargo build --release && tests/packages/chart.py

The variables of the environment that the chart, the Dockerfile and the configuration for docker compose set are given
to `hearthmq check-config`: an option that does not exist, or a wrong value, is an error there.

Needs openssl, and pip for Helm's library and the schemas, which come into target/packages-venv. HEARTHMQ names another
program than target/release/hearthmq. Exit code 0 if nothing is found. ServiceMonitor and PrometheusRule have no schema
in Kubernetes: only their names and labels are checked.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("HEARTHMQ", ROOT / "target/release/hearthmq")).resolve()
VENV = ROOT / "target/packages-venv"
PACKAGES = ("helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0", "pyyaml==6.0.3")
CHART = ROOT / "deploy/helm/hearthmq"
KUBERNETES = "1.35.0"
EVERYTHING = {
    "tls": {"secret": "server", "clientCaSecret": "devices"},
    "plain": {"mqtt": False, "websocket": True},
    "config": "[limits]\nconnections_max = 20000\n",
    "extraEnv": [{"name": "HEARTHMQ_LOG__FORMAT", "value": "json"}],
    "service": {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "annotations": {"a": "b"},
    },
    "persistence": {"storageClass": "fast", "annotations": {"a": "b"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "iot", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
    "podLabels": {"team": "iot"},
    "podAnnotations": {"a": "b"},
    "priorityClassName": "high",
}
VARIANTS = {
    "defaults": {},
    "everything": EVERYTHING,
    "without a volume": {"persistence": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
    "own secret and account": {
        "adminPassword": {"existingSecret": "mine", "key": "word"},
        "serviceAccount": {"create": False, "name": "mine"},
    },
}
# Values that the schema of the chart must refuse.
WRONG = (
    {"replicas": 2},
    {"nats": {"servers": ["nats://nats:4222"]}},
    {"tls": {"clientAuth": "none"}},
    {"servicemonitor": {}},
    {"service": {"type": "Node"}},
)
UNKNOWN_TO_KUBERNETES = {"ServiceMonitor", "PrometheusRule"}


def in_venv():
    """Goes on with an interpreter that has the packages."""
    python = VENV / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    done = subprocess.run([python, "-c", "import helm_python, kubernetes_validate, yaml"], stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        subprocess.run([VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True)
    if pathlib.Path(sys.prefix) != VENV:
        os.execv(python, [python, __file__])


in_venv()

import helm_python  # noqa: E402
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402


def faults_of_lint():
    report = helm_python.lint(str(CHART), strict=True, kube_version=f"v{KUBERNETES}")
    for message in report["messages"]:
        if message["severity"] >= 2:
            yield f"lint: {message['path']}: {message['error']}"
    yield from (f"lint: {error}" for error in report["errors"])


def rendered(chart, values):
    files = chart.render(values, name="iot", namespace="things")
    documents = [document for name, text in files.items() if name.endswith(".yaml") for document in yaml.safe_load_all(text)]
    return [document for document in documents if document]


def faults_of_manifests(manifests):
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if not name.startswith(("iot-hearthmq", "mine")):
            yield f"{kind} {name}: not named after the release"
        if kind in UNKNOWN_TO_KUBERNETES:
            if manifest["metadata"]["labels"].get("release") != "prometheus":
                yield f"{kind} {name}: the operator does not find it"
            continue
        try:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{kind} {name}: {error.message} at {'.'.join(map(str, error.path))}"


def of_kind(manifests, kind):
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def faults_of_references(manifests):
    """Yields what refers to something that is not there: ports, volumes, selectors."""
    (stateful,) = of_kind(manifests, "StatefulSet")
    pod = stateful["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            if ports.get(port["targetPort"]) is None:
                yield f"a service leads to {port['targetPort']}, which no container has"
        if not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items():
            yield f"{service['metadata']['name']} selects no pod"
    if stateful["spec"]["serviceName"] not in [one["metadata"]["name"] for one in of_kind(manifests, "Service")]:
        yield "the service of the StatefulSet is missing"
    claims = stateful["spec"].get("volumeClaimTemplates", [])
    volumes = {one["name"] for one in pod["spec"]["volumes"]} | {one["metadata"]["name"] for one in claims}
    for mount in container["volumeMounts"]:
        if mount["name"] not in volumes:
            yield f"there is no volume {mount['name']}"
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if container[name]["httpGet"]["port"] not in ports:
            yield f"{name} asks a port that is not there"
    for monitor in of_kind(manifests, "ServiceMonitor"):
        wanted = {**monitor["spec"]["selector"]["matchLabels"], "hearthmq/scrape": "yes"}
        found = [one for one in of_kind(manifests, "Service") if wanted.items() <= one["metadata"]["labels"].items()]
        if len(found) != 1:
            yield f"the ServiceMonitor finds {len(found)} services"


def environment_of(manifests):
    (stateful,) = of_kind(manifests, "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value", "a-pod") for variable in container["env"]}


def environment_of_image():
    (block,) = re.findall(r"^ENV (.*?[^\\])$", (ROOT / "deploy/container/Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def environment_of_compose():
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            known = (ROOT / "deploy/compose" / source).exists() if source.startswith(".") else source in compose["volumes"]
            if not known:
                raise SystemExit(f"compose: there is no {source}")
    return environment_of_image() | compose["services"]["hearthmq"]["environment"]


def fault_of_environment(title, environment, configuration=""):
    """Yields what the program says of these variables, with files of this machine in place of those in a pod."""
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
        files = ["-keyout", directory / "tls.key", "-out", directory / "tls.crt"]
        subprocess.run([*new, *files], check=True, stderr=subprocess.DEVNULL)
        (directory / "ca.crt").write_bytes((directory / "tls.crt").read_bytes())
        (directory / "password").write_text("word")
        (directory / "hearthmq.toml").write_text(configuration)
        environment = {name: re.sub(r"^/run/secrets(/[\w-]+)?/", f"{directory}/", value) for name, value in environment.items()}
        environment = {name: re.sub(r":\d+$", ":0", value) for name, value in environment.items()}
        for name in environment:
            if name.endswith("PASSWORD_FILE"):
                environment[name] = str(directory / "password")
        environment["HEARTHMQ_DATA_DIR"] = str(directory / "data")
        command = [PROGRAM, "check-config", directory / "hearthmq.toml"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"{title}: {done.stderr.strip()}"


def faults_of_values(chart):
    for values in WRONG:
        try:
            chart.validate_schema(values)
            yield f"the schema of the values allows {values}"
        except helm_python.HelmError:
            pass


def main():
    helm_python.disable_logging()
    chart = helm_python.Chart.load(str(CHART))
    faults = [*faults_of_lint(), *faults_of_values(chart)]
    for title, values in VARIANTS.items():
        manifests = rendered(chart, values)
        print(f"{title}: {len(manifests)} manifests")
        found = [*faults_of_manifests(manifests), *faults_of_references(manifests)]
        found += fault_of_environment("environment", environment_of(manifests), values.get("config", ""))
        faults += [f"{title}: {fault}" for fault in found]
    faults += fault_of_environment("Dockerfile", environment_of_image())
    faults += fault_of_environment("compose", environment_of_compose())
    for rule in of_kind(rendered(chart, EVERYTHING), "PrometheusRule"):
        if rule["spec"] != yaml.safe_load((ROOT / "deploy/prometheus/hearthmq.rules.yml").read_text()):
            faults.append("PrometheusRule: not the rules of deploy/prometheus")
    for board in of_kind(rendered(chart, EVERYTHING), "ConfigMap"):
        if board["metadata"]["name"].endswith("-dashboard"):
            json.loads(board["data"]["hearthmq.json"])
    for fault in faults:
        print(f"FAIL {fault}")
    print(f"chart: {'FAIL' if faults else 'ok'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
