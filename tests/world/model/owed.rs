//! Due deliveries: a message, a client's copy of it, and a copy due to one of several members.

use std::{fmt, rc::Rc};

use hearthmq::mqtt::QoS;

/// A routed Application Message.
pub(crate) struct Message {
    /// Position among all messages in the order of routing.
    pub(crate) order: u64,
    pub(crate) topic: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    /// `None` is the application that embeds the broker.
    pub(crate) publisher: Option<usize>,
    pub(crate) routed_at: u64,
    pub(crate) expires_at: Option<u64>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order, topic, payload, qos, publisher, routed_at, expires_at } = self;
        let payload = number_of(payload);
        write!(f, "{topic} {payload} {qos:?} from {publisher:?}, the {order}. of all, ")?;
        write!(f, "at {routed_at} until {expires_at:?}")
    }
}

/// Returns a payload without its padding.
pub(super) fn number_of(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    format!("{:?} of {} bytes", text.trim_end_matches('.'), text.len())
}

/// The form in which a client must get a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Sorted.
    pub(crate) identifiers: Vec<u32>,
}

/// A client's copy of a message.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) message: Rc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
    /// The new subscription for which it was retained; such messages are older than their
    /// neighbours.
    pub(crate) retained_for: Option<&'static str>,
    pub(crate) packet_id: Option<u16>,
    /// Whether it came first over MQTT 3, where copies with other identifiers look the same.
    pub(crate) came_to_v3: bool,
    /// Number of the connection on which it came last.
    pub(crate) received_on: Option<u64>,
    /// Whether it may have been sent on a connection that has ended.
    pub(crate) may_be_lost: bool,
    /// Whether it may be missing.
    pub(crate) is_optional: bool,
    /// Whether it comes only if it was sent before, because its subscription was withdrawn.
    pub(crate) comes_only_again: bool,
    /// The shared filter by which it came, and the message's RETAIN.
    pub(crate) share: Option<(&'static str, bool)>,
    /// Whether that group has ended.
    pub(crate) is_left_over: bool,
    /// Whether a copy of a group looked the same when it came, and may have come in its place.
    pub(crate) may_be_of_group: bool,
}

impl Copy {
    pub(crate) fn new(message: Rc<Message>, form: Form) -> Self {
        Self {
            message,
            qos: form.qos,
            retain: form.retain,
            identifiers: form.identifiers,
            retained_for: None,
            packet_id: None,
            came_to_v3: false,
            received_on: None,
            may_be_lost: false,
            is_optional: false,
            comes_only_again: false,
            share: None,
            is_left_over: false,
            may_be_of_group: false,
        }
    }
}

/// A QoS 2 message for which its receiver has sent PUBREC.
#[derive(Clone, Debug)]
pub(crate) struct Releasing {
    pub(crate) packet_id: u16,
    pub(crate) payload: Vec<u8>,
    /// Number of the connection on which PUBREL came last.
    pub(crate) received_on: Option<u64>,
    /// Number of the connection whose Receive Maximum it counts against.
    pub(crate) counts_on: Option<u64>,
}

/// A message due to one member of a shared subscription, section 4.8.2.
#[derive(Clone, Debug)]
pub(crate) struct GroupCopy {
    pub(crate) message: Rc<Message>,
    pub(crate) filter: &'static str,
    /// Whether that group has ended.
    pub(crate) is_left_over: bool,
    /// The message's RETAIN.
    pub(crate) retain: bool,
    /// All members since it came, and the form in which each would get it.
    pub(crate) members: Vec<(usize, Form)>,
    /// Members that were online when it came; empty once anything has happened to a member.
    pub(crate) expects: Vec<usize>,
    /// Whether no member was online when it came, and none can have been sent it since: it goes to
    /// the first member that can take it.
    pub(crate) is_waiting: bool,
    /// Whether a member may have had it and lost it.
    pub(crate) is_optional: bool,
}
