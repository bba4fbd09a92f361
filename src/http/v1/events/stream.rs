//! The body of an answer that goes on: the parts of the feed as Server-Sent Events or as lines of
//! JSON, one chunk for each part.
//!
//! The next part is asked for when the server has written the last one. So a caller that reads slowly
//! holds one part in memory, whatever happens; it is told if it has missed something.

use std::{convert::Infallible, fmt::Write as _, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream::unfold};

use super::{Follower, push_object};
use crate::{
    control::{FeedItem, FeedPart, FeedPosition},
    http::{Api, ApiError, live::LiveFormat},
};

/// The longest silence: a caller, and what is between it and the broker, sees that the broker lives.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Milliseconds after which a caller of Server-Sent Events connects again.
const RETRY_MILLIS: u32 = 3_000;

/// The parts of the feed for one caller.
pub(super) struct FeedStream {
    format: LiveFormat,
    follower: Follower,
    api: Arc<Api>,
    ending: Pin<Box<dyn Future<Output = ()>>>,
    /// The first part, with which the answer began.
    first: Option<FeedPart>,
}

impl FeedStream {
    /// Asks for the first part, so that a broker that cannot answer is an error of the call.
    pub(super) async fn begin(
        format: LiveFormat,
        mut follower: Follower,
        api: Arc<Api>,
        ending: impl Future<Output = ()> + 'static,
    ) -> Result<Self, ApiError> {
        let first = api.0.control.follow(follower.follow.clone()).await?;
        follower.follow.from = first.next;
        follower.follow.wait = SILENCE_MAX;
        Ok(Self { format, follower, api, ending: Box::pin(ending), first: Some(first) })
    }

    /// Returns the chunks of the body.
    pub(super) fn into_chunks(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        unfold(self, |mut stream| async move {
            let chunk = stream.next().await?;
            Some((Ok(Bytes::from(chunk)), stream))
        })
    }

    /// Waits for the next chunk; `None` at the end.
    async fn next(&mut self) -> Option<String> {
        // The first part was asked for before the answer
        // began, so that an error has its own status.
        if let Some(first) = self.first.take() {
            let mut text = match self.format {
                LiveFormat::ServerSentEvents => format!("retry: {RETRY_MILLIS}\n\n"),
                LiveFormat::Lines => String::new(),
            };
            first.items.iter().for_each(|item| push_item(self.format, &mut text, item));
            if !text.is_empty() {
                return Some(text);
            }
        }
        loop {
            let Follower { caller, admission, follow, .. } = &mut self.follower;
            let part = tokio::select! {
                () = &mut self.ending => return None,
                () = admission.lost(&self.api, caller) => return None,
                part = self.api.0.control.follow(follow.clone()) => part.ok()?,
            };
            // Checked after the wait: the caller may have lost its permission meanwhile.
            if !admission.holds(&self.api, caller) {
                return None;
            }
            // A part of a snapshot may have no client that the caller wants.
            let is_silence = part.items.is_empty() && matches!(part.next, FeedPosition::After(_));
            follow.from = part.next;
            if is_silence {
                return Some(self.format.sign_of_life().to_owned());
            }
            if !part.items.is_empty() {
                let mut text = String::new();
                part.items.iter().for_each(|item| push_item(self.format, &mut text, item));
                return Some(text);
            }
        }
    }
}

fn push_item(format: LiveFormat, text: &mut String, item: &FeedItem) {
    match format {
        LiveFormat::ServerSentEvents => {
            let (id, name, json) = (item.id, item.kind.name(), &item.json);
            let json = String::from_utf8_lossy(json); // on one line, as JSON escapes line ends
            let _ = write!(text, "id: {id}\nevent: {name}\ndata: {json}\n\n");
        }
        LiveFormat::Lines => {
            push_object(text, item);
            text.push('\n');
        }
    }
}
