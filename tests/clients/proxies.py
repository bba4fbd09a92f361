#!/usr/bin/env python3
"""nginx and HAProxy before HearthMQ, configured as docs/configuration.md says: the broker learns the
client's address, a client cannot claim another one, and fail2ban finds it in the log.

    cargo build --release && tests/clients/proxies.py

Needs nginx with its stream module, haproxy, fail2ban and openssl. run.py runs it as well. Exit code 0 if
no cell says FAIL.
"""

import base64
import contextlib
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from broker import ADMIN, Broker

DOCUMENTS = pathlib.Path(__file__).resolve().parents[2] / "docs"
PATIENCE = 60  # seconds
CLIENT, CLAIMED = "127.0.0.9", "192.0.2.66"
COLUMNS = ("MQTT", "WebSocket", "REST", "claimed address", "fail2ban")
PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
# What a distribution's own files have around the documented part of nginx's configuration.
AROUND_NGINX = """
load_module {module};
daemon off; pid {directory}/pid; error_log stderr warn;
events {{}}
"""


class Failed(Exception):
    """The actual result in place of the expected one."""


def example(document, name):
    """Returns the block of a document that the marker names."""
    text = (DOCUMENTS / document).read_text()
    return re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)[1]


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def certificate(directory):
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost".split()
    files = ["-keyout", directory / "server.key", "-out", directory / "only.pem"]
    subprocess.run([*new, *files], check=True, stderr=subprocess.DEVNULL)
    both = (directory / "only.pem").read_text() + (directory / "server.key").read_text()
    (directory / "server.pem").write_text(both)


def configuration(name, directory, fronts, backs):
    """Returns the documented configuration with the ports and files of this test."""
    text = example("configuration.md", name).replace(f"/etc/{name}", str(directory))
    for documented, port in zip((8883, 8084, 8443), fronts):
        text = re.sub(rf"(listen |bind :){documented}\b", lambda found: f"{found[1].rstrip(':')}127.0.0.1:{port}", text)
    for documented, port in zip((1883, 8083, 8080), backs):
        text = text.replace(f"127.0.0.1:{documented}", f"127.0.0.1:{port}")
    if name == "nginx":
        modules = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
        module = next(file for root in modules if (file := pathlib.Path(root) / "ngx_stream_module.so").exists())
        text = AROUND_NGINX.format(module=module, directory=directory) + text
        text = text.replace("http {", f"http {{\n    access_log off; client_body_temp_path {directory}/body;", 1)
    return text


