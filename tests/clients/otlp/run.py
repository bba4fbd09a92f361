#!/usr/bin/env python3
"""Traces and metrics of the program, as a collector for OpenTelemetry receives them.

    cargo build --release && tests/clients/otlp/run.py

A collector of a few lines takes OTLP over HTTP and decodes it with the official classes of opentelemetry-proto. Mosquitto's
clients publish with the user property traceparent: the spans must be one tree below that of the publisher, the subscriber must
get the property unchanged, and what is malformed, not sampled or of MQTT 3.1.1 must have no span. A REST call with the header
has a span too. Metrics must be those that /metrics has. In the end the collector does not answer any more, and clients must not
notice. No password, payload or user name may be in what was sent.

Needs mosquitto-clients and python3-venv. opentelemetry-proto comes from its registry, in the version below, into
target/clients. Exit code 0 if nothing is found.
"""

import base64
import http.server
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from broker import ADMIN, Broker  # noqa: E402

VENV = HERE.parents[2] / "target/clients/venv"
PACKAGES = ["opentelemetry-proto==1.45.2"]
PATIENCE = 60  # seconds
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET_PAYLOAD, TOKEN = "the-payload-is-secret", "Bearer the-token-is-secret"
faults = []


def check(what, holds, shown=""):
    """Notes a fault, and prints what was looked at."""
    print(f"{'ok  ' if holds else 'FAIL'}  {what}{'' if holds else f': {shown}'}")
    if not holds:
        faults.append(what)


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it receives. While it is `silent`, it answers nothing."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Receiver)
        self.bodies, self.spans, self.metrics, self.silent = [], [], {}, False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, condition):
        """Returns what a condition returns, once that is true; its last value after PATIENCE."""
        until = time.monotonic() + PATIENCE
        while not (value := condition()) and time.monotonic() < until:
            time.sleep(0.05)
        return value

    def of(self, trace):
        """Returns the spans of a trace by their names; those of deliveries in a list."""
        found = {}
        for _, span in list(self.spans):
            if span.trace_id.hex() == trace:
                found.setdefault(span.name, []).append(span)
        return found


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector = self.server
        collector.bodies.append(body)
        if collector.silent:
            time.sleep(PATIENCE)
        known = self.headers["Content-Type"] == "application/x-protobuf" and self.headers["authorization"] == TOKEN
        if known and self.path == "/v1/traces":
            request = traces.ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    collector.spans += [(resource.resource, span) for span in scope.spans]
            answer = traces.ExportTraceServiceResponse()
        elif known and self.path == "/v1/metrics":
            request = metrics.ExportMetricsServiceRequest.FromString(body)
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    collector.metrics = {metric.name: metric for metric in scope.metrics}
            answer = metrics.ExportMetricsServiceResponse()
        else:
            self.send_error(400, "unexpected request")
            return
        answer = answer.SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Client:
    """Mosquitto's clients and REST calls, as the account of the administrator."""

    def __init__(self, broker):
        self.broker = broker
        self.login = ["-p", str(broker.ports["mqtt"]), "-u", ADMIN, "-P", broker.password]

    def publish(self, topic, *more, version="5", properties=(), message=SECRET_PAYLOAD):
        command = ["mosquitto_pub", *self.login, "-V", version, "-i", "publisher", "-t", topic, "-m", message, *more]
        for name, value in properties:
            command += ["-D", "publish", "user-property", name, value]
        subprocess.run(command, check=True, timeout=PATIENCE)

    def subscribe(self, name, topic, *more):
        """Starts a subscriber of one message, and waits until it is subscribed."""
        command = ["mosquitto_sub", *self.login, "-V", "5", "-i", name, "-t", topic, "-C", "1", "-F", "%t|%P|%p", *more]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        until = time.monotonic() + PATIENCE
        while not self.is_subscribed(name, topic) and time.monotonic() < until:
            time.sleep(0.02)
        return running

    def is_subscribed(self, name, topic):
        return f'"{topic}"' in self.call("GET", f"/api/v1/clients/{name}", missing="")

    def call(self, method, path, missing=None, **headers):
        url = f"http://127.0.0.1:{self.broker.ports['http']}{path}"
        request = urllib.request.Request(url, method=method, headers=headers)
        login = base64.b64encode(f"{ADMIN}:{self.broker.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            if missing is None:
                raise
            error.read()
            return missing


def attributes(span):
    """Returns the attributes of a span as a dictionary."""
    return {it.key: getattr(it.value, it.value.WhichOneof("value")) for it in span.attributes}


def parent(trace, flags="01"):
    return f"00-{trace}-{SPAN}-{flags}"


def follow_a_message(collector, client):
    """A QoS 1 message to two subscribers, one of them durable and one in a shared subscription."""
    screen = client.subscribe("screen", "cars/+/speed", "-q", "1", "-c", "-x", "3600")
    worker = client.subscribe("worker", "$share/workers/cars/#", "-q", "1")
    client.publish("cars/17/speed", "-q", "1", properties=[("unit", "km/h"), ("traceparent", parent(TRACE))])
    outputs = [running.communicate(timeout=PATIENCE)[0].strip() for running in (screen, worker)]
    expected = f"unit:km/h traceparent:{parent(TRACE)}"
    check("subscribers get the user properties unchanged", all(expected in output for output in outputs), outputs)
    collector.wait_for(lambda: len(collector.of(TRACE).get("mqtt deliver", ())) == 2 and "mqtt receive" in collector.of(TRACE))
    spans = collector.of(TRACE)
    names = {"mqtt receive": 1, "mqtt route": 1, "mqtt store": 1, "mqtt deliver": 2}
    check("the message has its spans", {name: len(them) for name, them in spans.items()} == names, spans.keys())
    if faults:
        return
    (receive,), (route,), (store,), deliveries = (spans[name] for name in names)
    check("the broker's first span is a child of the publisher's", receive.parent_span_id.hex() == SPAN)
    tree = [route.parent_span_id, store.parent_span_id] == [receive.span_id] * 2
    check("the others are below it", tree and all(one.parent_span_id == route.span_id for one in deliveries))
    shown = attributes(receive)
    check(
        "it shows topic, publisher, QoS and size",
        (shown["messaging.destination.name"], shown["messaging.client.id"], shown["mqtt.qos"]) == ("cars/17/speed", "publisher", 1)
        and shown["messaging.message.body.size"] == len(SECRET_PAYLOAD)
        and shown["messaging.system"] == "mqtt",
        shown,
    )
    outcomes = [(attributes(one).get("messaging.client.id"), attributes(one)["hearthmq.outcome"]) for one in deliveries]
    # Of a shared subscription, the member is not known when the delivery begins.
    check("deliveries were acknowledged", [outcome for _, outcome in outcomes] == ["acknowledged"] * 2, outcomes)
    sent = all([event.name for event in one.events] == ["sent"] for one in deliveries)
    check("deliveries say when they were sent", sent)
    everything = [receive, route, store, *deliveries]
    in_order = all(receive.start_time_unix_nano <= one.start_time_unix_nano <= one.end_time_unix_nano for one in everything)
    check("times are in order", in_order)
    resource = {it.key: it.value.string_value for it in collector.spans[0][0].attributes}
    known = (resource["service.name"], resource["site"], resource["service.instance.id"])
    check("the resource has the service of the environment", known == ("fleet-broker", "north", "hearthmq"), resource)
    check("trace context says that it is sampled", all(one.flags & 1 for one in everything))


def leave_alone(collector, client):
    """Messages without a span, and after them one that has some."""
    traces = [f"{number:032x}" for number in range(1, 6)]
    client.publish("cars/18", properties=[("traceparent", parent(traces[0], "00"))])
    client.publish("cars/18", properties=[("traceparent", parent(traces[1]).upper())])
    client.publish("cars/18", properties=[("traceparent", parent(traces[2])), ("traceparent", parent(traces[2]))])
    client.publish("cars/18", version="311", message=parent(traces[3]))
    listener = client.subscribe("reader", "malformed")
    client.publish("malformed", properties=[("traceparent", "00-zz")])
    output = listener.communicate(timeout=PATIENCE)[0]
    check("a malformed property is forwarded unchanged", "traceparent:00-zz" in output, output)
    client.publish("nobody/listens", "-q", "0", properties=[("traceparent", parent(traces[4]))])
    last = collector.wait_for(lambda: collector.of(traces[4]).get("mqtt receive"))
    check("a message without a subscriber has spans", bool(last))
    check("the others have none", not any(collector.of(trace) for trace in traces[:4]))


def trace_a_call(collector, client):
    trace = "c" * 32
    client.call("GET", "/client-id/car%2F17/status", traceparent=parent(trace))
    span = collector.wait_for(lambda: collector.of(trace))
    name = "GET /client-id/{client_id}/status"
    check("a REST call has a span", bool(span) and list(span) == [name], span)
    if span and name in span:
        shown = attributes(span[name][0])
        check("it shows route and status", shown["http.response.status_code"] == 200 and shown["http.request.method"] == "GET", shown)


def compare_metrics(collector, client):
    text = client.call("GET", "/metrics")
    expected = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    collector.wait_for(lambda: set(collector.metrics) == expected)
    check("the metrics are those of /metrics", set(collector.metrics) == expected, expected ^ set(collector.metrics))
    received = collector.metrics["hearthmq_messages_received"].sum
    by_qos = {point.attributes[0].value.string_value: point.as_int for point in received.data_points}
    check("counts have their values and labels", received.is_monotonic and by_qos["1"] >= 1, by_qos)
    turns = collector.metrics["hearthmq_turn_duration_seconds"].histogram.data_points[0]
    check("histograms have their buckets", sum(turns.bucket_counts) == turns.count > 0)
    names = len(collector.metrics)
    print(f"      {names} metrics, {len(collector.spans)} spans, {len(collector.bodies)} requests")


def without_collector(collector, client):
    """The collector takes requests and does not answer: clients must not notice."""
    collector.silent = True
    with tempfile.NamedTemporaryFile("w+") as lines:
        lines.write(f"{SECRET_PAYLOAD}\n" * 20_000)
        lines.flush()
        lines.seek(0)
        command = ["mosquitto_pub", *client.login, "-V", "5", "-i", "burst", "-t", "cars/19", "-q", "1", "-l"]
        command += ["-D", "publish", "user-property", "traceparent", parent("d" * 32)]
        subprocess.run(command, stdin=lines, check=True, timeout=PATIENCE)
    text = client.call("GET", "/metrics")
    lost = re.findall(r'^hearthmq_otlp_spans_lost_total\{reason="(\w+)"\} (\d+)', text, re.MULTILINE)
    lost = {reason: int(count) for reason, count in lost}
    check("20,000 messages were acknowledged while it was silent, and what was lost is counted", sum(lost.values()) > 0, lost)
    print(f"      lost: {lost}")


def main():
    python = VENV / "bin/python"
    if pathlib.Path(sys.prefix) != VENV:
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        install = [VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(install, check=True, stdout=sys.stderr)
        os.execv(python, [python, "-B", __file__])
    collector = Collector()
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{collector.server_port}"
    os.environ["OTEL_SERVICE_NAME"] = "fleet-broker"
    os.environ["OTEL_RESOURCE_ATTRIBUTES"] = "site=north"
    with tempfile.NamedTemporaryFile("w") as headers:
        headers.write(f"Authorization: {TOKEN}\n")
        headers.flush()
        settings = ["otlp.metrics_interval_secs=1", f"otlp.headers_file={headers.name}", "shards=2", "mqtt.sys_interval_secs=0"]
        with Broker(*settings) as broker:
            client = Client(broker)
            follow_a_message(collector, client)
            leave_alone(collector, client)
            trace_a_call(collector, client)
            compare_metrics(collector, client)
            without_collector(collector, client)
            secrets = [SECRET_PAYLOAD, broker.password, TOKEN, f'"{ADMIN}"']
            began = time.monotonic()
        took = time.monotonic() - began
    check("the program ended in time", took < 20, took)
    sent = b"".join(collector.bodies)
    check("no password, payload or token was sent", not any(secret.encode() in sent for secret in secrets))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
