// A fleet of MQTT clients over plain sockets: they connect, and some of them subscribe and publish.

import net from "node:net";

const text = (value) => {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
};

function packet(head, ...parts) {
  const body = Buffer.concat(parts);
  const length = [];
  let left = body.length;
  do {
    length.push((left & 127) | (left > 127 ? 128 : 0));
    left >>= 7;
  } while (left > 0);
  return Buffer.concat([Buffer.from([head, ...length]), body]);
}

/** Connects a client of MQTT 5.0 whose session lasts an hour; returns its socket after CONNACK. */
export function connect(port, id, { keepAlive = 1200 } = {}) {
  const socket = net.connect(port, "127.0.0.1");
  const properties = Buffer.from([5, 0x11, 0, 0, 14, 16]);
  socket.write(packet(0x10, text("MQTT"), Buffer.from([5, 2, keepAlive >> 8, keepAlive & 255]), properties, text(id)));
  return new Promise((resolve, reject) => {
    socket.once("data", (answer) => {
      socket.on("data", () => {});
      if (answer[0] === 0x20 && answer[3] === 0) resolve(socket);
      else reject(new Error(`${id}: CONNACK ${answer[3]}`));
    });
    socket.on("error", reject);
  });
}

export function subscribe(socket, filter, qos = 1) {
  socket.write(packet(0x82, Buffer.from([0, 1, 0]), text(filter), Buffer.from([qos])));
}

export function publish(socket, topic, payload, { retain = false } = {}) {
  socket.write(packet(retain ? 0x31 : 0x30, text(topic), Buffer.from([0]), Buffer.from(payload)));
}

/** Connects clients, some at a time. */
export async function fleet(port, count, prefix = "car-") {
  const sockets = [];
  for (let from = 0; from < count; from += 100) {
    const numbers = Array.from({ length: Math.min(100, count - from) }, (_, at) => from + at);
    sockets.push(
      ...(await Promise.all(numbers.map((number) => connect(port, `${prefix}${String(number).padStart(4, "0")}`)))),
    );
  }
  return sockets;
}
