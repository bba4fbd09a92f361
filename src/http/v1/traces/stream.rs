//! The records of a trace, as Server-Sent Events or as lines of JSON.
//!
//! The next records are read when the caller has taken those before, so a slow caller holds one part in
//! memory; it is told what it has missed.

use std::{convert::Infallible, fmt::Write as _, pin::Pin, sync::Arc, time::Duration};

use actix_web::web::Bytes;
use futures_util::{Stream, stream::unfold};

use crate::{
    control::{ReadTrace, TracePart, TraceView},
    http::{
        Api,
        admission::HttpCaller,
        live::{LiveFormat, StandingCheck},
        shares::OwnShare,
    },
};

/// The longest silence: a caller sees that the broker lives, and the broker whether the caller does.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// The last line of a trace that has ended.
const ENDED: &str = r#"{"kind":"trace_ended"}"#;

/// Reads a trace.
pub(super) struct TraceReader {
    pub(super) api: Arc<Api>,
    pub(super) caller: HttpCaller,
    pub(super) standing: StandingCheck,
    pub(super) trace: TraceView,
    pub(super) _place: OwnShare,
}

/// The records of a trace for one caller.
pub(super) struct TraceStream {
    format: LiveFormat,
    request: ReadTrace,
    follows: bool,
    is_over: bool,
    /// The generation of the rules by which the caller may read.
    rules: u64,
    reader: TraceReader,
    ending: Pin<Box<dyn Future<Output = ()>>>,
}

impl TraceStream {
    pub(super) fn new(
        (format, after, follows): (LiveFormat, u64, bool),
        reader: TraceReader,
        ending: impl Future<Output = ()> + 'static,
    ) -> Self {
        let wait = if follows { SILENCE_MAX } else { Duration::ZERO };
        let request = ReadTrace::new(Arc::clone(&reader.trace.id), after).waiting(wait);
        let rules = reader.caller.admitted_at.rules;
        Self { format, request, follows, is_over: false, rules, reader, ending: Box::pin(ending) }
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
        if self.is_over {
            return None;
        }
        let TraceReader { api, caller, standing, .. } = &mut self.reader;
        let part = tokio::select! {
            () = &mut self.ending => return None,
            () = standing.lost(api, caller) => return None,
            part = api.0.control.read_trace(self.request.clone()) => part,
        };
        if !self.still_may() {
            return None;
        }
        // A trace that was removed has ended.
        let part = part.unwrap_or_else(|_| TracePart { is_over: true, ..TracePart::default() });
        let mut missed = part.missed;
        let mut text = String::new();
        for record in &part.records {
            let json = String::from_utf8_lossy(&record.json);
            // The gap is told in the first record behind it.
            match std::mem::take(&mut missed) {
                0 => self.push(&mut text, Some(record.number), &json),
                missed => {
                    let json = format!("{{\"missed\":{missed},{}", &json[1..]);
                    self.push(&mut text, Some(record.number), &json);
                }
            }
        }
        self.request.after = part.next;
        self.is_over = part.is_over || (!self.follows && part.records.is_empty());
        if part.is_over {
            self.push(&mut text, None, ENDED);
        } else if text.is_empty() && self.follows {
            text.push_str(self.format.sign_of_life());
        }
        (!text.is_empty()).then_some(text)
    }

    /// Returns whether the caller may still read.
    fn still_may(&mut self) -> bool {
        let TraceReader { api, caller, standing, trace, .. } = &mut self.reader;
        if !standing.holds(api, caller) {
            return false;
        }
        let rules = api.0.authorizer.generation();
        if rules != self.rules {
            self.rules = rules;
            return super::is_shown(api, caller, trace)
                && super::may_read(api, caller, trace).is_ok();
        }
        true
    }

    fn push(&self, text: &mut String, number: Option<u64>, json: &str) {
        match (self.format, number) {
            (LiveFormat::ServerSentEvents, Some(number)) => {
                let _ = write!(text, "id: {number}\ndata: {json}\n\n");
            }
            (LiveFormat::ServerSentEvents, None) => {
                let _ = write!(text, "event: trace_ended\ndata: {json}\n\n");
            }
            (LiveFormat::Lines, _) => {
                text.push_str(json);
                text.push('\n');
            }
        }
    }
}
