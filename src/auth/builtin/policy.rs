//! The policy: an ordered list of rules that allow or deny.
//!
//! ```toml
//! [[rules]]
//! priority = 100                      # smaller first; in file order where equal; default 1000
//! effect = "allow"                    # or "deny"
//! actions = ["publish", "subscribe"]  # and "connect", "observe", "control", "administer"
//! clients = ["car-*"]                 # every condition is optional; all that are given must hold
//! users = ["fleet"]                   # "" means clients without a user name
//! addresses = ["10.0.0.0/8"]
//! listeners = ["mqtts://*"]           # as printed at start-up
//! login = ["certificate"]             # and "password", "scram", "anonymous", "other"
//! groups = ["night-*"]                # the identity belongs to one of these groups
//! topics = ["v/${clientId}/#"]
//! qos = [0, 1]
//! retain = false
//! ```
//!
//! The first rule that matches decides; if no rule matches, the action is denied. The parts:
//!
//! - **actions**: *connect*, *publish* and *subscribe* are actions of MQTT clients. Over REST,
//!   *observe* reads the state of a client, *control* changes its live session, and *connect*
//!   permits the two calls on Keep Alive and status of a client. *administer* runs the broker. A
//!   rule without actions applies to all of them, but only a rule that names *administer* allows
//!   it.
//! - **listeners** are named by their URLs; those of an embedding application are `in-process`,
//!   `hosted-websocket` and `hosted-http`. **login** is how the identity was proven; `other` means
//!   by an authenticator or a method of the application.
//! - **clients, users, listeners, groups**: `*` stands for any text. **topics**: MQTT Topic Filters. To
//!   *publish*, the topic must match the filter. To *subscribe*, the filter of an allowing rule
//!   must cover the whole subscription: `v/+` does not allow `v/#`. A denying rule denies a
//!   subscription that overlaps its filter at all: denying `v/secret` denies `v/#` and `v/+`.
//! - Filters that begin with a wildcard do not match topics that begin with `$`. [MQTT-4.7.2-1] So
//!   a rule with topics allows `$events/…` only if it names it. `$control/…`, which is for the
//!   operator of the broker, must always be named: a rule without topics does not allow it (but a
//!   denying rule without topics does deny it).
//! - **qos** is the QoS of the publication, or the maximum QoS that the subscription asks for.
//!   **retain** concerns publications only; `topics` and `qos` concern publishing and subscribing.
//!   A condition on something that the action does not have does not hold.
//! - **Variables** `${username}`, `${clientId}`, `${certificate.commonName}` and
//!   `${certificate.serialNumber}` stand for plain text: a `*`, `+` or `#` in a value is not a
//!   wildcard. In a topic, a value that contains a `/` is unusable, because client `a/b` must not
//!   reach the topics of client `a`; nor may a value supply the `$` at the start of a topic.
//! - Where a **variable has no value**, or an unusable one, the condition is undecided; so is a
//!   condition on something that the record of a stored session does not contain. An allowing rule
//!   then does not match; a denying rule does, unless another of its conditions fails.
//!
//! Rules in the store have the same form in JSON. Where priorities are equal, the file's rules come
//! first.
//!
//! Knows rules and files; does not know the caller or what it does with the answer.

mod glob;
mod list;
mod own;
mod rule;
mod topics;
mod variables;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde::Deserialize;

#[cfg(feature = "jwt")]
pub(in crate::auth) use self::variables::Template;
pub(in crate::auth) use self::variables::VariableValues;
pub use self::{
    own::{OwnRulesError, own_rules},
    rule::Rule,
};

use self::list::{PlacedRule, RuleSources};
use super::file::{self, FileError};
use crate::auth::{
    AccessRequest, Authorizer, Decision, Explanation, RulePlace, RuleText, RuleTextError,
    StoredRules,
};

/// Decides by rules, which can be replaced while it is in use: those of a file or of the application,
/// and those that the broker has in its store.
pub struct FilePolicy {
    path: ArcSwapOption<PathBuf>,
    /// In the order in which they are evaluated.
    rules: ArcSwap<Vec<PlacedRule>>,
    sources: Mutex<RuleSources>,
    generation: AtomicU64,
}

