"""Runs one of Mosquitto's broker tests in this process, with HearthMQ in Mosquitto's place.

Called by run.py with: the suite's directory `test`, the test, its ports. A colon and a protocol after
the test run its dialogues over that protocol. Two functions of the suite are replaced: the one that
starts the broker translates a Mosquitto configuration here, and the one that compares packets byte by
byte ignores what MQTT leaves to the sender. Exit code 77, with the reason, if the configuration has no counterpart.
"""

import os
import pathlib
import runpy
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from broker import Broker  # noqa: E402

SKIPPED = 77

suite, test, *ports = sys.argv[1:]
sys.path[:0] = [suite, f"{suite}/broker"]
import mosq_test  # noqa: E402

# Mosquitto's defaults, as far as a client can observe them.
DEFAULTS = {
    "limits.in_flight_max": 20,
    "limits.receive_maximum": 20,
    "limits.topic_alias_maximum": 10,
    "limits.packet_bytes_max": 2000000,
    "limits.queue_messages_per_client_max": 1000,
    "limits.topic_bytes_max": 65535,
    "limits.topic_levels_max": 201,
    "limits.session_expiry_secs_max": 0xFFFFFFFF,
}

# Mosquitto's options with their counterparts. None: a client cannot observe the option.
OPTIONS = {
    "allow_anonymous": "auth.anonymous",
    "listener_allow_anonymous": "auth.anonymous",
    "cafile": "tls.client_ca",
    "certfile": "tls.certificate",
    "crlfile": "tls.crl",
    "global_max_connections": "limits.connections_max",
    "keyfile": "tls.key",
    "max_connections": "limits.connections_max",
    "max_inflight_messages": "limits.in_flight_max",
    "max_keepalive": "limits.keep_alive_secs_max",
    "max_packet_size": "limits.packet_bytes_max",
    "max_queued_messages": "limits.queue_messages_per_client_max",
    "global_max_clients": "limits.sessions_max",
    "autosave_interval": None,
    "autosave_on_changes": None,
    "log_dest": None,
    "log_timestamp": None,
    "log_type": None,
    "per_listener_settings": None,
    "persistence": None,
    "persistence_file": None,
    "persistence_location": None,
    "sys_interval": None,
}

# Options that change the meaning of others.
ASKED = ("allow_zero_length_clientid", "protocol", "require_certificate", "use_identity_as_username")


def skip(reason):
    print(f"needs {reason}", file=sys.stderr, flush=True)
    os._exit(SKIPPED)  # the tests catch what is raised


def translate(lines, port):
    """Returns the HearthMQ settings that correspond to the lines of a Mosquitto configuration."""
    settings, listeners, sockets, asked = dict(DEFAULTS), [], [], {}
    for line in lines:
        name, _, value = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name in ("listener", "port"):
            settings.setdefault("auth.anonymous", "false")  # as soon as others could connect
            first, *path = value.split()
            if first == "0":
                sockets += path
            else:
                listeners.append(first)
        elif name in ASKED:
            asked[name] = value
        elif name not in OPTIONS or value == "-1":
            skip(f"Mosquitto's {name} {value}")
        elif OPTIONS[name]:
            settings[OPTIONS[name]] = value
    settings.setdefault("auth.anonymous", "true")
    if len(listeners) > 1 and any("listener_" in line for line in lines):
        skip("listeners that differ")
    addresses = ",".join(f"127.0.0.1:{port}" for port in listeners or ([] if sockets else [port]))
    settings[listener_option(settings, asked)] = addresses
    if sockets:
        settings["mqtt.unix"] = ",".join(os.path.abspath(path) for path in sockets)
    return [f"{name}={value}" for name, value in settings.items()]


def listener_option(settings, asked):
    """Returns the option for the addresses; prepares the certificates."""
    if asked.get("allow_zero_length_clientid") == "false":
        skip("Mosquitto's allow_zero_length_clientid false")
    option = {"mqtt": "mqtt.tcp", "websockets": "mqtt.websocket"}[asked.get("protocol", "mqtt")]
    if "tls.certificate" in settings:
        option = {"mqtt.tcp": "mqtt.tls", "mqtt.websocket": "mqtt.secure_websocket"}[option]
        # Mosquitto sends its certificate together with the contents of cafile.
        chain = [pathlib.Path(settings[name]).read_text() for name in ("tls.certificate", "tls.client_ca")]
        with tempfile.NamedTemporaryFile("w", delete=False) as file:
            file.write("".join(chain))
        settings["tls.certificate"] = file.name
        if asked.get("require_certificate") == "true":
            settings["tls.client_auth"] = "required"
        else:
            del settings["tls.client_ca"]
    settings["mqtt.tcp"] = ""
    return option


