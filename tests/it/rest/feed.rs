//! The feed of the broker's double: a snapshot of one client, then the changes 3 to 5, then nothing
//! once, then it waits until a test lets it go on with the change 7, and then without end.

use std::time::Duration;

use hearthmq::control::{EventId, FeedItem, FeedKind, FeedPosition};
pub(crate) use hearthmq::control::{FeedPart, Follow};

/// Returns a request for events in one line, without what is usual.
pub(crate) fn asked(follow: &Follow) -> String {
    let Follow { from, filter, caller, wait, items_max, .. } = follow;
    let clients = filter.clients.as_ref().map_or("*", |pattern| pattern.text());
    let mut text = format!("follow '{from}' {clients}");
    if let Some(username) = &filter.username {
        text += &format!(" of {username}");
    }
    if let Some(kinds) = &filter.kinds {
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        text += &format!(" [{}]", names.join(" "));
    }
    if *wait > Duration::ZERO {
        text += &format!(" wait {}", wait.as_secs());
    }
    if *items_max != 1_000 {
        text += &format!(" limit {items_max}");
    }
    let by = caller.as_ref().and_then(|caller| caller.identity.username.as_deref());
    text + " by " + by.unwrap_or("nobody")
}

/// What the client of the snapshot, the client of each change, and the end of the snapshot are.
pub(crate) const OF_A: &str = r#"{"clientid":"a","username":null,"event":"client.connected","clean_start":true,"connected_at":1,"keepalive":60,"node":"n","proto_ver":5,"peername":"192.0.2.7:1","timestamp":1,"version":1,"number":1}"#;
pub(crate) const OF_B: &str = r#"{"clientid":"b","username":"ann","event":"client.connected","clean_start":true,"connected_at":2,"keepalive":60,"node":"n","proto_ver":4,"peername":"192.0.2.7:2","timestamp":2,"version":2,"number":2}"#;
pub(crate) const END: &str = r#"{"event":"snapshot.end","node":"n","timestamp":1}"#;

pub(crate) async fn part(follow: &Follow) -> FeedPart {
    let id = |number| EventId { epoch: 0xab, number };
    let item = |number, kind, json: &'static str| FeedItem::new(id(number), kind, json.into());
    let (items, last) = match follow.from {
        FeedPosition::After(EventId { number: 7.., .. }) => std::future::pending().await,
        FeedPosition::After(EventId { number: 5, .. }) => (vec![], 6),
        FeedPosition::After(EventId { number, .. }) => {
            let next = number + 1;
            (vec![item(next, FeedKind::ClientConnected, OF_B)], next)
        }
        _ => {
            let client = item(1, FeedKind::Snapshot, OF_A);
            (vec![client, item(2, FeedKind::SnapshotEnd, END)], 2)
        }
    };
    FeedPart::new(items, FeedPosition::After(id(last)))
}
