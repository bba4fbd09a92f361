//! A subscriber that accounts for each numbered message: what is missing, doubled or out of order.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Packet, QoS, ReasonCode};
use hearthmq_test::{
    mqtt::Client,
    packets::{QOS_1, QOS_2, V5, filter, puback, pubcomp, pubrec, subscribe},
};

use crate::{running::Node, support::PATIENCE};

/// How long one attempt to receive waits.
const LOOK: Duration = Duration::from_millis(5);

/// Messages of one publisher with one QoS.
pub(crate) type Stream = (String, u8);

/// A subscriber with a lasting session, which may move between brokers, and what it has received.
#[derive(Default)]
pub(crate) struct Subscriber {
    pub(crate) client: Option<Client>,
    /// Packet Identifiers of QoS 2 messages that are not released.
    open: BTreeSet<u16>,
    is_subscribed: bool,
    /// Whether its connection has ended.
    pub(crate) has_ended: bool,
    pub(crate) received: BTreeMap<Stream, BTreeMap<u64, u32>>,
    last: BTreeMap<Stream, u64>,
    pub(crate) out_of_order: Vec<(Stream, u64, u64)>,
}

impl Subscriber {
    /// Connects, and leaves its former connection.
    pub(crate) fn connect(&mut self, node: &Node, id: &str) -> bool {
        let (client, is_present) = node.connected_at_last(id, V5);
        client.stream.set_read_timeout(Some(LOOK)).unwrap();
        (self.client, self.has_ended) = (Some(client), false);
        is_present
    }

    /// Receives and acknowledges for a time, or until this is so.
    pub(crate) fn receive(&mut self, time: Duration, is_enough: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while began.elapsed() < time && !is_enough(self) {
            let Some(client) = &mut self.client else { return };
            let came = client.try_receive(|packet| match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.unwrap().0.get();
                    let text = std::str::from_utf8(publish.payload).unwrap().to_owned();
                    Some((publish.flags.qos, id, Some(text)))
                }
                Packet::PubRel(release) => {
                    Some((QoS::ExactlyOnce, release.packet_id.0.get(), None))
                }
                Packet::SubAck(_) => Some((QoS::AtMostOnce, 0, None)),
                Packet::Disconnect(_) => None,
                packet @ (Packet::Connect(_)
                | Packet::ConnAck(_)
                | Packet::PubAck(_)
                | Packet::PubRec(_)
                | Packet::PubComp(_)
                | Packet::Subscribe(_)
                | Packet::Unsubscribe(_)
                | Packet::UnsubAck(_)
                | Packet::PingReq
                | Packet::PingResp
                | Packet::Auth(_)
                | _) => panic!("{packet:?}"),
            });
            let (qos, id, text) = match came {
                Ok(Some(came)) => came,
                Ok(None) => return self.has_ended = true,
                Err(error) if is_timeout(error.kind()) => continue,
                Err(_) => return self.has_ended = true,
            };
            // A packet that cannot be sent is repeated by the next broker.
            let _ = match (qos, &text) {
                (QoS::AtMostOnce, None) => {
                    self.is_subscribed = true;
                    Ok(())
                }
                (_, None) => {
                    self.open.remove(&id);
                    client.try_send(&pubcomp(id))
                }
                (QoS::ExactlyOnce, Some(_)) => client.try_send(&pubrec(id, ReasonCode::Success)),
                _ => client.try_send(&puback(id, ReasonCode::Success)),
            };
            if let Some(text) = text
                && (qos != QoS::ExactlyOnce || self.open.insert(id))
            {
                self.note(&text, qos);
            }
        }
    }

    /// Subscribes to the topics of publishers, and waits for SUBACK.
    pub(crate) fn subscribe(&mut self) {
        let filters = vec![filter("hop/one", QOS_1), filter("hop/two", QOS_2)];
        self.client.as_mut().unwrap().send(&subscribe(9, filters));
        self.is_subscribed = false;
        // Messages of the session may come before SUBACK.
        self.receive(PATIENCE, |subscriber| subscriber.is_subscribed);
        assert!(self.is_subscribed, "SUBACK");
    }

    /// Returns the messages of QoS 2 that came more than once.
    pub(crate) fn doubled(&self) -> Vec<(Stream, u64)> {
        let all = self.received.iter().filter(|((_, qos), _)| *qos == 2);
        let doubled = all.flat_map(|(stream, numbers)| {
            let several = numbers.iter().filter(|(_, times)| **times > 1);
            several.map(move |(number, _)| (stream.clone(), *number))
        });
        doubled.collect()
    }

    fn note(&mut self, text: &str, qos: QoS) {
        let (publisher, number) = text.split_once(' ').unwrap();
        let (stream, number) = ((publisher.to_owned(), qos.number()), number.parse().unwrap());
        let times = self.received.entry(stream.clone()).or_default().entry(number).or_default();
        *times += 1;
        if *times == 1 {
            let last = self.last.insert(stream.clone(), number).unwrap_or_default();
            if last > number {
                self.out_of_order.push((stream, last, number));
            }
        }
    }

    pub(crate) fn missing(&self, acknowledged: &BTreeMap<Stream, u64>) -> Vec<(Stream, u64)> {
        let is_there = |stream: &Stream, number: u64| {
            self.received.get(stream).is_some_and(|numbers| numbers.contains_key(&number))
        };
        let all =
            acknowledged.iter().flat_map(|(stream, last)| (1..=*last).map(move |n| (stream, n)));
        all.filter(|(stream, n)| !is_there(stream, *n)).map(|(s, n)| (s.clone(), n)).collect()
    }
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
