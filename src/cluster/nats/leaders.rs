//! Spreads the leaders of streams over the NATS servers, so that the death of one server stops one of
//! them and not all.
//!
//! Knows the leader of a stream; does not know why it matters. Called by the driver, on one node at a time.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::timeout;

use super::link::NatsLink;

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// The leader of a stream, and the servers that could lead it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamLeader {
    pub(super) stream: String,
    pub(super) leader: String,
    /// Servers that have all of the stream, and are alive.
    pub(super) others: Vec<String>,
}

/// A stream that another server shall lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaderMove {
    pub(super) stream: String,
    pub(super) to: String,
}

/// Returns the moves that spread the leaders: for each stream of the server with the most leaders, one move
/// to the server with the fewest, as long as that evens them out.
pub(super) fn moves(leaders: &[StreamLeader]) -> Vec<LeaderMove> {
    let mut now: Vec<&str> = leaders.iter().map(|stream| stream.leader.as_str()).collect();
    let mut burdens: BTreeMap<&str, usize> = BTreeMap::new();
    for stream in leaders {
        *burdens.entry(&stream.leader).or_default() += 1;
        // Servers without any leader count too, because they are the best targets.
        for other in &stream.others {
            burdens.entry(other).or_default();
        }
    }
    let mut found = Vec::new();
    for (at, stream) in leaders.iter().enumerate() {
        let from = now[at];
        let others = stream.others.iter().map(String::as_str);
        // The name decides between equal ones, so that all nodes compute the same moves.
        let Some(to) = others.min_by_key(|other| (burdens[other], *other)) else { continue };
        // A difference of one cannot be made smaller.
        if burdens[from] < burdens[to] + 2 {
            continue;
        }
        burdens.entry(from).and_modify(|burden| *burden -= 1);
        burdens.entry(to).and_modify(|burden| *burden += 1);
        // Later moves see the effect of this one.
        now[at] = to;
        found.push(LeaderMove { stream: stream.stream.clone(), to: to.to_owned() });
    }
    found
}

/// Returns the leader of a stream; `None` if it has no leader now, or no answer comes.
pub(super) async fn leader(link: &NatsLink, stream: &str) -> Option<StreamLeader> {
    let asked = timeout(ANSWER_TIME_MAX, link.jetstream().get_stream(stream)).await;
    let found = asked.ok()?.ok()?;
    let cluster = found.cached_info().cluster.as_ref()?;
    let fit = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline);
    Some(StreamLeader {
        stream: stream.to_owned(),
        leader: cluster.leader.clone().filter(|leader| !leader.is_empty())?,
        others: fit.map(|peer| peer.name.clone()).collect(),
    })
}

/// Asks the leader of a stream to step down in favour of another server. It may not follow.
pub(super) async fn step_down(link: &NatsLink, wish: &LeaderMove) {
    let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{}", wish.stream);
    let request = serde_json::json!({ "placement": { "preferred": wish.to } });
    let payload = Bytes::from(request.to_string());
    drop(link.ask(subject, None, payload, ANSWER_TIME_MAX).await); // Looked at again later.
}

#[cfg(test)]
mod tests {
    //! Leaders together, spread, and without others.

    use super::*;

    fn streams(leaders: &[&str], servers: &[&str]) -> Vec<StreamLeader> {
        let one = |(number, leader): (usize, &&str)| StreamLeader {
            stream: format!("s{number}"),
            leader: (*leader).to_owned(),
            others: servers.iter().filter(|it| *it != leader).map(|it| (*it).to_owned()).collect(),
        };
        leaders.iter().enumerate().map(one).collect()
    }

    fn after(mut streams: Vec<StreamLeader>) -> Vec<usize> {
        for LeaderMove { stream, to } in moves(&streams) {
            let moved = streams.iter_mut().find(|it| it.stream == stream).expect("it is known");
            assert!(moved.others.contains(&to), "{to} cannot lead {stream}");
            moved.leader = to;
        }
        let mut burdens: BTreeMap<String, usize> = BTreeMap::new();
        for stream in streams {
            *burdens.entry(stream.leader).or_default() += 1;
        }
        let mut burdens: Vec<_> = burdens.into_values().collect();
        burdens.sort_unstable();
        burdens
    }

    #[test]
    fn leaders_are_spread_as_far_as_servers_live() {
        let all = ["a", "b", "c"];
        assert_eq!(after(streams(&["a", "a", "a"], &all)), [1, 1, 1]);
        assert_eq!(after(streams(&["b", "a", "b"], &all)), [1, 1, 1]);
        assert_eq!(after(streams(&["a", "a", "a"], &all[..2])), [1, 2]);
        assert_eq!(after(streams(&["a"; 16], &all)), [5, 5, 6]);
        assert_eq!(moves(&streams(&["c", "a", "b"], &all)), []);
        assert_eq!(moves(&streams(&["a", "a", "a"], &all[..1])), []);
        assert_eq!(moves(&[]), []);
    }
}
