//! A custom method for enhanced authentication, which MQTT 5.0 clients name in CONNECT: the broker
//! sends a nonce, and the device answers with its name and the HMAC-SHA-256 of the nonce under its
//! key. The key itself is never sent.
//!
//! ```text
//! cargo run --example own_authentication_method          # broker, and a device that logs in
//! ```
//!
//! The packets:
//!
//! ```text
//! device                                               broker
//! CONNECT  Authentication Method "HMAC-NONCE"    ──►
//!                                                ◄──   AUTH     Continue, nonce
//! AUTH     Continue, name ":" HMAC(key, nonce)   ──►
//!                                                ◄──   CONNACK  Success
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::{collections::HashMap, error::Error, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use hearthmq::{
    Broker,
    auth::{
        AllowAll, AuthenticationError, DenyAll, EnhancedAuthenticator, Exchange, ExchangeStart,
        Identity, Step, ThrottleConfig, Throttled,
    },
    mqtt::{
        Auth, AuthProperties, Connect, ConnectProperties, DecodeLimits, Decoded, Packet,
        ProtocolVersion, ReasonCode, decode, encode,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const METHOD: &str = "HMAC-NONCE";

/// The devices and their keys. A real method would query a database: a step may wait.
struct HmacNonce {
    keys: Arc<HashMap<&'static str, Key>>,
}

impl EnhancedAuthenticator for HmacNonce {
    fn knows(&self, method: &str) -> bool {
        method == METHOD
    }

    /// Called once for each client that connects with the method, and for each re-authentication.
    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(Conversation { keys: Arc::clone(&self.keys), nonce: None })
    }
}

/// The state of an exchange.
struct Conversation {
    keys: Arc<HashMap<&'static str, Key>>,
    nonce: Option<[u8; 32]>,
}

#[async_trait]
impl Exchange for Conversation {
    async fn step(&mut self, data: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        // Taken, so that one nonce is good for one answer.
        let Some(nonce) = self.nonce.take() else {
            let mut nonce = [0; 32];
            getrandom::fill(&mut nonce).map_err(|_| AuthenticationError::Unavailable)?;
            self.nonce = Some(nonce);
            return Ok(Step::Continue(Some(nonce.to_vec())));
        };
        let wrong = || AuthenticationError::BadCredentials;
        let answer = data.ok_or_else(wrong)?;
        let colon = answer.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
        let name = str::from_utf8(&answer[..colon]).map_err(|_| wrong())?;
        let key = self.keys.get(name).ok_or_else(wrong)?;
        // Compares in constant time, which tells a guesser nothing.
        verify(key, &nonce, &answer[colon + 1..]).map_err(|_| wrong())?;
        let identity = Identity { username: Some(name.into()), ..Identity::default() };
        Ok(Step::Done { identity, data: None })
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = HashMap::from([("car-7", Key::new(HMAC_SHA256, b"the key of car 7"))]);
    let method = HmacNonce { keys: Arc::new(keys) };
    let broker = Broker::builder()
        .tcp("127.0.0.1:0")
        // After ten wrong answers in a minute a device is refused for another minute.
        .enhanced_authenticator(Throttled::new(method, ThrottleConfig::default()))
        .authenticator(DenyAll) // no client may log in by password
        .authorizer(AllowAll)
        .start()
        .await?;
    let address = broker.local_addrs()[0];
    println!("listening on {address:?}");
    for key in ["the key of car 7", "a guess"] {
        let reason = connect(address, "car-7", key).await?;
        println!("car-7 with {key:?}: {reason:?}");
    }
    broker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Connects as a device, packet by packet; returns the Reason Code of CONNACK.
async fn connect(address: SocketAddr, name: &str, key: &str) -> Result<ReasonCode, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let connect = Connect {
        version: ProtocolVersion::V5,
        is_bridge: false,
        clean_start: true,
        keep_alive: 60,
        client_id: name,
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties {
            authentication_method: Some(METHOD),
            ..ConnectProperties::default()
        },
    };
    send(&mut stream, Packet::Connect(Box::new(connect))).await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err("the broker has closed the connection".into());
        }
        let decoded = decode(&received, ProtocolVersion::V5, &DecodeLimits::default())?;
        // A packet may come in several reads.
        let Decoded::Packet { packet, length } = decoded else { continue };
        if let Packet::ConnAck(ack) = packet {
            return Ok(ack.reason);
        }
        let Packet::Auth(auth) = packet else {
            return Err(format!("AUTH or CONNACK expected, not {packet:?}").into());
        };
        let nonce = auth.properties.authentication_data.unwrap_or_default();
        let proof = sign(&Key::new(HMAC_SHA256, key.as_bytes()), nonce);
        let answer = [name.as_bytes(), b":", proof.as_ref()].concat();
        let properties = AuthProperties {
            authentication_method: Some(METHOD),
            authentication_data: Some(&answer),
            ..AuthProperties::default()
        };
        let reason = ReasonCode::ContinueAuthentication;
        send(&mut stream, Packet::Auth(Auth { reason, properties })).await?;
        received.drain(..length);
    }
}

async fn send(stream: &mut TcpStream, packet: Packet<'_>) -> Result<(), Box<dyn Error>> {
    let mut bytes = Vec::new();
    encode(&packet, ProtocolVersion::V5, &mut bytes)?;
    Ok(stream.write_all(&bytes).await?)
}