@contextlib.contextmanager
def proxy(name, directory, fronts, backs):
    file = directory / f"{name}.conf"
    file.write_text(configuration(name, directory, fronts, backs))
    program = shutil.which(name, path=PATH) or sys.exit(f"{name} is not installed")
    command = [program, "-c", file] if name == "nginx" else [program, "-db", "-f", file]
    log = directory / f"{name}.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        give_up = time.monotonic() + PATIENCE
        while any(not is_open(port) for port in fronts):
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"{name} does not listen:\n{log.read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def connection(port):
    """Connects over TLS from the address CLIENT."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(CLIENT, 0))
    return context.wrap_socket(plain)


def text(value):
    return len(value).to_bytes(2, "big") + value


def connect_packet(client_id, password):
    flags, keep_alive = b"\xc2", (1200).to_bytes(2, "big")
    body = text(b"MQTT") + b"\x04" + flags + keep_alive + text(client_id) + text(ADMIN.encode()) + text(password.encode())
    return b"\x10" + bytes([len(body)]) + body


def expect(found, expected):
    if found != expected:
        raise Failed(f"{found!r} in place of {expected!r}")


def mqtt(port, password):
    with connection(port) as stream:
        stream.sendall(connect_packet(b"behind", password))
        expect(stream.recv(4), b"\x20\x02\x00\x00")


def websocket(port, password):
    key = base64.b64encode(b"0123456789abcdef").decode()
    head = f"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
    with connection(port) as stream:
        stream.sendall((head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n").encode())
        answer = stream.recv(4096)
        expect(answer.split(b" ")[1], b"101")
        packet = connect_packet(b"web", password)
        assert len(packet) < 126
        stream.sendall(b"\x82" + bytes([0x80 | len(packet)]) + bytes(4) + packet)
        expect(stream.recv(6), b"\x82\x04\x20\x02\x00\x00")


def rest(port, password, *more):
    """Returns the status of a call."""
    login = base64.b64encode(f"{ADMIN}:{password}".encode()).decode()
    lines = ["GET /client-id/demo/status HTTP/1.1", "Host: localhost", "Connection: close", f"Authorization: Basic {login}", *more]
    with connection(port) as stream:
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        return stream.recv(4096).split(b" ")[1].decode()


def logged(broker, *parts):
    """Waits for a line of the log with all these parts."""
    give_up = time.monotonic() + PATIENCE
    while not any(all(part in line for part in parts) for line in broker.log.read_text().splitlines()):
        if time.monotonic() > give_up:
            raise Failed(f"no line of the log has {parts}:\n{broker.log.read_text()}")
        time.sleep(0.05)


def check_mqtt(broker, fronts):
    mqtt(fronts[0], broker.password)
    logged(broker, "connected", f"{CLIENT}:", '"behind"')


def check_websocket(broker, fronts):
    websocket(fronts[1], broker.password)
    logged(broker, "connected", f"{CLIENT}:", '"web"')


def check_rest(broker, fronts):
    expect(rest(fronts[2], broker.password), "200")
    expect(rest(fronts[2], "wrong"), "401")
    logged(broker, "call refused", f"{CLIENT}:")


def check_claim(broker, fronts):
    claims = (f"X-Forwarded-For: {CLAIMED}", f"Forwarded: for={CLAIMED}")
    expect(rest(fronts[2], "wrong too", *claims), "401")
    logged(broker, "call refused", f"{CLIENT}:")
    if CLAIMED in broker.log.read_text():
        raise Failed(f"the log has {CLAIMED}")


def check_fail2ban(broker, _fronts):
    filter_file = broker.directory / "hearthmq.conf"
    filter_file.write_text(example("operations.md", "fail2ban"))
    command = ["fail2ban-regex", "--out", "ip", broker.log, filter_file]
    done = subprocess.run(command, text=True, capture_output=True, timeout=PATIENCE)
    expect((set(done.stdout.split()), done.returncode), ({CLIENT}, 0))


CHECKS = dict(zip(COLUMNS, (check_mqtt, check_websocket, check_rest, check_claim, check_fail2ban)))


def row(name, log_format):
    """Returns the cells of a proxy."""
    backs, fronts = free_ports(3), free_ports(3)
    tcp, web, http = (f"127.0.0.1:{port}" for port in backs)
    settings = (
        f"mqtt.tcp={tcp}",
        f"mqtt.websocket={web}",
        f"mqtt.proxy_protocol={tcp},{web}",
        f"http.listen={http}",
        "http.proxy_trusted=127.0.0.1",
        f"log.format={log_format}",
    )
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hearthmq-proxy-"))
    cells = []
    try:
        certificate(directory)
        with Broker(*settings) as broker, proxy(name, directory, fronts, backs):
            for column, check in CHECKS.items():
                try:
                    check(broker, fronts)
                    cells.append("ok")
                except (Failed, OSError) as why:
                    print(f"{name}, {column}: {why}", file=sys.stderr)
                    cells.append("FAIL")
    finally:
        shutil.rmtree(directory)
    return cells


def main():
    """Returns whether a cell says FAIL."""
    print("| proxy |", *(f"{column} |" for column in COLUMNS))
    print("|---" * (len(COLUMNS) + 1) + "|")
    failed = False
    for name, log_format in (("nginx", "text"), ("haproxy", "json")):
        cells = row(name, log_format)
        failed = failed or "FAIL" in cells
        print(f"| {name} |", *(f"{cell} |" for cell in cells), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