def kept(lines):
    """Returns the directory of a broker that is restarted: a new one if the test has removed the file
    with Mosquitto's data."""
    options = dict(line.strip().partition(" ")[::2] for line in lines)
    if options.get("persistence") != "true":
        return None
    name = pathlib.Path(options.get("persistence_location", "."), options.get("persistence_file", "mosquitto.db"))
    if not name.exists():
        name.write_text(tempfile.mkdtemp(prefix="hearthmq-"))
    return pathlib.Path(name.read_text())


def start_broker(filename, cmd=None, port=0, use_conf=False, expect_fail=False, cmd_args=None, **_):
    if cmd or cmd_args or expect_fail:
        skip("Mosquitto's command line or its errors")
    lines = open(filename.replace(".py", ".conf")).readlines() if use_conf or not port else []
    broker = Broker(*translate(lines, port), policy=HERE / "policy.toml", directory=kept(lines))
    broker.process.mosq_log = broker.log.open("rb")
    broker.process.hearthmq = broker  # lives as long
    return broker.process


def variable_byte_integer(packet, at):
    """Returns the integer and its end."""
    value = shift = 0
    while True:
        value |= (packet[at] & 0x7F) << shift
        shift += 7
        at += 1
        if packet[at - 1] < 0x80:
            return value, at


def property_end(packet, at):
    """Returns the end of the property that begins at `at`."""
    kind = packet[at]
    if kind == 0x0B:
        return variable_byte_integer(packet, at + 1)[1]
    for length, kinds in FIXED_LENGTHS.items():
        if kind in kinds:
            return at + 1 + length
    for _ in range(2 if kind == 0x26 else 1):  # texts and binary data, User Property has two
        at += 2 + int.from_bytes(packet[at + 1 : at + 3])
    return at + 1


FIXED_LENGTHS = {
    1: (0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A),
    2: (0x13, 0x21, 0x22, 0x23),
    4: (0x02, 0x11, 0x18, 0x27),
}

# Properties of CONNACK that announce abilities of a broker: Receive Maximum, Topic Alias Maximum,
# Maximum Packet Size.
OWN_CHOICE = (0x21, 0x22, 0x27)


def properties(packet, at, ignored=()):
    """Returns the properties that begin at `at`, sorted, and the bytes after them."""
    length, at = variable_byte_integer(packet, at)
    end, found = at + length, []
    while at < end:
        next_at = property_end(packet, at)
        if packet[at] not in ignored:
            found.append(packet[at:next_at])
        at = next_at
    # The order of properties with different identifiers has no meaning (2.2.2.2).
    return sorted(found, key=lambda one: one[0]), packet[end:]


def meaning(packet):
    """Returns the meaning of an MQTT 5.0 packet, without what the sender may choose."""
    first = packet[0]
    _, at = variable_byte_integer(packet, 1)
    if first == 0x20:
        rest = properties(packet, at + 2, OWN_CHOICE) if len(packet) > at + 2 else ([], b"")
        return packet[at : at + 2], rest
    if first >> 4 == 3:
        topic_end = at + 2 + int.from_bytes(packet[at : at + 2])
        start = topic_end + (2 if first & 0x06 else 0)
        return first, packet[at:start], properties(packet, start)
    if first in (0x40, 0x50):
        # No matching subscribers is permitted in place of Success (3.4.2.1, 3.5.2.1).
        reason = packet[at + 2] if len(packet) > at + 2 else 0
        return first, packet[at : at + 2], 0 if reason == 0x10 else reason
    return packet


def is_one_packet(expected):
    if len(expected) < 2 or expected[0] >> 4 not in (2, 3, 4, 5):
        return False
    remaining, at = variable_byte_integer(expected, 1)
    return len(expected) == at + remaining


def receive(sock):
    """Receives one packet."""
    packet = receive_bytes(sock, 2)
    while packet[-1] >= 0x80:
        packet += receive_bytes(sock, 1)
    remaining, _ = variable_byte_integer(packet, 1)
    return packet + receive_bytes(sock, remaining)


def receive_bytes(sock, count):
    received = b""
    while len(received) < count:
        some = sock.recv(count - len(received))
        if not some:
            raise BrokenPipeError
        received += some
    return received


def expect_packet(sock, name, expected):
    if not is_one_packet(expected):
        return original_expect_packet(sock, name, expected)
    received = receive(sock)
    if received == expected:
        return True
    try:
        if meaning(received) == meaning(expected):
            return True
    except IndexError:
        pass  # not MQTT 5.0
    print(f"FAIL: {name}: received {received.hex()}, expected {expected.hex()}")
    raise mosq_test.TestError


original_expect_packet = mosq_test.expect_packet
mosq_test.expect_packet = expect_packet
mosq_test.start_broker = start_broker
test, _, protocol = test.partition(":")
sys.argv = [test, *ports]
os.chdir(f"{suite}/broker")
if protocol:
    runpy.run_path(test)["main"](protocol=protocol)
else:
    runpy.run_path(test, run_name="__main__")
