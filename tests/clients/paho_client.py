"""Eclipse Paho for Python. Called by run.py, which documents the environment and the output."""

import os
import queue
import ssl
import subprocess
import sys
import threading
import urllib.parse

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

URL = urllib.parse.urlparse(os.environ["URL"])
VERSION = int(os.environ["VERSION"])
NAME = os.environ["NAME"]
IS_5 = VERSION == mqtt.MQTTv5
PATIENCE = 60  # seconds
NO_MATCHING_SUBSCRIBERS, NO_SUBSCRIPTION_EXISTED = 0x10, 0x11


def properties(packet_type, **values):
    if not IS_5:
        return None
    made = Properties(packet_type)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A connected client; received packets are taken from queues."""

    def __init__(self, name, keep=False, user=os.environ["USERNAME"], will=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        kind = "websockets" if URL.scheme.startswith("ws") else "tcp"
        clean = {} if IS_5 else {"clean_session": not keep}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, f"{NAME}-{name}", protocol=VERSION, transport=kind, **clean
        )
        self.mqtt.username_pw_set(user, os.environ["PASSWORD"])
        if URL.scheme in ("mqtts", "wss"):
            self.mqtt.tls_set(os.environ["CA"], tls_version=ssl.PROTOCOL_TLS_CLIENT)
        if kind == "websockets":
            self.mqtt.ws_set_options(path=URL.path)
        if will:
            self.mqtt.will_set(*will)
        self.mqtt.on_connect = lambda _c, _u, flags, reason, _p: self.events.put((flags.session_present, reason))
        self.mqtt.on_subscribe = lambda _c, _u, _m, reasons, _p: self.events.put(reasons)
        self.mqtt.on_unsubscribe = lambda _c, _u, _m, reasons, _p: self.events.put(reasons)
        self.mqtt.on_publish = lambda _c, _u, _m, reason, _p: self.events.put(reason)
        self.mqtt.on_message = lambda _c, _u, message: self.messages.put(message)
        asked = properties(PacketTypes.CONNECT, SessionExpiryInterval=60 if keep else 0)
        start = {"clean_start": not keep, "properties": asked} if IS_5 else {}
        self.mqtt.connect("localhost", URL.port, **start)
        self.mqtt.loop_start()
        self.session_present, self.reason = self.events.get(timeout=PATIENCE)

    def subscribe(self, topic, qos, **values):
        asked = properties(PacketTypes.SUBSCRIBE, **values) if values else None
        self.mqtt.subscribe(topic, qos, properties=asked)
        [granted] = self.events.get(timeout=PATIENCE)
        assert granted.value == qos, f"SUBACK says {granted}"

    def publish(self, topic, payload, qos=1, retain=False, **values):
        """Publishes; returns the Reason Code of the answer."""
        self.mqtt.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **values))
        return self.events.get(timeout=PATIENCE)

    def receive(self):
        return self.messages.get(timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def connect():
    with Client("connect") as client:
        assert not client.reason.is_failure and not client.session_present, client.reason
    with Client("connect", user=f"nobody-{NAME}") as stranger:
        assert stranger.reason.is_failure, "a wrong password is let in"


def round_trip(qos):
    topic = f"{NAME}/qos/{qos}"
    with Client(f"qos-{qos}") as client:
        client.subscribe(topic, qos)
        for number in range(100):
            client.mqtt.publish(topic, f"{number}", qos)
        for number in range(100):
            message = client.receive()
            seen = message.topic, message.payload.decode(), message.qos
            assert seen == (topic, f"{number}", qos), seen


def retained():
    topic = f"{NAME}/retained"
    with Client("publisher") as publisher:
        for payload, expected in (("kept", ("kept", True)), ("", ("marker", False))):
            publisher.publish(topic, payload, retain=True)
            with Client("subscriber") as subscriber:
                subscriber.subscribe(topic, 1)
                publisher.publish(topic, "marker")
                message = subscriber.receive()
                assert (message.payload.decode(), message.retain) == expected, message.payload


def will():
    topic = f"{NAME}/will"
    with Client("watcher") as watcher:
        watcher.subscribe(topic, 1)
        victim = subprocess.Popen([sys.executable, __file__, "victim"], stdout=subprocess.PIPE)
        assert victim.stdout.readline() == b"connected\n"
        victim.kill()
        victim.communicate()
        message = watcher.receive()
        assert (message.payload, message.qos) == (b"gone", 1), message.payload


def victim():
    """Another process, which will be killed."""
    with Client("victim", will=(f"{NAME}/will", "gone", 1)):
        print("connected", flush=True)
        threading.Event().wait()


def shared():
    topic = f"{NAME}/shared"
    with Client("a") as a, Client("b") as b, Client("publisher") as publisher:
        for member in (a, b):
            member.subscribe(f"$share/group/{topic}", 1)
            member.subscribe(f"{topic}/end", 1)
        for number in range(20):
            publisher.publish(topic, f"{number}")
        publisher.publish(f"{topic}/end", "")
        parts = []
        for member in (a, b):
            parts.append([])
            while (message := member.receive()).topic == topic:
                parts[-1].append(int(message.payload))
        assert sorted(parts[0] + parts[1]) == list(range(20)) and all(parts), parts


def properties_5():
    topic = f"{NAME}/properties"
    values = {
        "PayloadFormatIndicator": 1, "ContentType": "text/plain", "ResponseTopic": f"{topic}/answer",
        "CorrelationData": b"17", "UserProperty": [("a", "1"), ("a", "2")],
    }
    with Client("properties") as client:
        client.subscribe(topic, 1, SubscriptionIdentifier=7)
        client.publish(topic, "one", MessageExpiryInterval=60, TopicAlias=1, **values)
        client.publish("", "two", TopicAlias=1)
        one, two = client.receive(), client.receive()
        for name, value in values.items():
            seen = getattr(one.properties, name)
            assert seen == value, f"{name} is {seen}"
        assert one.properties.SubscriptionIdentifier == [7] and 0 < one.properties.MessageExpiryInterval <= 60
        assert (two.topic, two.payload) == (topic, b"two"), two.topic
        reason = client.publish(f"{topic}/nobody", "")
        assert reason.value == NO_MATCHING_SUBSCRIBERS, f"PUBACK says {reason}"
        client.mqtt.unsubscribe(f"{topic}/nobody")
        [reason] = client.events.get(timeout=PATIENCE)
        assert reason.value == NO_SUBSCRIPTION_EXISTED, f"UNSUBACK says {reason}"


def session():
    topic = f"{NAME}/session"
    with Client("session", keep=True) as client:
        assert not client.session_present
        client.subscribe(topic, 1)
    with Client("publisher") as publisher:
        for number in range(3):
            publisher.publish(topic, f"{number}")
    with Client("session", keep=True) as client:
        assert client.session_present, "no session present"
        payloads = [client.receive().payload for _ in range(3)]
        assert payloads == [b"0", b"1", b"2"], payloads
    with Client("session") as client:
        assert not client.session_present, "the session outlives Clean Start"


CELLS = {
    "connect": connect,
    "QoS 0": lambda: round_trip(0),
    "QoS 1": lambda: round_trip(1),
    "QoS 2": lambda: round_trip(2),
    "retained": retained,
    "will": will,
    "shared": shared,
    "session": session,
}

if __name__ == "__main__":
    if sys.argv[1:] == ["victim"]:
        victim()
    if IS_5:
        CELLS["properties"] = properties_5
    for name, cell in CELLS.items():
        try:
            cell()
            print(f"{name}\tok", flush=True)
        except Exception as error:  # noqa: BLE001
            print(f"{name}\tFAIL\t{error!r}", flush=True)
