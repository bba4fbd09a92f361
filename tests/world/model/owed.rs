//! What is owed: a message, a client's copy of it, and a copy that is owed to one of several.

use std::{fmt, rc::Rc};

use hearthmq::mqtt::QoS;

/// An Application Message that was routed.
pub(crate) struct Message {
    /// Place among all messages in the order of routing.
    pub(crate) order: u64,
    pub(crate) topic: &'static str,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    /// `None` is the application that the broker is part of.
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

/// A payload without what fills it up.
pub(super) fn number_of(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    format!("{:?} of {} bytes", text.trim_end_matches('.'), text.len())
}

/// How a client is to get a message.
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
    /// The new subscription that it was retained for; such messages are older than those around
    /// them.
    pub(crate) retained_for: Option<&'static str>,
    pub(crate) packet_id: Option<u16>,
    /// It came first over MQTT 3, which tells copies with other identifiers not apart.
    pub(crate) came_to_v3: bool,
    /// Number of the connection on which it came last.
    pub(crate) received_on: Option<u64>,
    /// It may have been sent on a connection that has ended.
    pub(crate) may_be_lost: bool,
    /// It need not come.
    pub(crate) is_optional: bool,
    /// The shared filter that it has come by, and the message's RETAIN.
    pub(crate) share: Option<(&'static str, bool)>,
    /// That group has ended.
    pub(crate) is_left_over: bool,
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
            share: None,
            is_left_over: false,
        }
    }
}

/// A QoS 2 message that its receiver has said PUBREC for.
#[derive(Clone, Debug)]
pub(crate) struct Releasing {
    pub(crate) packet_id: u16,
    pub(crate) payload: Vec<u8>,
    /// Number of the connection on which PUBREL came last.
    pub(crate) received_on: Option<u64>,
    /// Number of the connection whose Receive Maximum it counts against.
    pub(crate) counts_on: Option<u64>,
}

/// A message that one member of a shared subscription is to get, section 4.8.2.
#[derive(Clone, Debug)]
pub(crate) struct GroupCopy {
    pub(crate) message: Rc<Message>,
    pub(crate) filter: &'static str,
    /// That group has ended.
    pub(crate) is_left_over: bool,
    /// The message's RETAIN.
    pub(crate) retain: bool,
    /// The members since it came, and how it would come to them.
    pub(crate) members: Vec<(usize, Form)>,
    /// Those who were there when it came; none once something has happened to a member.
    pub(crate) expects: Vec<usize>,
    /// Nobody was there when it came, and nobody can have been sent it since: it goes to the first who
    /// could take it.
    pub(crate) is_waiting: bool,
    /// A member may have had it and lost it.
    pub(crate) is_optional: bool,
}
