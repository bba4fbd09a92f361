//! What is counted of logins. The authenticator counts; here are only the names.

use std::fmt;

use super::{Totals, cells::Gauge, encode::Writer};

/// Numbers of the authenticator, as of the last look. All but the first and the last only grow.
#[derive(Debug, Default)]
pub struct LoginTotals {
    /// Logins that wait for their password to be hashed.
    pub waiting: Gauge,
    /// Logins that were told to try again later, as too many waited.
    pub turned_away: Gauge,
    /// Refusals of a user name at an address that began.
    pub user_lockouts: Gauge,
    /// Refusals of an address that began.
    pub address_lockouts: Gauge,
    /// Attempts that were not looked at for earlier failures.
    pub refused: Gauge,
    /// Attempts with a password that was wrong a moment ago.
    pub repeated: Gauge,
    /// Passwords that were hashed.
    pub hashed: Gauge,
    /// Pairs of user and address that were right before.
    pub known: Gauge,
}

impl Writer<'_, '_> {
    pub(super) fn logins(&mut self, totals: &Totals) -> fmt::Result {
        let logins = &totals.logins;
        self.total("logins_waiting", "Logins that wait for a hash", &logins.waiting)?;
        self.total("logins_known", "Pairs of user and address right before", &logins.known)?;
        let lockouts = [
            ([("scope", "user")], logins.user_lockouts.value()),
            ([("scope", "address")], logins.address_lockouts.value()),
        ];
        let help = "Refusals that began: of a user at an address, of an address";
        self.family("login_lockouts", help, &lockouts)?;
        for (name, help, count) in [
            ("logins_turned_away", "Logins turned away as too many waited", &logins.turned_away),
            ("logins_refused", "Attempts not looked at for earlier failures", &logins.refused),
            ("logins_repeated", "Attempts with a password wrong before", &logins.repeated),
            ("passwords_hashed", "Passwords hashed", &logins.hashed),
        ] {
            self.counted(name, help, count.value())?;
        }
        Ok(())
    }
}
