//! The beginning of a connection on both sides: the session gets its stream, and each side its
//! subscriptions.

use tokio::io::DuplexStream;

use super::{
    connect::{Subscribing, read_more, status, status_topic},
    fault::{BridgeTrouble, TroubleKind},
    options::{Bridge, BridgeOptions},
    prime::limits,
    routes::Routes,
    side::{BridgeConnect, LocalSide},
    topic::RetainedOf,
    translate::Translator,
};
use crate::mqtt::{Decoded, Packet, ProtocolVersion, ReasonCode, RetainHandling, decode, encode};

/// Connects the session; returns its stream, the bytes behind CONNACK, and whether the session
/// was there.
pub(super) async fn connect_session(
    bridge: &Bridge,
    local: &dyn LocalSide,
    options: BridgeConnect,
) -> Result<(DuplexStream, Vec<u8>, bool), BridgeTrouble> {
    let refused = |why: &dyn std::fmt::Display| BridgeTrouble::new(TroubleKind::LocalRefused, why);
    let stream = local.connect(bridge, options);
    let mut stream = stream.ok_or_else(|| refused(&"the broker has ended"))?;
    // The session may send packets behind CONNACK, which belong to the pump.
    let mut received = Vec::new();
    loop {
        let decoded = decode(&received, ProtocolVersion::V5, &limits());
        match decoded.map_err(|error| refused(&error))? {
            Decoded::Packet { packet: Packet::ConnAck(ack), length } => {
                if ack.reason != ReasonCode::Success {
                    let what = "the session in this broker was refused";
                    return Err(BridgeTrouble::of_reason(
                        TroubleKind::LocalRefused,
                        what,
                        ack.reason,
                    ));
                }
                let was_there = ack.session_present;
                return Ok((stream, received.split_off(length), was_there));
            }
            Decoded::Packet { .. } => return Err(refused(&"the session sent no CONNACK")),
            // The stream has no packet borders, so a packet may come in parts.
            Decoded::More { .. } => {
                let read = read_more(&mut stream, &mut received).await;
                if !read.map_err(|error| refused(&error))? {
                    return Err(refused(&"the session was closed"));
                }
            }
        }
    }
}

/// The subscriptions that a connection begins with.
pub(super) struct ConnectionBegin<'a> {
    pub(super) options: &'a BridgeOptions,
    pub(super) routes: &'a Routes,
    /// Out topics that are new.
    pub(super) fresh: &'a [String],
    /// In topics of a former configuration.
    pub(super) former: &'a [String],
}

impl ConnectionBegin<'_> {
    /// Writes the first packets of a connection on each side; returns the number of SUBACKs to expect.
    pub(super) fn write(&self, translator: &mut Translator<'_>) -> usize {
        let remote = translator.remote;
        let is_fresh = |filter: &str| self.fresh.iter().any(|one| one == filter);
        // `new` asks for retained messages once: only filters that the session has just got count.
        let wishes = self.routes.out_wishes().into_iter().filter(|wish| match wish.retained {
            RetainedOf::Always => true,
            RetainedOf::New | RetainedOf::Never => is_fresh(wish.filter),
        });
        let handling = |retained| match retained {
            RetainedOf::New | RetainedOf::Always => RetainHandling::Send,
            RetainedOf::Never => RetainHandling::DoNotSend,
        };
        let wishes: Vec<_> = wishes.collect();
        let version = ProtocolVersion::V5;
        Subscribing::default().subscribe(&wishes, version, handling, &mut translator.to_local);
        // The other broker knows by its session whether a subscription is new; without one all are.
        let handling = |retained| match (retained, remote.session_present) {
            (RetainedOf::New, true) => RetainHandling::SendIfNew,
            (RetainedOf::New, false) | (RetainedOf::Always, _) => RetainHandling::Send,
            (RetainedOf::Never, _) => RetainHandling::DoNotSend,
        };
        let mut subscribing = Subscribing::default();
        // Subscriptions of a former configuration end first, so that a filter in both is subscribed last.
        let out = &mut translator.to_remote;
        subscribing.unsubscribe(self.former, remote.version, out);
        let answers =
            subscribing.subscribe(&self.routes.in_wishes(), remote.version, handling, out);
        // The status comes last, when the other broker has everything that goes before it.
        if let Some(topic) = status_topic(self.options) {
            let _ = encode(&status(topic, true), remote.version, out); // the topic was checked
        }
        answers
    }
}
