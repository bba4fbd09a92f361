//! Metrics of logins. The authenticator counts; this module only names the numbers.

use std::fmt;

use super::{Totals, cells::Gauge, encode::TextWriter};

/// Numbers of the authenticator at the last refresh. All but `waiting` and `known` only grow.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LoginTotals {
    /// Logins that wait for a password hash.
    pub waiting: Gauge,
    /// Logins refused because too many were waiting; the client may try again later.
    pub turned_away: Gauge,
    /// Lockouts of a user name at an address.
    pub user_lockouts: Gauge,
    /// Lockouts of an address.
    pub address_lockouts: Gauge,
    /// Attempts refused without a check, because of earlier failures.
    pub refused: Gauge,
    /// Attempts that repeat a recently rejected password.
    pub repeated: Gauge,
    /// Passwords hashed.
    pub hashed: Gauge,
    /// Pairs of user and address with an earlier successful login.
    pub known: Gauge,
}

impl TextWriter<'_, '_> {
    pub(super) fn logins(&mut self, totals: &Totals) -> fmt::Result {
        let logins = &totals.logins;
        self.total("logins_waiting", "Logins waiting for a password hash", &logins.waiting)?;
        self.total(
            "logins_known",
            "Pairs of user and address with an earlier successful login",
            &logins.known,
        )?;
        // The totals are gauges; those from here on only grow, so they are counters for Prometheus.
        let lockouts = [
            ([("scope", "user")], logins.user_lockouts.value()),
            ([("scope", "address")], logins.address_lockouts.value()),
        ];
        let help = "Lockouts begun: of a user at an address, of an address";
        self.family("login_lockouts", help, &lockouts)?;
        for (name, help, count) in [
            (
                "logins_turned_away",
                "Logins refused because too many were waiting",
                &logins.turned_away,
            ),
            (
                "logins_refused",
                "Attempts refused unchecked after earlier failures",
                &logins.refused,
            ),
            (
                "logins_repeated",
                "Attempts that repeat a recently rejected password",
                &logins.repeated,
            ),
            ("passwords_hashed", "Passwords hashed", &logins.hashed),
        ] {
            self.counted(name, help, count.value())?;
        }
        Ok(())
    }
}
