//! Gives the session of a bridge its subscriptions before the other broker is reached, so that what is
//! published meanwhile waits for it.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, time::timeout};

use super::{
    connect::{Subscribing, read_more},
    fault::{BridgeTrouble, TroubleKind},
    options::Bridge,
    routes::{BridgeWish, Routes},
    side::{BridgeConnect, LocalSide},
};
use crate::mqtt::{
    DecodeLimits, Decoded, Disconnect, DisconnectProperties, Packet, ProtocolVersion, ReasonCode,
    RetainHandling, decode, encode,
};

/// How long the session of this broker may take to answer.
pub(super) const LOCAL_TIME_MAX: Duration = Duration::from_secs(10);

/// The subscriptions of a session after this, and whether it is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Primed {
    /// Whether the session is new.
    pub(super) is_new: bool,
    /// The filters to which it was not subscribed before.
    pub(super) fresh: Vec<String>,
}

/// Subscribes the session of a bridge as configured. Does nothing if it is so already.
///
/// # Errors
/// The session cannot begin now.
pub(super) async fn prime(
    bridge: &Bridge,
    routes: &Routes,
    local: &dyn LocalSide,
) -> Result<Primed, BridgeTrouble> {
    let existing = local.subscriptions(bridge).await;
    let is_new = existing.is_none();
    let existing = existing.unwrap_or_default();
    let wishes = routes.out_wishes();
    let has = |wish: &BridgeWish<'_>| {
        // Filter and options must be the same; the session may be older than the configuration.
        let same = existing.iter().find(|own| own.filter == wish.filter);
        same.is_some_and(|own| {
            own.qos == wish.qos && own.options.no_local && own.options.retain_as_published
        })
    };
    let missing: Vec<_> = wishes.iter().filter(|wish| !has(wish)).cloned().collect();
    let is_wanted = |filter: &str| wishes.iter().any(|wish| wish.filter == filter);
    // Filters that are no longer configured would still collect messages.
    let stale: Vec<_> = existing.iter().filter(|own| !is_wanted(&own.filter)).collect();
    let stale: Vec<_> = stale.into_iter().map(|own| own.filter.clone()).collect();
    if missing.is_empty() && stale.is_empty() && !is_new {
        return Ok(Primed::default());
    }
    // Filters that the session gets now, for which retained messages are asked later.
    let is_fresh = |wish: &&BridgeWish<'_>| !existing.iter().any(|own| own.filter == wish.filter);
    let fresh = missing.iter().filter(is_fresh).map(|wish| wish.filter.to_owned()).collect();
    // Bounded, because the session may wait for the store.
    let subscribed = timeout(LOCAL_TIME_MAX, subscribe(bridge, local, &missing, &stale)).await;
    let late = |_| Err(BridgeTrouble::new(TroubleKind::LocalRefused, "the session did not answer"));
    subscribed.unwrap_or_else(late)?;
    Ok(Primed { is_new, fresh })
}

/// Connects, changes subscriptions, and disconnects.
async fn subscribe(
    bridge: &Bridge,
    local: &dyn LocalSide,
    missing: &[BridgeWish<'_>],
    stale: &[String],
) -> Result<(), BridgeTrouble> {
    let refused = |why: &dyn std::fmt::Display| BridgeTrouble::new(TroubleKind::LocalRefused, why);
    // A Receive Maximum of 1, because messages that arrive here are not passed on.
    let options = BridgeConnect { receive_maximum: 1, forgets_incoming: false, peer: None };
    let stream = local.connect(bridge, options);
    let mut stream = stream.ok_or_else(|| refused(&"the broker has ended"))?;
    let (mut bytes, mut subscribing) = (Vec::new(), Subscribing::default());
    let version = ProtocolVersion::V5;
    // Both packets go out together; the answers are counted.
    let mut answers = subscribing.unsubscribe(stale, version, &mut bytes);
    // Retained messages are asked for once the other broker is there to take them.
    let none = |_| RetainHandling::DoNotSend;
    answers += subscribing.subscribe(missing, version, none, &mut bytes);
    stream.write_all(&bytes).await.map_err(|error| refused(&error))?;
    let mut received = Vec::new();
    answers += 1; // CONNACK
    while answers > 0 {
        match decode(&received, version, &limits()).map_err(|error| refused(&error))? {
            Decoded::Packet { packet, length } => {
                answers -= usize::from(is_answer(&packet)?);
                received.drain(..length);
            }
            Decoded::More { .. } => {
                let read = read_more(&mut stream, &mut received).await;
                if !read.map_err(|error| refused(&error))? {
                    return Err(refused(&"the session was closed"));
                }
            }
        }
    }
    // Without DISCONNECT, the end of the stream would count as a lost connection.
    let mut bytes = Vec::new();
    let goodbye = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: DisconnectProperties::default(),
    });
    let _ = encode(&goodbye, version, &mut bytes);
    stream.write_all(&bytes).await.map_err(|error| refused(&error))
}

/// Returns whether a packet answers one of those that were sent.
fn is_answer(packet: &Packet<'_>) -> Result<bool, BridgeTrouble> {
    let refused = |reason: ReasonCode| {
        let what = "the session in this broker was refused";
        Err(BridgeTrouble::of_reason(TroubleKind::LocalRefused, what, reason))
    };
    match packet {
        Packet::ConnAck(ack) if ack.reason != ReasonCode::Success => refused(ack.reason),
        // A subscription that is refused would lose messages, so the bridge must not start.
        Packet::SubAck(ack) => match ack.reasons.iter().find(|reason| reason.is_failure()) {
            Some(reason) => refused(*reason),
            None => Ok(true),
        },
        Packet::Disconnect(disconnect) => refused(disconnect.reason),
        Packet::ConnAck(_) | Packet::UnsubAck(_) => Ok(true),
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::PubAck(_)
        | Packet::PubRec(_)
        | Packet::PubRel(_)
        | Packet::PubComp(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp
        | Packet::Auth(_) => Ok(false),
    }
}

/// Returns the limits for packets of this broker.
pub(super) const fn limits() -> DecodeLimits {
    DecodeLimits {
        packet_bytes_max: u32::MAX,
        topic_bytes_max: u16::MAX,
        topic_levels_max: u16::MAX,
    }
}
