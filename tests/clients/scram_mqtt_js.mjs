// MQTT.js: logs in by SCRAM-SHA-256, is refused as another user, and re-authenticates on the same
// connection. No other client here supports AUTH.
//
// Called by mqtt_js.mjs. Needs a broker with auth.scram = true. MQTT.js leaves the contents of AUTH packets to
// handleAuth; the messages are those of RFC 5802 and RFC 7677.

import assert from "node:assert";
import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from "node:crypto";
import mqtt from "mqtt";

const METHOD = "SCRAM-SHA-256";

const hmac = (key, text) => createHmac("sha256", key).update(text).digest();

/** The client's side of one exchange. */
class Scram {
  constructor(user, password) {
    this.password = password;
    this.bare = `n=${user.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${randomBytes(18).toString("base64")}`;
  }

  first() {
    return Buffer.from(`n,,${this.bare}`);
  }

  last(challenge) {
    const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(challenge);
    assert(nonce.startsWith(this.bare.split(",r=")[1]) && Number(iterations) >= 4096);
    const salted = pbkdf2Sync(this.password.normalize("NFKC"), Buffer.from(salt, "base64"), Number(iterations), 32, "sha256");
    const clientKey = hmac(salted, "Client Key");
    const unproved = `c=biws,r=${nonce}`;
    const signed = `${this.bare},${challenge},${unproved}`;
    const signature = hmac(createHash("sha256").update(clientKey).digest(), signed);
    const proof = clientKey.map((byte, at) => byte ^ signature[at]);
    this.serverSignature = hmac(hmac(salted, "Server Key"), signed);
    return Buffer.from(`${unproved},p=${Buffer.from(proof).toString("base64")}`);
  }

  /** Returns whether the broker knows the password too. */
  verify(message) {
    const said = Buffer.from(/^v=(.+)$/.exec(message)[1], "base64");
    assert(timingSafeEqual(said, this.serverSignature));
  }
}

/** Returns a client that has not connected yet. */
function client(url, ca, user, password) {
  let exchange = new Scram(user, password);
  const made = mqtt.connect(url, {
    ca,
    protocolVersion: 5,
    reconnectPeriod: 0,
    manualConnect: true,
    properties: { authenticationMethod: METHOD, authenticationData: exchange.first() },
  });
  const settled = [];
  made.handleAuth = (packet, callback) => {
    const data = packet.properties.authenticationData?.toString() ?? "";
    if (packet.reasonCode === 0) {
      exchange.verify(data);
      callback();
      settled.shift()();
      return;
    }
    const properties = { authenticationMethod: METHOD, authenticationData: exchange.last(data) };
    callback(null, { cmd: "auth", reasonCode: 0x18, properties });
  };
  made.on("connect", (connack) => exchange.verify(connack.properties.authenticationData.toString()));
  made.authenticateAgain = () => {
    exchange = new Scram(user, password);
    const properties = { authenticationMethod: METHOD, authenticationData: exchange.first() };
    made._sendPacket({ cmd: "auth", reasonCode: 0x19, properties });
    return new Promise((resolve) => settled.push(resolve));
  };
  return made;
}

export async function scram(url, ca, user, password) {
  const right = client(url, ca, user, password);
  const connected = new Promise((resolve, reject) => right.once("connect", resolve).once("error", reject));
  right.connect();
  await connected;
  for (let times = 0; times < 3; times += 1) await right.authenticateAgain();
  await right.publishAsync("scram/js", "still here", { qos: 1 });
  await right.endAsync();

  const wrong = client(url, ca, `not-${user}`, password);
  const refused = new Promise((resolve) => wrong.once("error", resolve));
  wrong.connect();
  assert.equal((await refused).code, 0x86);
}
