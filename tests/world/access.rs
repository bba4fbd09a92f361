//! A caller changes who may be there, and what clients may do: bans, rules of the store, and a permission
//! that ends.

use hearthmq::{
    control::{
        AccessChanged, AccessControl as _, AccessError, BanSubject, PutBan, PutRule, RemoveBan,
        RemoveRule, StoredRule,
    },
    mqtt::ReasonCode,
};

use crate::{
    model::Verdict,
    steps::How,
    vocabulary::{BANS, FILTERS, NAMES, RULES},
    world::{MARGIN_MILLIS, World},
};

/// What the broker does depends on what the model does not know.
pub(crate) struct Undecided;

impl World {
    /// Bans some of the clients. Those that are online are disconnected when the answer comes.
    pub(crate) async fn ban(&mut self, ban: usize, secs: Option<u8>) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped"); // the answer waits for the store
            return Ok(());
        }
        let (kind, value, clients) = BANS[ban];
        let online = clients.iter().filter(|client| self.model.link(**client).is_some()).count();
        self.count(if online > 0 { "banned" } else { "banned nobody" });
        let mut request = PutBan::new(subject(kind, value)?);
        request.ttl_secs = secs.map(u32::from);
        let changed = self.broker.put_ban(request).await.map_err(|error| error.to_string())?;
        self.tick();
        self.model.ban(ban, secs);
        match changed.sessions_touched == online as u64 {
            true => Ok(()),
            false => Err(format!("a ban touched {}, not {online}", changed.sessions_touched)),
        }
    }

    /// Lifts a ban.
    pub(crate) async fn lift_ban(&mut self, ban: usize) -> Verdict {
        self.tick();
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let (kind, value, _) = BANS[ban];
        let former = self.model.lift_ban(ban);
        let lifted = self.broker.remove_ban(RemoveBan::new(subject(kind, value)?)).await;
        self.count(if lifted.is_ok() { "ban lifted" } else { "no ban to lift" });
        let near = |at: u64| at.abs_diff(self.model.now) <= MARGIN_MILLIS;
        match (&lifted, former.map(|former| former.ends_at)) {
            (Ok(_), Some(None)) | (Err(AccessError::NotFound), None) => Ok(()),
            (Ok(_), Some(Some(at))) if at > self.model.now || near(at) => Ok(()),
            (Err(AccessError::NotFound), Some(Some(at))) if at < self.model.now || near(at) => {
                Ok(())
            }
            (_, former) => Err(format!("{lifted:?} where the ban was {former:?}")),
        }
    }

    /// Lifts the bans that end by themselves: another broker has another time.
    pub(crate) async fn lift_bans_that_end(&mut self) -> Verdict {
        for ban in self.model.bans_that_end() {
            let (kind, value, _) = BANS[ban];
            let lifted = self.broker.remove_ban(RemoveBan::new(subject(kind, value)?)).await;
            if let Err(error) = lifted
                && !matches!(error, AccessError::NotFound)
            {
                return Err(error.to_string());
            }
            self.model.lift_ban(ban);
        }
        Ok(())
    }

    /// Returns the reason for which the broker refuses a CONNECT, if it does.
    pub(crate) fn refusal_of(
        &self,
        client: usize,
        how: &How,
    ) -> Result<Option<ReasonCode>, Undecided> {
        let How { version, clean_start, expiry_secs, .. } = *how;
        if self.is_banned(client).ok_or(Undecided)? {
            return Ok(Some(ReasonCode::Banned));
        }
        if !self.model.may_connect(client) {
            return Ok(Some(ReasonCode::NotAuthorized));
        }
        if self.model.refuses_connect(client, version, clean_start, expiry_secs) {
            return Ok(Some(ReasonCode::ServerUnavailable));
        }
        match self.model.delays_connect(client, version, clean_start, expiry_secs) {
            true => Err(Undecided), // tests/it/overtaken covers it
            false => Ok(None),
        }
    }

    /// Returns whether a client is banned; `None` if its ban ends just now.
    fn is_banned(&self, client: usize) -> Option<bool> {
        let (before, after) = (self.model.now.saturating_sub(MARGIN_MILLIS), self.model.now);
        let was_banned = self.model.is_banned_at(client, before);
        let is_banned = self.model.is_banned_at(client, after + MARGIN_MILLIS);
        (was_banned == is_banned).then_some(is_banned)
    }

    /// Adds a rule to the store. It holds for all clients when the answer comes.
    pub(crate) async fn put_rule(&mut self, rule: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped"); // the answer waits for the store
            return Ok(());
        }
        let request = PutRule::new(RULES[rule].json()).with_id(rule.to_string());
        let changed = self.broker.put_rule(request).await.map_err(|error| error.to_string())?;
        self.tick();
        let touched = self.model.put_rule(rule);
        self.count(if touched > 0 { "rule added, clients touched" } else { "rule added" });
        self.compare_touched(&changed, touched)
    }

    /// Removes a rule. What it has denied is allowed from now on.
    pub(crate) async fn remove_rule(&mut self, rule: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let removed = self.broker.remove_rule(RemoveRule::new(rule.to_string())).await;
        self.tick();
        let touched = self.model.remove_rule(rule);
        self.count(if removed.is_ok() { "rule removed" } else { "no rule to remove" });
        match (removed, touched) {
            (Ok(changed), Some(touched)) => self.compare_touched(&changed, touched),
            (Err(AccessError::NotFound), None) => Ok(()),
            other => Err(format!("{other:?} where a rule was removed")),
        }
    }

    /// Compares the number of sessions that a change has touched. Wills of sessions that have ended are
    /// sessions to the broker.
    fn compare_touched(&self, changed: &AccessChanged<StoredRule>, touched: usize) -> Verdict {
        let wills = self.model.last_wills.iter().flatten().count();
        match (touched..=touched + wills).contains(&(changed.sessions_touched as usize)) {
            true => Ok(()),
            false => Err(format!("a rule touched {}, not {touched}", changed.sessions_touched)),
        }
    }

    /// Takes the permission for one of its subscriptions from a client until all clients have been
    /// examined.
    pub(crate) async fn deny(&mut self, client: usize, nth: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let session = self.model.sessions[client].as_ref();
        let subscriptions = session.map_or(&[][..], |session| &session.subscriptions);
        let filter = match subscriptions.len() {
            0 => FILTERS[nth % FILTERS.len()],
            len => subscriptions[nth % len].filter,
        };
        self.rules.deny(Some((client, filter)));
        let found = self.broker.recheck().await;
        self.rules.deny(None);
        self.tick();
        let is_withdrawn = self.model.denied(client, filter);
        self.count(if is_withdrawn { "subscription withdrawn" } else { "nothing withdrawn" });
        match found.touched == usize::from(is_withdrawn) {
            true => Ok(()),
            false => Err(format!("{found:?} after {filter} was denied to {}", NAMES[client])),
        }
    }
}

fn subject(kind: &str, value: &str) -> Verdict<BanSubject> {
    BanSubject::parse(kind, value).map_err(|error| error.to_string())
}
