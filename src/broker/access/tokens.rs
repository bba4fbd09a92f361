//! API tokens in the store: the source of callers has them in memory.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{error_of, plain_name};
use crate::{
    auth::{TokenHash, Tokens},
    broker::Broker,
    control::{AccessChanged, AccessError, ApiToken, ControlError, CreateToken, CreatedToken},
    mqtt::Timestamp,
    records::{Expected, Put, Record, RecordKey, Records as _},
};

/// The namespace of the records; a key is the name of a token.
pub(super) const NAMESPACE: &str = "tokens";
/// The namespace of the times at which tokens were used.
const USES: &str = "token-uses";

/// The content of a record, in JSON. It has no secret.
#[derive(Deserialize, Serialize)]
struct TokenContent {
    hash: TokenHash,
    rules: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Arc<str>>,
    #[serde(default)]
    at: u64,
    /// An expired token stays in the list until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

impl TokenContent {
    fn into_token(self, name: &str) -> ApiToken {
        let mut token = ApiToken::new(name, self.rules.get());
        (token.by, token.created_at_millis) = (self.by, self.at);
        token.expires_at_millis = self.expires_at;
        token
    }
}

impl Broker {
    /// Makes a token.
    pub(super) async fn create_token_record(
        &self,
        request: CreateToken,
    ) -> Result<CreatedToken, AccessError> {
        let core = &self.running.core;
        let tokens = self.tokens()?;
        let name = plain_name(NAMESPACE, &request.name, "name")?;
        let invalid = |why: String| AccessError::Invalid(format!("rules: {why}"));
        let rules = Tokens::rules(&request.rules).map_err(invalid)?;
        let text = RawValue::from_string(request.rules.to_string());
        let text = text.map_err(|_| invalid("they are not JSON".to_owned()))?;
        // The store has only the hash; the secret exists in this answer alone.
        let made = Tokens::new_secret();
        let now = core.clock.now();
        let expires_at = request.ttl_secs.map(|secs| now.plus_secs(secs.into()));
        let content = TokenContent {
            hash: made.hash,
            rules: text,
            by: request.by,
            at: now.millis(),
            expires_at: expires_at.map(Timestamp::millis),
        };
        let value = serde_json::to_vec(&content).map_err(|_| ControlError::Unavailable)?;
        // Held until the token is in memory, so that the limit holds for calls at the same time.
        let _changing = self.changing().await?;
        if core.records.committed(&name).is_some() {
            return Err(AccessError::Conflict);
        }
        if tokens.names().len() >= core.limits_now().tokens_max as usize {
            return Err(AccessError::TooMany("limits.tokens_max"));
        }
        let put = Put::new(name, value).expecting(Expected::Absent);
        core.records.put(put).await.map_err(error_of)?;
        // After the commit: a caller that used the token could otherwise lose it by a crash.
        tokens.insert(&request.name, made.hash, rules, (expires_at, None));
        Ok(CreatedToken::new(content.into_token(&request.name), made.secret))
    }

    /// Removes a token: calls with it are refused from then on.
    pub(super) async fn remove_token_record(
        &self,
        name: &str,
    ) -> Result<AccessChanged<ApiToken>, AccessError> {
        let records = &self.running.core.records;
        let tokens = self.tokens()?;
        let key = plain_name(NAMESPACE, name, "name")?;
        let _changing = self.changing().await?;
        let former = records.committed(&key).ok_or(AccessError::NotFound)?;
        records.remove(key, Expected::At(former.revision)).await.map_err(error_of)?;
        // After the commit: otherwise a failed write would
        // leave a token that works again after a restart.
        tokens.remove(name);
        // A later token of this name must not show the uses of this one.
        if let Some(uses) = RecordKey::new(USES, name) {
            records.remove_behind(uses);
        }
        Ok(AccessChanged::new(self.parse_token(name, &former), None))
    }

    /// Returns all tokens, in the order of their names.
    pub(super) async fn token_records(&self) -> Result<Vec<ApiToken>, AccessError> {
        self.tokens()?;
        let records = self.running.core.records.list(NAMESPACE, None, usize::MAX).await;
        let records = records.unwrap_or_default();
        let found =
            records.iter().filter_map(|(name, record)| self.parse_token(name.key(), record));
        Ok(found.collect())
    }

    /// Gives the source the tokens of the store, and has it note their use there.
    pub(super) async fn take_tokens(&self) {
        let Ok(tokens) = self.tokens() else { return };
        let core = &self.running.core;
        let records = core.records.list(NAMESPACE, None, usize::MAX).await.unwrap_or_default();
        // Names that are in memory and not in the store were removed by another part or node.
        let mut gone = tokens.names();
        for (name, record) in &records {
            gone.retain(|other| **other != *name.key());
            let content = serde_json::from_slice::<TokenContent>(&record.value);
            let Ok(content) = content else { continue };
            let Ok(rules) = Tokens::rules(content.rules.get()) else { continue };
            // An unchanged token stays, with the uses that are not stored yet.
            if tokens.has(name.key(), &content.hash) {
                continue;
            }
            let used =
                RecordKey::new(USES, name.key()).and_then(|uses| core.records.committed(&uses));
            let used =
                used.and_then(|record| std::str::from_utf8(&record.value).ok()?.parse().ok());
            let times = (content.expires_at.map(Timestamp), used.map(Timestamp));
            tokens.insert(name.key(), content.hash, rules, times);
        }
        for name in gone {
            tokens.remove(&name);
        }
        let records = Arc::clone(&core.records);
        tokens.note_uses_in(move |name, at| {
            if let Some(uses) = RecordKey::new(USES, name) {
                // Not waited for: a lost use only makes the shown time older.
                records.put_behind(Put::new(uses, at.to_string()));
            }
        });
    }

    /// Takes over tokens that were not changed by a call of this broker.
    pub(super) async fn tokens_have_changed(&self) {
        let _changing = self.running.access.changing.lock().await;
        self.take_tokens().await;
    }

    fn tokens(&self) -> Result<Arc<Tokens>, AccessError> {
        self.running.core.authenticator.tokens().ok_or(AccessError::NotSupported)
    }

    fn parse_token(&self, name: &str, record: &Record) -> Option<ApiToken> {
        let content: TokenContent = serde_json::from_slice(&record.value).ok()?;
        let mut token = content.into_token(name);
        let used = self.tokens().ok().and_then(|tokens| tokens.last_used(name));
        token.last_used_millis = used.map(Timestamp::millis);
        Some(token)
    }
}
