//! Chapters 1 and 2: how data are represented, and the form of a control packet.

use hearthmq::mqtt::Packet;

use super::{
    sockets::{broker, connected},
    support::packets::*,
};

/// [MQTT-2.2.1-6] in 5.0, [MQTT-2.3.1-7] in 3.1.1
#[actix_rt::test]
async fn suback_and_unsuback_carry_the_packet_identifier_of_the_request() {
    let (_broker, address) = broker().await;
    for version in VERSIONS {
        let mut client = connected(address, connect_in(version, "c")).await;
        client.send(subscribe(0x1234, vec![filter("a", QOS_1)])).await;
        client
            .receive(|packet| {
                let Packet::SubAck(ack) = packet else { panic!("{packet:?}") };
                assert_eq!(ack.packet_id, id(0x1234));
            })
            .await;
    }
}
