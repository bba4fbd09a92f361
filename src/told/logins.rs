//! Lines of the log about logins: a lock-out when it begins, and an answer of a source that cannot be used.

use std::{
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::{
    CLIENTS, cut,
    limit::{Limiter, LineKind},
    tell_quiet,
};

/// Limits the lines of one kind, as those of other refusals.
struct LimitedLines {
    limiter: Mutex<Limiter>,
    began: Instant,
}

impl Default for LimitedLines {
    fn default() -> Self {
        Self { limiter: Mutex::default(), began: Instant::now() }
    }
}

impl LimitedLines {
    /// Returns whether a line about this address may be written `now` microseconds after the beginning:
    /// the number of lines that were omitted before it, or `None`.
    fn allow(&self, address: IpAddr, now: u64) -> Option<Option<u32>> {
        let (quiet, allowed) = {
            let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            (limiter.quiet(now), limiter.allow(LineKind::Trouble, address, now))
        };
        if let Some(quiet) = quiet {
            tell_quiet(quiet);
        }
        allowed.map(|left_out| Some(left_out).filter(|lines| *lines > 0))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Logs lock-outs.
#[derive(Default)]
pub(crate) struct LockOuts(LimitedLines);

/// A lock-out: attempts are not looked at for some time because of failures.
pub(crate) struct LockOut<'a> {
    pub(crate) address: IpAddr,
    pub(crate) listener: &'a str,
    /// MQTT or REST.
    pub(crate) over: &'a str,
    /// The user of the last failure.
    pub(crate) user: &'a str,
    pub(crate) secs: u32,
    /// Whether all attempts from the address are meant, or only those of this user from there.
    pub(crate) is_whole_address: bool,
}

impl LockOuts {
    /// Logs that a lock-out begins. It is the only line at `warn` about it; the attempts that it
    /// refuses are counted in the metrics.
    pub(crate) fn tell(&self, began: &LockOut<'_>) {
        self.tell_at(began, self.0.now());
    }

    /// Does the same `now` microseconds after the beginning.
    fn tell_at(&self, began: &LockOut<'_>, now: u64) {
        let LockOut { address, listener, over, user, secs, is_whole_address } = *began;
        let Some(left_out) = self.0.allow(address, now) else { return };
        let user = &*cut(user);
        let what = if is_whole_address { "address" } else { "user at this address" };
        tracing::warn!(
            target: CLIENTS, parent: None,
            %address, listener, over, what, secs, user, left_out,
            "locked out"
        );
    }
}

/// Logs answers that cannot be used.
#[cfg(feature = "postgres")]
#[derive(Default)]
pub(crate) struct UnusableAnswers(LimitedLines);

/// An answer of a source of identities by which nobody can log in.
#[cfg(feature = "postgres")]
pub(crate) struct UnusableAnswer<'a> {
    /// The section of the configuration.
    pub(crate) source: &'a str,
    /// The option that asks for the answer.
    pub(crate) option: &'a str,
    /// The fault. It may contain text of the client.
    pub(crate) why: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) user: &'a str,
    /// Whether it is about this user alone, whose login is refused. Otherwise it is answered Server unavailable.
    pub(crate) is_refused: bool,
}

#[cfg(feature = "postgres")]
impl UnusableAnswers {
    /// Logs an answer. A client can cause it as often as it likes.
    pub(crate) fn tell(&self, answer: &UnusableAnswer<'_>) {
        let UnusableAnswer { source, option, why, address, user, is_refused } = *answer;
        // The limit by address, because a client can cause this line with each CONNECT.
        let Some(left_out) = self.0.allow(address, self.0.now()) else { return };
        let (address, why, user) = (address.to_canonical(), &*cut(why), &*cut(user));
        if is_refused {
            tracing::warn!(
                target: CLIENTS, parent: None,
                %address, source, option, why, user, left_out,
                "login refused: the hash of the user cannot be checked"
            );
            return;
        }
        tracing::warn!(
            target: CLIENTS, parent: None,
            %address, source, option, why, user, left_out,
            "login unavailable: an answer of the source cannot be used"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise they would stay in the table of addresses, until it has no room for others.
    #[test]
    fn lines_that_were_left_out_are_told_when_their_address_is_quiet() {
        let lock_outs = LockOuts::default();
        let tell = |last: u8, at_secs: u64| {
            let address = IpAddr::from([192, 0, 2, last]);
            let (listener, over, user) = ("mqtt", "MQTT", "ann");
            let began = LockOut { address, listener, over, user, secs: 60, is_whole_address: true };
            lock_outs.tell_at(&began, at_secs * 1_000_000);
        };
        for _ in 0..1_000 {
            tell(1, 1);
        }
        tell(2, 30);
        let mut limiter = lock_outs.0.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(limiter.quiet(60 * 1_000_000), None, "nothing is left to be told");
    }
}
