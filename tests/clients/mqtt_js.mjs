// MQTT.js. Called by run.py, which documents the environment and the output.

import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import mqtt from "mqtt";
import { scram } from "./scram_mqtt_js.mjs";

const { URL: url, CA, NAME, USERNAME, PASSWORD } = process.env;
const VERSION = Number(process.env.VERSION);
const IS_5 = VERSION === 5;
const PATIENCE_MS = 60_000;
const NO_MATCHING_SUBSCRIBERS = 0x10, NO_SUBSCRIPTION_EXISTED = 0x11;

// A connected client; received messages are taken from a queue.
class Client {
  #messages = [];
  #waiting = [];

  static async connect(name, { keep = false, ...options } = {}) {
    const made = new Client();
    made.mqtt = mqtt.connect(url, {
      clientId: `${NAME}-${name}`, protocolVersion: VERSION, clean: !keep, reconnectPeriod: 0,
      username: USERNAME, password: PASSWORD, ca: readFileSync(CA),
      properties: IS_5 ? { sessionExpiryInterval: keep ? 60 : 0 } : undefined, ...options,
    });
    made.mqtt.on("message", (topic, payload, packet) => {
      const message = { ...packet, payload: payload.toString() };
      const waits = made.#waiting.shift();
      waits ? waits(message) : made.#messages.push(message);
    });
    const connack = await new Promise((resolve, reject) => {
      made.mqtt.once("connect", resolve);
      made.mqtt.once("error", reject);
    });
    made.sessionPresent = connack.sessionPresent;
    return made;
  }

  async subscribe(topic, qos, properties) {
    const [granted] = await this.mqtt.subscribeAsync(topic, { qos, properties });
    assert.equal(granted.qos, qos, "granted QoS");
  }

  publish(topic, payload, options = {}) {
    return this.mqtt.publishAsync(topic, payload, { qos: 1, ...options });
  }

