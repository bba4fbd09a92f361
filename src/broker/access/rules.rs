//! Rules in the store: the authorizer has them in memory, as it has those of its file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{error_of, expected_of, plain_name};
use crate::{
    auth::{RuleText, StoredRules},
    broker::{Broker, settings::lock},
    control::{AccessChanged, AccessError, PutRule, RemoveRule, StoredRule},
    records::{Put, Record, RecordKey, Records as _},
};

/// The namespace of the records; a key is the identifier of a rule.
pub(super) const NAMESPACE: &str = "rules";
/// Random bytes of an identifier that the broker chooses.
const ID_RANDOM_BYTES: usize = 8;

/// The content of a record, in JSON.
#[derive(Deserialize, Serialize)]
struct RuleContent {
    rule: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Arc<str>>,
    #[serde(default)]
    at: u64,
}

impl Broker {
    /// Adds or replaces a rule.
    pub(super) async fn put_stored_rule(
        &self,
        request: PutRule,
    ) -> Result<AccessChanged<StoredRule>, AccessError> {
        let core = &self.running.core;
        // Parsed before it is stored: a rule that cannot be read would be left out after a restart.
        let priority = self.rules_of_authorizer()?.check(&request.json);
        let priority = priority.map_err(|error| AccessError::Invalid(error.to_string()))?;
        let id = request.id.clone().unwrap_or_else(new_id);
        let name = name_of(&id)?;
        let unreadable = |_| AccessError::Invalid("it is not a JSON object".to_owned());
        let rule = RawValue::from_string(request.json.to_string()).map_err(unreadable)?;
        let at = core.clock.now().millis();
        let content = RuleContent { rule, by: request.by.clone(), at };
        let value = serde_json::to_vec(&content).map_err(unreadable)?;
        // Counting, storing and applying are one step for other callers, so the limit holds.
        let changing = self.changing().await?;
        let former = core.records.committed(&name);
        let rules_max = core.limits_now().stored_rules_max as usize;
        if former.is_none() && self.rule_records().await.len() >= rules_max {
            return Err(AccessError::TooMany("stored_rules_max"));
        }
        let expected = expected_of(request.expected, former.as_ref())?;
        let put = Put::new(name, value).expecting(expected);
        let revision = core.records.put(put).await.map_err(error_of)?;
        // All rules again, not only this one: their order among each other decides.
        self.take_rules().await;
        drop(changing);
        let mut rule = StoredRule::new(id, request.json, revision.0);
        (rule.priority, rule.by, rule.set_at_millis) = (priority, request.by, at);
        let old = former.and_then(|record| self.parse(&rule.id, &record));
        let mut changed = AccessChanged::new(old, Some(rule));
        // Without the lock, because a walk along all sessions takes long.
        changed.sessions_touched = self.recheck().await.touched as u64;
        Ok(changed)
    }

    /// Removes a rule.
    pub(super) async fn remove_stored_rule(
        &self,
        request: RemoveRule,
    ) -> Result<AccessChanged<StoredRule>, AccessError> {
        let core = &self.running.core;
        // An authorizer without stored rules would report a success that changes nothing.
        self.rules_of_authorizer()?;
        let name = name_of(&request.id)?;
        let changing = self.changing().await?;
        let former = core.records.committed(&name).ok_or(AccessError::NotFound)?;
        let expected = expected_of(request.expected, Some(&former))?;
        core.records.remove(name, expected).await.map_err(error_of)?;
        self.take_rules().await;
        drop(changing);
        let mut changed = AccessChanged::new(self.parse(&request.id, &former), None);
        changed.sessions_touched = self.recheck().await.touched as u64;
        Ok(changed)
    }

    /// Returns the rules in the order in which they are evaluated.
    pub(super) async fn stored_rules(&self) -> Vec<StoredRule> {
        let records = self.rule_records().await;
        let rules = records.iter().filter_map(|(name, record)| self.parse(name.key(), record));
        let mut rules: Vec<_> = rules.collect();
        rules.sort_by(|one, other| (one.priority, &one.id).cmp(&(other.priority, &other.id)));
        rules
    }

    /// Gives the authorizer the rules of the store.
    pub(super) async fn take_rules(&self) {
        let Some(rules) = self.running.core.authorizer.stored_rules() else { return };
        let records = self.rule_records().await;
        let texts = records.iter().filter_map(|(name, record)| {
            let content: RuleContent = serde_json::from_slice(&record.value).ok()?;
            Some(RuleText::new(name.key(), content.rule.get()))
        });
        // One exchange of the whole list: no request is decided by a half of it.
        let unusable = rules.replace_stored(texts.collect());
        // The broker starts without them: one rule of a
        // later version must not keep all clients out.
        if !unusable.is_empty() {
            let rules = unusable.join(", ");
            tracing::warn!(rules, "stored rules are not valid in this version and are left out");
        }
        let revisions = records.iter().map(|(_, record)| record.revision).collect();
        // The watch compares with these, so that changes of this broker are not applied twice.
        *lock(&self.running.access.rules) = revisions;
    }

    /// Takes over rules that were not changed by a call of this broker.
    pub(super) async fn rules_have_changed(&self) {
        let changing = self.running.access.changing.lock().await;
        let records = self.rule_records().await;
        let revisions = records.iter().map(|(_, record)| record.revision);
        if revisions.eq(lock(&self.running.access.rules).iter().copied()) {
            return;
        }
        self.take_rules().await;
        drop(changing);
        self.recheck().await;
    }

    fn rules_of_authorizer(&self) -> Result<&dyn StoredRules, AccessError> {
        self.running.core.authorizer.stored_rules().ok_or(AccessError::NotSupported)
    }

    async fn rule_records(&self) -> Vec<(RecordKey, Record)> {
        let records = self.running.core.records.list(NAMESPACE, None, usize::MAX).await;
        records.unwrap_or_default()
    }

    fn parse(&self, id: &str, record: &Record) -> Option<StoredRule> {
        let content: RuleContent = serde_json::from_slice(&record.value).ok()?;
        let mut rule = StoredRule::new(id, content.rule.get(), record.revision.0);
        rule.priority = self.rules_of_authorizer().ok()?.check(&rule.json).unwrap_or_default();
        (rule.by, rule.set_at_millis) = (content.by, content.at);
        Some(rule)
    }
}

/// Returns an identifier that no other rule has.
fn new_id() -> Arc<str> {
    let mut bytes = [0; ID_RANDOM_BYTES];
    getrandom::fill(&mut bytes).expect("the operating system has random bytes");
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.into()
}

fn name_of(id: &str) -> Result<RecordKey, AccessError> {
    plain_name(NAMESPACE, id, "id")
}
