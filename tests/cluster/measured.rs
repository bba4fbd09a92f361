//! How long questions about clients of another node take. It prints, and judges nothing:
//!
//! ```text
//! HEARTHMQ_CLUSTER_QUESTIONS=5000 cargo test --release --features cluster --test cluster measured -- --nocapture
//! ```

#![expect(clippy::print_stdout, reason = "it is there to print")]

use std::time::Duration;

use futures_util::future::join_all;
use hearthmq::{
    Broker,
    auth::AllowAll,
    control::{ClusterState, MemberState, Readiness as _},
    internals::cluster::joining::ClusterSettings,
    mqtt::ProtocolVersion,
};
use hearthmq_test::{Client, generous, nats::NatsServers, packets::connect_in};
use tempfile::{TempDir, tempdir};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::support::{PATIENCE, settings};

/// Questions that are under way at the same time, where several are.
const AT_A_TIME: usize = 64;

async fn start(servers: &NatsServers, name: &str) -> (Broker, TempDir) {
    let directory = tempdir().unwrap();
    let nats = settings(servers, name);
    let settings = ClusterSettings { nats, directory: directory.path().to_owned() };
    let broker = Broker::builder()
        .tcp("127.0.0.1:0")
        .shards(1)
        .limits(generous())
        .authenticator(AllowAll)
        .authorizer(AllowAll)
        .cluster(settings);
    (broker.start().await.unwrap(), directory)
}

async fn connected(broker: &Broker, client_id: &str) -> Client<TcpStream> {
    let stream = TcpStream::connect(broker.local_addrs()[0]).await.unwrap();
    let mut client = Client::on(stream, ProtocolVersion::V5);
    client.connect(connect_in(ProtocolVersion::V5, client_id)).await;
    client
}

/// Prints the time of a question about each of these clients, one after the other, and the rate of several at a time.
async fn measure(what: &str, broker: &Broker, client_ids: &[String], expected: bool) {
    let mut times = Vec::with_capacity(client_ids.len());
    for client_id in client_ids {
        let began = Instant::now();
        assert_eq!(broker.online(client_id).await.unwrap(), expected);
        times.push(began.elapsed());
    }
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    let (p50, p99) = (at(50), at(99));
    let began = Instant::now();
    for some in client_ids.chunks(AT_A_TIME) {
        join_all(some.iter().map(|client_id| broker.online(client_id))).await;
    }
    let rate = client_ids.len() as f64 / began.elapsed().as_secs_f64();
    println!(
        "{what:<40} p50 {p50:>9.1?}  p99 {p99:>9.1?}  {rate:>9.0}/s with {AT_A_TIME} at a time"
    );
}

#[actix_rt::test]
async fn questions_across_nodes_are_measured() {
    let Some(servers) = NatsServers::start(1) else { return };
    let count = std::env::var("HEARTHMQ_CLUSTER_QUESTIONS").ok();
    let count = count.and_then(|count| count.parse().ok()).unwrap_or(200);
    let (a, _a) = start(&servers, "a").await;
    let (b, _b) = start(&servers, "b").await;
    let began = Instant::now();
    let serves = |broker: &Broker| {
        let view = broker.cluster().unwrap();
        let states = view.members.iter().map(|member| member.state);
        view.state == ClusterState::Serving
            && states.filter(|state| *state == MemberState::Serving).count() == 2
    };
    while ![&a, &b].into_iter().all(serves) {
        assert!(began.elapsed() < PATIENCE, "they do not join");
        sleep(Duration::from_millis(20)).await;
    }
    let ids = |kind: &str| (0..count).map(|one| format!("{kind}-{one}")).collect::<Vec<_>>();
    let (here, there, nobody) = (ids("here"), ids("there"), ids("nobody"));
    let mut clients = Vec::new();
    for (broker, client_ids) in [(&a, &here), (&b, &there)] {
        for client_id in client_ids {
            clients.push(connected(broker, client_id).await);
        }
    }
    measure("on this node", &a, &here, true).await;
    measure("on another node, by its record", &a, &there, true).await;
    measure("on another node, known", &a, &there, true).await;
    measure("on no node", &a, &nobody, false).await;
    let began = Instant::now();
    let states = a.online_many(&there).await.unwrap();
    assert!(states.iter().all(|state| state.online));
    println!("{count} in one call, known: {:.1?}", began.elapsed());
    let began = Instant::now();
    assert!(a.online_many(&nobody).await.is_ok());
    println!("{count} in one call, on no node: {:.1?}", began.elapsed());
}
