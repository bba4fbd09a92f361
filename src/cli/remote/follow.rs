//! Follows the feed of presence over connections that may end: each continues behind the last event.

use std::{
    io::{self, BufRead as _},
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use super::{Remote, RemoteError, http::has_timed_out, query};
use crate::cli::{Failure, note};

/// The pause before a further connection, which doubles while none succeeds.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Passes each event to `handle`, until it returns `false`.
pub(super) fn follow(
    remote: &Remote,
    filters: &str,
    mut after: Option<String>,
    mut handle: impl FnMut(&Value) -> io::Result<bool>,
) -> Result<(), Failure> {
    let mut pause = PAUSE_MIN;
    let mut has_connected = false;
    loop {
        let last = query(&[("last_event_id", after.clone())]);
        let target =
            format!("/api/v1/events?{}", format!("{filters}{last}").trim_start_matches('&'));
        match remote.lines("GET", &target, None) {
            Ok(lines) => {
                // A connection that worked starts the waits over.
                (has_connected, pause) = (true, PAUSE_MIN);
                let mut is_renewed = false;
                for line in lines.lines() {
                    let line = match line {
                        Ok(line) => line,
                        Err(error) => {
                            is_renewed = has_timed_out(&error);
                            break;
                        }
                    };
                    // An empty line, every 15 s, only says that the broker is there.
                    let Ok(event) = serde_json::from_str::<Value>(&line) else {
                        check_output()?;
                        continue;
                    };
                    if !handle(&event)? {
                        return Ok(());
                    }
                    after = event["id"].as_str().map(str::to_owned).or(after);
                }
                // The time of the body is over, which is no
                // fault, so there is no pause and no note.
                if is_renewed {
                    continue;
                }
                note("the broker has ended the stream; connecting again");
            }
            // Waiting does not help against a wrong URL or account, nor before the first connection.
            Err(error) if !has_connected || !may_pass(&error) => return Err(error.into()),
            Err(error) => note(&format!("{error}; connecting again")),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Fails if standard output is a pipe whose reader has gone. Without an event nothing is written, so
/// that a write would not tell.
pub(super) fn check_output() -> io::Result<()> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default()))?;
    match polled[0].revents().contains(PollFlags::ERR) {
        true => Err(io::ErrorKind::BrokenPipe.into()),
        false => Ok(()),
    }
}

fn may_pass(error: &RemoteError) -> bool {
    match error {
        RemoteError::Unreachable { .. } | RemoteError::CutOff => true,
        RemoteError::Refused { status, .. } => matches!(status, 429 | 503 | 504),
        RemoteError::NoAccount
        | RemoteError::NoPassword
        | RemoteError::AccountFile { .. }
        | RemoteError::Ca { .. }
        | RemoteError::Url { .. }
        | RemoteError::NotHearthMq { .. }
        | RemoteError::Unknown { .. }
        | RemoteError::SomeFailed { .. }
        | RemoteError::NobodyToAsk
        | RemoteError::NotConfirmed
        | RemoteError::LinesFailed { .. }
        | RemoteError::NotReady { .. }
        | RemoteError::Io(_) => false,
    }
}
