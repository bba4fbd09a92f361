//! Checks a broker from outside the load: its retained messages and its presence versions; also
//! leaves a Will behind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, ProtocolVersion, QoS};
use serde_json::Value;

use super::{
    book::{Event, Known},
    stage::{Phase, Stage},
    wire::{Heard, Identity, PATIENCE, Wire},
};

/// Will Delay, in seconds, of Wills that must be published.
const WILL_DELAY_SECS: u32 = 1;

fn visitor(client_id: &str) -> Identity {
    let identity = Identity::durable(client_id, ProtocolVersion::V5);
    Identity { is_durable: false, clean_start: true, ..identity }
}

/// Notes the retained messages that a new subscriber gets. Waits for those that certainly exist;
/// others count if they come before PINGRESP.
pub(crate) fn inspect_retained(stage: &Stage, address: SocketAddr) {
    let (mut wire, _) = Wire::open(address, &visitor("inspector"), &mut { Known::Never }).unwrap();
    wire.subscribe("kept/#", QoS::AtMostOnce);
    wire.say(&Packet::PingReq);
    let (surely, has_faults) = stage.look(|book| (book.surely_retained(), book.has_faults()));
    let mut found = BTreeMap::new();
    let mut is_answered = false;
    let give_up_at = Instant::now() + if has_faults { Duration::from_secs(1) } else { PATIENCE };
    while Instant::now() < give_up_at {
        for heard in wire.turn().unwrap() {
            match heard {
                Heard::Publish { topic, payload, .. } => {
                    let topic = topic.strip_prefix("kept/").unwrap().parse().unwrap();
                    let payload = String::from_utf8(payload).unwrap();
                    let number = payload.split(' ').nth(1).unwrap();
                    found.insert(topic, number.parse().unwrap());
                }
                Heard::PingResp => is_answered = true,
                _ => {}
            }
        }
        if is_answered && surely.iter().all(|topic| found.contains_key(topic)) {
            break;
        }
    }
    stage.note(Event::Retained { found });
    wire.take_leave().unwrap();
}

/// Notes the presence versions that a broker assigns, until it ends or the round is over.
pub(crate) fn watch_versions(stage: &Arc<Stage>, address: SocketAddr) -> JoinHandle<()> {
    let (mut wire, _) = Wire::open(address, &visitor("watcher"), &mut { Known::Never }).unwrap();
    wire.subscribe("$events/client_connected", QoS::AtMostOnce);
    let give_up_at = Instant::now() + PATIENCE;
    let is_suback = |heard: &Heard| matches!(heard, Heard::SubAck(_));
    while !wire.turn().unwrap().iter().any(is_suback) {
        assert!(Instant::now() < give_up_at, "SUBACK does not come");
    }
    let stage = stage.clone();
    std::thread::spawn(move || {
        while stage.phase() != Phase::Over {
            let Ok(all) = wire.turn() else { return };
            for heard in all {
                if let Heard::Publish { payload, .. } = heard {
                    let event: Value = serde_json::from_slice(&payload).unwrap();
                    let client = event["clientid"].as_str().unwrap().to_owned();
                    let version = event["version"].as_u64().unwrap();
                    stage.note(Event::Presence { client, version });
                }
            }
        }
    })
}

/// Connects a client with a delayed Will of this number.
pub(crate) fn leave_will(address: SocketAddr, will: u32) -> Wire {
    let mut identity = Identity::durable(format!("testator-{will}"), ProtocolVersion::V5);
    identity.will = Some(("will/due".to_owned(), will.to_string(), WILL_DELAY_SECS));
    Wire::open(address, &identity, &mut { Known::Never }).unwrap().0
}
