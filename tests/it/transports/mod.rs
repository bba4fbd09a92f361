//! One table of dialogues over every transport: the session behaves the same, whatever carries the
//! packets. Other tests cover what is special about each transport.

mod dialogues;
mod hosted;
mod ipv6;
mod listeners;
mod pinned;
mod proxy;
mod slow_packets;
mod start;
mod unix;
mod upgrade;
mod ways;
mod websocket;
mod wrong_door;

/// Creates a test for each dialogue and transport.
macro_rules! table {
    ($($dialogue:ident),* $(,)?) => { $(
        mod $dialogue {
            use crate::transports::{dialogues, ways::Way};

            #[actix_rt::test]
            async fn over_tcp() {
                dialogues::$dialogue(Way::Tcp).await;
            }

            #[actix_rt::test]
            async fn over_tls() {
                dialogues::$dialogue(Way::Tls).await;
            }

            #[actix_rt::test]
            async fn over_websocket() {
                dialogues::$dialogue(Way::WebSocket).await;
            }

            #[actix_rt::test]
            async fn over_secure_websocket() {
                dialogues::$dialogue(Way::SecureWebSocket).await;
            }

            #[actix_rt::test]
            async fn over_a_websocket_of_a_host() {
                dialogues::$dialogue(Way::Hosted).await;
            }

            #[actix_rt::test]
            async fn over_a_unix_socket() {
                dialogues::$dialogue(Way::Unix).await;
            }

            #[actix_rt::test]
            async fn over_ipv6() {
                dialogues::$dialogue(Way::Ipv6).await;
            }

            #[actix_rt::test]
            async fn behind_a_proxy() {
                dialogues::$dialogue(Way::Proxied).await;
            }

            #[actix_rt::test]
            async fn over_secure_websocket_behind_a_proxy() {
                dialogues::$dialogue(Way::ProxiedSecureWebSocket).await;
            }
        }
    )* };
}

table! {
    messages_of_every_quality_of_service_go_both_ways,
    a_retained_message_waits_for_its_subscriber,
    the_will_of_a_client_that_is_cut_off_is_published,
    a_client_that_leaves_while_a_rate_holds_it_is_offline,
    a_session_moves_between_transports,
    packets_arrive_in_pieces_and_in_heaps,
    a_packet_of_a_megabyte_goes_both_ways,
    a_client_that_does_not_read_harms_nobody_and_misses_nothing,
    a_broker_that_shuts_down_says_so,
    a_broker_that_shuts_down_says_so_to_a_client_that_waits_for_it,
}
