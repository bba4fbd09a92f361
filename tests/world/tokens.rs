//! API tokens come and go: a caller with one sees its clients until it is removed.

use std::collections::BTreeSet;

use hearthmq::{
    auth::{AuthenticationError, Credentials},
    control::{AccessControl as _, AccessError, Caller, ClientFilter, CreateToken, ListClients},
};

use crate::{
    model::Verdict,
    vocabulary::{NAMES, TOKENS},
    world::World,
};

const PEER: ([u8; 4], u16) = ([192, 0, 2, 8], 40_000);
const LISTENER: &str = "http://127.0.0.1:8080";

impl World {
    /// Makes a token.
    pub(crate) async fn create_token(&mut self, token: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let (name, clients, _) = TOKENS[token];
        let rules =
            format!(r#"[{{"effect":"allow","actions":["observe"],"clients":["{clients}"]}}]"#);
        let made = self.broker.create_token(CreateToken::new(name, rules)).await;
        self.tick();
        self.count(if made.is_ok() { "token made" } else { "token there already" });
        match (made, self.model.tokens[token]) {
            (Ok(made), None) => {
                self.model.tokens[token] = Some(self.secrets.len());
                self.secrets.push((token, made.secret));
                Ok(())
            }
            (Err(AccessError::Conflict), Some(_)) => Ok(()),
            (made, there) => Err(format!("{made:?} where the token was {there:?}")),
        }
    }

    /// Removes a token.
    pub(crate) async fn remove_token(&mut self, token: usize) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped");
            return Ok(());
        }
        let removed = self.broker.remove_token(TOKENS[token].0).await;
        self.tick();
        self.count(if removed.is_ok() { "token removed" } else { "no token to remove" });
        match (removed, self.model.tokens[token].take()) {
            (Ok(_), Some(_)) | (Err(AccessError::NotFound), None) => Ok(()),
            (removed, there) => Err(format!("{removed:?} where the token was {there:?}")),
        }
    }

    /// Logs in with each secret that was ever made, and lists the clients that its caller may see.
    pub(crate) async fn use_tokens(&mut self) -> Verdict {
        if self.disk.is_failing() {
            self.count("skipped"); // the time of its use is stored
            return Ok(());
        }
        for (number, (token, secret)) in self.secrets.clone().into_iter().enumerate() {
            let shown = Credentials {
                bearer: Some(secret.as_bytes()),
                ..Credentials::new(PEER.into(), LISTENER)
            };
            let outcome = self.broker.authenticator().authenticate(shown).await;
            let is_valid = self.model.tokens[token] == Some(number);
            self.count(if is_valid { "token used" } else { "token used in vain" });
            let identity = match (outcome, is_valid) {
                (Ok(identity), true) => identity,
                (Err(AuthenticationError::BadCredentials), false) => continue,
                (outcome, _) => return Err(format!("{outcome:?} for a token: {is_valid}")),
            };
            let caller = Caller { identity, peer: PEER.into(), listener: LISTENER.into() };
            let question = ListClients::new(ClientFilter::default(), 100).by(caller);
            let page = self.broker.list_clients(question).await;
            let page = page.map_err(|error| error.to_string())?;
            let found: BTreeSet<&str> =
                page.clients.iter().map(|found| &*found.client_id).collect();
            let is_known = |client: &usize| self.model.sessions[*client].is_some();
            let (may_see, mut expected) = (TOKENS[token].2, BTreeSet::new());
            expected.extend(may_see.iter().filter(|client| is_known(client)).map(|at| NAMES[*at]));
            let is_will = |name: &&str| {
                let client = NAMES.iter().position(|known| known == name);
                client
                    .is_some_and(|at| may_see.contains(&at) && self.model.last_wills[at].is_some())
            };
            if !expected.is_subset(&found) || !found.difference(&expected).all(is_will) {
                return Err(format!("{found:?} is seen with a token, not {expected:?}"));
            }
        }
        Ok(())
    }
}