impl FilePolicy {
    /// Creates it with the rules of the file at `path`, one `[[rules]]` table each.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has an unknown key or variable, or a rule that can
    /// never match. The error names the line.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let path = path.into();
        let policy = Self::of(load(&path)?);
        policy.path.store(Some(Arc::new(path)));
        Ok(policy)
    }

    /// Creates it with these rules, in any order. Without any rule, everything is denied.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self::of(list::of_application(rules))
    }

    fn of(own: Vec<PlacedRule>) -> Self {
        let sources = RuleSources { own, ..RuleSources::default() };
        Self {
            path: ArcSwapOption::empty(),
            rules: ArcSwap::from_pointee(sources.in_order()),
            sources: Mutex::new(sources),
            generation: AtomicU64::new(0),
        }
    }

    /// Reads the file again. Does nothing if the rules do not come from a file.
    ///
    /// # Errors
    /// The same as [`FilePolicy::open`]; the current rules then stay in force.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(path) = &*self.path.load() {
            self.replace_own(load(path)?);
        }
        Ok(())
    }

    /// Reads another file, now and at later reloads.
    ///
    /// # Errors
    /// The same as [`FilePolicy::open`]; rules and file then stay as they are.
    pub fn reload_from(&self, path: impl Into<PathBuf>) -> Result<(), FileError> {
        let path = path.into();
        self.replace_own(load(&path)?);
        self.path.store(Some(Arc::new(path)));
        Ok(())
    }

    /// Replaces the rules. Those of the store stay.
    pub fn replace(&self, rules: Vec<Rule>) {
        self.replace_own(list::of_application(rules));
    }

    fn replace_own(&self, rules: Vec<PlacedRule>) {
        let mut sources = self.sources();
        sources.own = rules;
        self.put_into_force(&sources);
    }

    /// Compiles the list of all rules again.
    fn put_into_force(&self, sources: &RuleSources) {
        self.rules.store(Arc::new(sources.in_order()));
        // Counted after the rules are stored: a reader of the new number decides by the new rules.
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn sources(&self) -> MutexGuard<'_, RuleSources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authorizer for FilePolicy {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let subject = VariableValues::new(request.identity, request.client_id);
        if let Some((decision, _)) = own::decide(request, &subject) {
            return decision;
        }
        self.rules
            .load()
            .iter()
            .find(|placed| placed.rule.decides(request, &subject))
            .map_or(Decision::Deny, |placed| placed.rule.decision())
    }

    fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        let subject = VariableValues::new(request.identity, request.client_id);
        if let Some((decision, position)) = own::decide(request, &subject) {
            return Explanation::new(decision, Some(RulePlace::Identity { position }));
        }
        let rules = self.rules.load();
        let found = rules.iter().find(|placed| placed.rule.decides(request, &subject));
        let decision = found.map_or(Decision::Deny, |placed| placed.rule.decision());
        Explanation::new(decision, found.map(|placed| placed.place.clone()))
    }

    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        Some(self)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn uses_attributes(&self) -> bool {
        self.rules.load().iter().any(|placed| placed.rule.uses_attributes())
    }
}

impl StoredRules for FilePolicy {
    fn check(&self, json: &str) -> Result<i64, RuleTextError> {
        list::parse(json).map(|rule| rule.priority())
    }

    fn replace_stored(&self, rules: Vec<RuleText>) -> Vec<Arc<str>> {
        let (stored, unusable) = list::of_store(rules);
        let mut sources = self.sources();
        sources.stored = stored;
        self.put_into_force(&sources);
        unusable
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rules: Vec<toml::Spanned<Rule>>,
}

fn load(path: &Path) -> Result<Vec<PlacedRule>, FileError> {
    let text = file::read(path)?;
    let rules = file::parse::<RulesFile>(path, &text)?.rules;
    let place = |offset| RulePlace::File { line: file::line_of(&text, offset) };
    let placed = rules.into_iter().map(|spanned| {
        let place = place(spanned.span().start);
        PlacedRule { rule: spanned.into_inner(), place }
    });
    Ok(placed.collect())
}

impl fmt::Debug for FilePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilePolicy")
            .field("path", &self.path.load())
            .field("rules", &self.rules.load().len())
            .finish_non_exhaustive()
    }
}
