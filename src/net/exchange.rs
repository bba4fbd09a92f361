//! Exchanges AUTH packets between CONNECT and CONNACK with a client that names an Authentication
//! Method (section 4.12 of MQTT 5.0).
//!
//! This module checks whose turn it is and what violates the protocol; the method decides what the
//! packets contain. The handshake calls it, within the time limit of CONNECT.

use tokio::{io::AsyncWriteExt, time::timeout_at};

use super::{
    newcomer::{Newcomer, connect_limits, read_more},
    refusal::Refusal,
};
use crate::{
    auth::{AuthenticationError, BoundedExchange, ExchangeStart, Identity, Step},
    metrics::ConnectRefusal,
    mqtt::{
        Auth, AuthProperties, Connect, Decoded, Packet, ProtocolVersion, ReasonCode, decode,
        encode_within,
    },
    shard::connect::EnhancedLogin,
};

/// AUTH exists in this version only.
const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// Authenticates the client by the method that it names.
pub(super) async fn run(
    connect: &Connect<'_>,
    client_id: &str,
    method: &str,
    newcomer: &mut Newcomer<'_>,
) -> Result<(Identity, EnhancedLogin), Refusal> {
    let credentials = newcomer.credentials(connect, client_id);
    let start = ExchangeStart { method, credentials, identity: None };
    let Some(exchange) = newcomer.core.begin_exchange(start) else {
        let reason = ReasonCode::BadAuthenticationMethod; // [MQTT-4.12.0-1]
        let refusal = Refusal::with(VERSION, reason, ConnectRefusal::BadCredentials);
        return Err(refusal.told(&"unknown authentication method"));
    };
    // The time of CONNECT includes the exchange: a
    // client cannot hold its place by answering slowly.
    let connect_by = newcomer.connect_by;
    let talk = talk(exchange, connect, method, newcomer);
    let Ok(outcome) = timeout_at(connect_by, talk).await else {
        let reason = ReasonCode::NotAuthorized; // [MQTT-4.12.0-4]
        return Err(Refusal::with(VERSION, reason, ConnectRefusal::ConnectTimeout));
    };
    let (identity, data) = outcome?;
    let login = EnhancedLogin {
        method: method.into(),
        username: credentials.username.map(Into::into),
        certificate: newcomer.certificate.cloned(),
        data,
    };
    Ok((identity, login))
}

/// Alternates between server and client until the method accepts or rejects the client.
async fn talk(
    mut exchange: BoundedExchange,
    connect: &Connect<'_>,
    method: &str,
    newcomer: &mut Newcomer<'_>,
) -> Result<(Identity, Option<Vec<u8>>), Refusal> {
    let failed = |error: AuthenticationError| Refusal::of_credentials(VERSION, &error);
    let mut step = exchange.step(connect.properties.authentication_data).await.map_err(failed)?;
    loop {
        // Before each step of the server, because the client may send only when it is its turn.
        newcomer.expect_silence()?;
        match step {
            Step::Done { identity, data } => return Ok((identity, data)),
            Step::Continue(data) => newcomer.challenge(connect, method, data.as_deref()).await?,
        }
        let answer = newcomer.read_answer(method).await?;
        step = exchange.step(answer.as_deref()).await.map_err(failed)?;
    }
}

impl Newcomer<'_> {
    async fn challenge(
        &mut self,
        connect: &Connect<'_>,
        method: &str,
        data: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let properties = AuthProperties {
            authentication_method: Some(method), // [MQTT-4.12.0-5]
            authentication_data: data,
            ..AuthProperties::default()
        };
        // [MQTT-4.12.0-2]
        let packet = Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties });
        let bytes_max = connect.properties.maximum_packet_size.unwrap_or(u32::MAX);
        let mut bytes = Vec::new();
        if !matches!(encode_within(&packet, VERSION, bytes_max, &mut bytes), Ok(true)) {
            // The client could not receive the challenge that it must answer. [MQTT-3.1.2-24]
            return Err(malformed(ReasonCode::PacketTooLarge));
        }
        let sent = async {
            self.transport.write_all(&bytes).await?;
            self.transport.flush().await
        };
        sent.await.map_err(|_| Refusal::silent(ConnectRefusal::Closed))
    }

    /// Reads the client's AUTH and returns its Authentication Data.
    async fn read_answer(&mut self, method: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let limits = connect_limits(self.core);
        loop {
            match decode(self.read_ahead, VERSION, &limits) {
                Ok(Decoded::Packet { packet, length }) => {
                    // Copied, because the packet borrows the buffer that is drained next.
                    let data = answer(&packet, method)?.map(<[u8]>::to_vec);
                    self.read_ahead.drain(..length);
                    return Ok(data);
                }
                Ok(Decoded::More { .. }) => {}
                // [MQTT-3.15.1-1]
                Err(error) => return Err(malformed(error.reason()).told(&error)),
            }
            read_more(self.transport, self.read_ahead).await?;
            // Counted after each read: the client is not
            // authenticated yet and may send a packet of any size.
            if !self.room.has(self.read_ahead.len()) {
                return Err(Refusal::for_want_of_room());
            }
        }
    }

    /// Checks that the client sends nothing but DISCONNECT while it waits for AUTH or CONNACK.
    /// [MQTT-3.1.2-30]
    fn expect_silence(&self) -> Result<(), Refusal> {
        match self.read_ahead.first() {
            None | Some(&DISCONNECT) => Ok(()),
            Some(_) => Err(malformed(ReasonCode::ProtocolError)),
        }
    }
}

/// First byte of DISCONNECT (section 3.14.1).
const DISCONNECT: u8 = 0xE0;

/// Returns the Authentication Data of the packet that answers the server's AUTH.
fn answer<'p>(packet: &Packet<'p>, method: &str) -> Result<Option<&'p [u8]>, Refusal> {
    let auth = match packet {
        Packet::Auth(auth) => auth,
        Packet::Disconnect(_) => return Err(Refusal::silent(ConnectRefusal::Closed)),
        // [MQTT-3.1.2-30]
        Packet::Connect(_)
        | Packet::ConnAck(_)
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::PingResp => return Err(malformed(ReasonCode::ProtocolError)),
    };
    let is_answer = auth.reason == ReasonCode::ContinueAuthentication; // [MQTT-4.12.0-3]
    let is_same_method = auth.properties.authentication_method == Some(method); // [MQTT-4.12.0-5]
    if is_answer && is_same_method {
        Ok(auth.properties.authentication_data)
    } else {
        Err(malformed(ReasonCode::ProtocolError))
    }
}

const fn malformed(reason: ReasonCode) -> Refusal {
    Refusal::with(VERSION, reason, ConnectRefusal::Malformed)
}
