"""Eclipse Paho: subscribes and publishes, and expects every message once and in its order.

Called by run.sh with: port, CA file or "", protocol version (4 or 5), QoS.
"""

import os
import queue
import sys

import paho.mqtt.client as mqtt

MESSAGES = 100
PATIENCE = 20  # seconds

port, ca, version, qos = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
topic = f"paho/{version}/{port}/{qos}"
arrived, events = queue.Queue(), queue.Queue()


def on_connect(client, userdata, flags, reason, properties):
    events.put(("connected", reason.is_failure))


def on_subscribe(client, userdata, mid, reasons, properties):
    events.put(("subscribed", reasons[0].value != qos))


def on_message(client, userdata, message):
    arrived.put((message.topic, message.payload, message.qos))


def expect(what):
    event, failed = events.get(timeout=PATIENCE)
    assert (event, failed) == (what, False), (event, failed)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=topic, protocol=version)
client.username_pw_set(os.environ["HEARTHMQ_TEST_USER"], os.environ["HEARTHMQ_TEST_PASSWORD"])
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
if ca:
    client.tls_set(ca_certs=ca)
client.connect("localhost", port)
client.loop_start()
expect("connected")
client.subscribe(topic, qos)
expect("subscribed")
for number in range(MESSAGES):
    client.publish(topic, f"message {number}", qos)
for number in range(MESSAGES):
    message = arrived.get(timeout=PATIENCE)
    assert message == (topic, f"message {number}".encode(), qos), message
client.disconnect()
client.loop_stop()
assert arrived.empty(), arrived.get()
