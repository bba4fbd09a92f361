"""awscrt, on which the SDKs of AWS are built. Called by run.py, which documents the environment and the output.

Its user names are sent as they are by default: with `?SDK=…&Platform=…` behind them.
"""

import concurrent.futures
import os
import queue
import threading
import urllib.parse

from awscrt import io, mqtt, mqtt5

URL = urllib.parse.urlparse(os.environ["URL"])
NAME, USERNAME, PASSWORD = os.environ["NAME"], os.environ["USERNAME"], os.environ["PASSWORD"]
PATIENCE = 60  # seconds
COUNT = 100


def tls():
    if URL.scheme != "mqtts":
        return None
    options = io.TlsContextOptions()
    options.override_default_trust_store_from_path(None, os.environ["CA"])
    return io.ClientTlsContext(options)


class Client3:
    """A client of MQTT 3.1.1."""

    def __init__(self, name, user=USERNAME):
        self.messages = queue.Queue()
        self.connection = mqtt.Connection(
            client=mqtt.Client(tls_ctx=tls()),
            host_name="localhost",
            port=URL.port,
            client_id=f"{NAME}-{name}",
            username=user,
            password=PASSWORD,
        )
        self.connection.connect().result(PATIENCE)

    def subscribe(self, topic, qos):
        taken = lambda topic, payload, **_: self.messages.put(payload)
        future, _ = self.connection.subscribe(topic, mqtt.QoS(qos), taken)
        future.result(PATIENCE)

    def publish(self, topic, payload, qos):
        future, _ = self.connection.publish(topic, payload, mqtt.QoS(qos))
        future.result(PATIENCE)

    def leave(self):
        self.connection.disconnect().result(PATIENCE)


class Client5:
    """A client of MQTT 5.0."""

    def __init__(self, name, user=USERNAME):
        self.messages, connected = queue.Queue(), concurrent.futures.Future()
        self.stopped = threading.Event()
        settle = lambda done, value: None if connected.done() else done(value)
        self.client = mqtt5.Client(
            mqtt5.ClientOptions(
                host_name="localhost",
                port=URL.port,
                tls_ctx=tls(),
                connect_options=mqtt5.ConnectPacket(client_id=f"{NAME}-{name}", username=user, password=PASSWORD),
                on_publish_callback_fn=lambda data: self.messages.put(data.publish_packet.payload),
                on_lifecycle_event_connection_success_fn=lambda data: settle(connected.set_result, data),
                on_lifecycle_event_connection_failure_fn=lambda data: settle(connected.set_exception, data.exception),
                on_lifecycle_event_stopped_fn=lambda _: self.stopped.set(),
            )
        )
        self.client.start()
        try:
            connected.result(PATIENCE)
        except Exception:
            self.leave()
            raise

    def subscribe(self, topic, qos):
        wanted = mqtt5.Subscription(topic_filter=topic, qos=mqtt5.QoS(qos))
        self.client.subscribe(mqtt5.SubscribePacket(subscriptions=[wanted])).result(PATIENCE)

    def publish(self, topic, payload, qos):
        packet = mqtt5.PublishPacket(topic=topic, payload=payload, qos=mqtt5.QoS(qos))
        self.client.publish(packet).result(PATIENCE)

    def leave(self):
        self.client.stop()
        self.stopped.wait(PATIENCE)


CLIENT = Client5 if os.environ["VERSION"] == "5" else Client3


def connect():
    CLIENT("connect").leave()
    try:
        CLIENT("connect", user=f"nobody-{NAME}")
    except Exception:
        return
    raise AssertionError("a wrong password is let in")


def round_trip(qos):
    topic, client = f"{NAME}/qos/{qos}", CLIENT(f"qos-{qos}")
    client.subscribe(topic, qos)
    payloads = [str(number).encode() for number in range(COUNT)]
    for payload in payloads:
        client.publish(topic, payload, qos)
    received = [bytes(client.messages.get(timeout=PATIENCE)) for _ in payloads]
    assert received == payloads, f"{len(received)} messages, in another order"
    client.leave()


for name, check in (("connect", connect), ("QoS 0", lambda: round_trip(0)), ("QoS 1", lambda: round_trip(1))):
    try:
        check()
        print(name, "ok", sep="\t", flush=True)
    except Exception as error:  # noqa: BLE001
        print(name, "FAIL", f"{type(error).__name__}: {error}", sep="\t", flush=True)