  receive() {
    if (this.#messages.length) return this.#messages.shift();
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  end() {
    return this.mqtt.endAsync();
  }
}

const range = (length) => Array.from({ length }, (_, number) => number);

async function connect() {
  const client = await Client.connect("connect");
  assert(!client.sessionPresent);
  await client.end();
  await assert.rejects(Client.connect("connect", { username: `nobody-${NAME}` }), "a wrong password is let in");
}

async function roundTrip(qos) {
  const topic = `${NAME}/qos/${qos}`;
  const client = await Client.connect(`qos-${qos}`);
  await client.subscribe(topic, qos);
  const expected = range(100).map((number) => [topic, `${number}`, qos]);
  await Promise.all(expected.map(([, payload]) => client.publish(topic, payload, { qos })));
  for (const message of expected) {
    const seen = await client.receive();
    assert.deepEqual([seen.topic, seen.payload, seen.qos], message);
  }
  await client.end();
}

async function retained() {
  const topic = `${NAME}/retained`;
  const publisher = await Client.connect("publisher");
  for (const [payload, expected] of [["kept", ["kept", true]], ["", ["marker", false]]]) {
    await publisher.publish(topic, payload, { retain: true });
    const subscriber = await Client.connect("subscriber");
    await subscriber.subscribe(topic, 1);
    await publisher.publish(topic, "marker");
    const seen = await subscriber.receive();
    assert.deepEqual([seen.payload, seen.retain], expected);
    await subscriber.end();
  }
  await publisher.end();
}

async function will() {
  const topic = `${NAME}/will`;
  const watcher = await Client.connect("watcher");
  await watcher.subscribe(topic, 1);
  const killed = fork(fileURLToPath(import.meta.url), ["victim"]);
  await new Promise((resolve) => killed.once("message", resolve));
  killed.kill("SIGKILL");
  const seen = await watcher.receive();
  assert.deepEqual([seen.payload, seen.qos], ["gone", 1]);
  await watcher.end();
}

// Another process, which will be killed.
async function victim() {
  await Client.connect("victim", { will: { topic: `${NAME}/will`, payload: Buffer.from("gone"), qos: 1, retain: false } });
  process.send("connected");
}

async function shared() {
  const topic = `${NAME}/shared`;
  const members = [await Client.connect("a"), await Client.connect("b")];
  for (const member of members) {
    await member.subscribe(`$share/group/${topic}`, 1);
    await member.subscribe(`${topic}/end`, 1);
  }
  const publisher = await Client.connect("publisher");
  for (const number of range(20)) await publisher.publish(topic, `${number}`);
  await publisher.publish(`${topic}/end`, "");
  const parts = [[], []];
  for (const [index, member] of members.entries()) {
    for (let seen = await member.receive(); seen.topic === topic; seen = await member.receive()) {
      parts[index].push(Number(seen.payload));
    }
  }
  assert.deepEqual(parts.flat().sort((a, b) => a - b), range(20));
  assert(parts.every((part) => part.length), `one member got everything: ${parts.map((part) => part.length)}`);
  await Promise.all([...members, publisher].map((client) => client.end()));
}

async function properties() {
  const topic = `${NAME}/properties`;
  const values = {
    payloadFormatIndicator: true, contentType: "text/plain", responseTopic: `${topic}/answer`,
    correlationData: Buffer.from("17"), userProperties: { a: ["1", "2"] },
  };
  const client = await Client.connect("properties");
  await client.subscribe(topic, 1, { subscriptionIdentifier: 7 });
  await client.publish(topic, "one", { properties: { ...values, messageExpiryInterval: 60, topicAlias: 1 } });
  await client.publish("", "two", { properties: { topicAlias: 1 } });
  const [one, two] = [await client.receive(), await client.receive()];
  const { messageExpiryInterval, subscriptionIdentifier, ...rest } = one.properties;
  assert.deepEqual({ ...rest, userProperties: { ...rest.userProperties } }, values);
  assert(messageExpiryInterval > 0 && messageExpiryInterval <= 60 && subscriptionIdentifier === 7);
  assert.deepEqual([two.topic, two.payload], [topic, "two"]);
  const answered = new Promise((resolve) => client.mqtt.once("packetreceive", resolve));
  await client.publish(`${topic}/nobody`, "");
  assert.equal((await answered).reasonCode, NO_MATCHING_SUBSCRIBERS);
  const unsuback = await client.mqtt.unsubscribeAsync(`${topic}/nobody`);
  assert.deepEqual(unsuback.granted, [NO_SUBSCRIPTION_EXISTED]);
  await client.end();
}

async function session() {
  const topic = `${NAME}/session`;
  const before = await Client.connect("session", { keep: true });
  assert(!before.sessionPresent);
  await before.subscribe(topic, 1);
  await before.end();
  const publisher = await Client.connect("publisher");
  for (const number of range(3)) await publisher.publish(topic, `${number}`);
  await publisher.end();
  const after = await Client.connect("session", { keep: true });
  assert(after.sessionPresent, "no session present");
  for (const number of range(3)) assert.equal((await after.receive()).payload, `${number}`);
  await after.end();
  const fresh = await Client.connect("session");
  assert(!fresh.sessionPresent, "the session outlives Clean Start");
  await fresh.end();
}

const cells = {
  connect, "QoS 0": () => roundTrip(0), "QoS 1": () => roundTrip(1), "QoS 2": () => roundTrip(2),
  retained, will, shared, session,
  ...(IS_5 && { properties, SCRAM: () => scram(url, readFileSync(CA), USERNAME, PASSWORD) }),
};

if (process.argv[2] === "victim") {
  await victim();
} else {
  for (const [name, cell] of Object.entries(cells)) {
    let timer;
    const tooLate = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("time is over")), PATIENCE_MS);
    });
    try {
      await Promise.race([cell(), tooLate]);
      console.log(`${name}\tok`);
    } catch (error) {
      console.log(`${name}\tFAIL\t${error.message.replaceAll(/\s+/g, " ")}`);
    }
    clearTimeout(timer);
  }
  process.exit();
}
