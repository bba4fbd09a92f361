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

pub(crate) async fn part(follow: &Follow) -> FeedPart {
    let id = |number| EventId { epoch: 0xab, number };
    let item = |number, kind, json: &'static str| FeedItem::new(id(number), kind, json.into());
    let (items, last) = match follow.from {
        FeedPosition::After(EventId { number: 7.., .. }) => std::future::pending().await,
        FeedPosition::After(EventId { number: 5, .. }) => (vec![], 6),
        FeedPosition::After(EventId { number, .. }) => {
            let next = number + 1;
            (vec![item(next, FeedKind::ClientConnected, r#"{"clientid":"b"}"#)], next)
        }
        _ => {
            let client = item(1, FeedKind::Snapshot, r#"{"clientid":"a"}"#);
            (vec![client, item(2, FeedKind::SnapshotEnd, "{}")], 2)
        }
    };
    FeedPart::new(items, FeedPosition::After(id(last)))
}
