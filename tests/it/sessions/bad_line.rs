//! The session alone, with a client on a bad line: no message is lost, and none is doubled at QoS
//! 2.

use hearthmq_test::session_model::{self, Step};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.4-9]
    #[test]
    fn whatever_the_line_does_every_message_arrives_in_order_and_at_qos_2_once(
        steps in prop::collection::vec(any::<[u8; 3]>(), 0..200)
    ) {
        session_model::run(steps.into_iter().map(|bytes| Step::of(bytes, false)));
    }

    #[test]
    fn whatever_the_client_acknowledges_the_session_sends_packets(
        steps in prop::collection::vec(any::<[u8; 3]>(), 0..200)
    ) {
        session_model::run(steps.into_iter().map(|bytes| Step::of(bytes, true)));
    }
}

/// A client that always has something to read: data that it has read is not kept.
#[test]
fn the_output_of_a_client_that_is_always_behind_does_not_grow() {
    let connected = [Step::Attach { quota: 8, version: hearthmq::mqtt::ProtocolVersion::V5 }];
    let behind = (0..10_000).flat_map(|_| {
        let qos = hearthmq::mqtt::QoS::AtMostOnce;
        [Step::Deliver { qos, bytes: 1000 }, Step::Write { bytes: 990 }, Step::Take { packets: 2 }]
    });
    session_model::run(connected.into_iter().chain(behind));
}
