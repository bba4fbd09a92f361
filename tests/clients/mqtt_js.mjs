// MQTT.js: subscribes and publishes, and expects every message once and in its order.
//
// Called by run.sh with: port, CA file or "", protocol version (4 or 5), QoS.

import assert from "node:assert";
import { readFileSync } from "node:fs";
import mqtt from "mqtt";

const MESSAGES = 100;
const PATIENCE_MS = 20_000;

const [port, ca, version, qos] = process.argv.slice(2);
const topic = `mqtt.js/${version}/${port}/${qos}`;
setTimeout(() => assert.fail("time is over"), PATIENCE_MS).unref();

const client = await mqtt.connectAsync(`${ca ? "mqtts" : "mqtt"}://localhost:${port}`, {
  clientId: topic,
  protocolVersion: Number(version),
  username: process.env.HEARTHMQ_TEST_USER,
  password: process.env.HEARTHMQ_TEST_PASSWORD,
  ca: ca ? readFileSync(ca) : undefined,
  reconnectPeriod: 0,
});
const arrived = [];
const allArrived = new Promise((resolve) => {
  client.on("message", (from, payload, packet) => {
    arrived.push([from, payload.toString(), packet.qos]);
    if (arrived.length >= MESSAGES) resolve();
  });
});
const [granted] = await client.subscribeAsync(topic, { qos: Number(qos) });
assert.equal(granted.qos, Number(qos));
const numbers = Array.from({ length: MESSAGES }, (_, number) => number);
await Promise.all(
  numbers.map((number) => client.publishAsync(topic, `message ${number}`, { qos: Number(qos) })),
);
await allArrived;
await client.endAsync();
assert.deepEqual(arrived, numbers.map((number) => [topic, `message ${number}`, Number(qos)]));
