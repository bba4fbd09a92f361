//! The policy: an ordered list of rules that allow or deny.
//!
//! ```toml
//! [[rules]]
//! priority = 100                      # smaller first; in file order where equal; default 1000
//! effect = "allow"                    # or "deny"
//! actions = ["publish", "subscribe"]  # and "connect", "observe", "control", "administer"
//! clients = ["car-*"]                 # every condition may be left out; those given must all hold
//! users = ["fleet"]                   # "" is for clients without a user name
//! addresses = ["10.0.0.0/8"]
//! listeners = ["mqtts://*"]           # as the start prints them
//! login = ["certificate"]             # and "password", "scram", "anonymous", "other"
//! topics = ["v/${clientId}/#"]
//! qos = [0, 1]
//! retain = false
//! ```
//!
//! The first rule that matches decides; if none does, the answer is no. What the parts mean:
//!
//! - **actions**: *connect*, *publish* and *subscribe* are what MQTT clients do. *observe* looks at a
//!   client over REST and *control* changes its live session; *connect* opens the two calls on the
//!   Keep Alive and the status of a client, too. *administer* runs the broker. A rule without
//!   actions is about all of them, but only a rule that names *administer* allows it.
//! - **listeners** are named by their URLs; those of an embedding application are `in-process`,
//!   `hosted-websocket` and `hosted-http`. **login** is what the identity rests on; `other` is an
//!   authenticator or a method of the application.
//! - **clients, users, listeners**: `*` stands for any text. **topics**: MQTT Topic Filters. One to *publish*
//!   must be matched by the filter. One to *subscribe* must be covered by the filter of a rule that
//!   allows: `v/+` does not allow `v/#`. A rule that denies also denies a subscription of which the
//!   filter matches a part: denying `v/secret` denies `v/#` and `v/+`.
//! - Filters that begin with a wildcard do not match topics that begin with `$`. [MQTT-4.7.2-1]
//!   So `$events/…` has to be named to be allowed, where there are topics. `$control/…`, which is
//!   for whoever runs the broker, always has: a rule without topics does not allow it. (It denies
//!   it.)
//! - **qos** is the QoS of the publication, or the maximum QoS that the subscription asks for.
//!   **retain** concerns publications only; `topics` and `qos` concern publishing and subscribing. A
//!   condition that the action has nothing for does not hold.
//! - **Variables** `${username}`, `${clientId}`, `${certificate.commonName}` and
//!   `${certificate.serialNumber}` stand for plain text: a `*`, `+` or `#` in a value is no
//!   wildcard. In a topic, a value that holds a `/` is none, as client `a/b` is not to be at home
//!   in what belongs to client `a`; nor may a value supply the `$` that a topic begins with.
//! - Where a **variable has no value**, or none that can be used there, the condition can be
//!   neither kept nor broken. A rule that allows then does not match; one that denies does, unless
//!   another of its conditions fails.
//!
//! Knows rules and files; does not know who asks or what comes of the answer.

mod glob;
mod network;
mod rule;
mod topics;
mod variables;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use serde::Deserialize;

pub use network::{Network, NetworkError};
pub use rule::Rule;

use self::variables::Subject;
use super::{
    AccessRequest, Authorizer, Decision,
    file::{self, FileError},
};

/// Decides by rules, which can be exchanged while it is in use.
pub struct FilePolicy {
    path: Option<PathBuf>,
    /// In the order in which they are asked.
    rules: ArcSwap<Vec<Rule>>,
    generation: AtomicU64,
}

impl FilePolicy {
    /// With the rules of the file at `path`, `[[rules]]` each.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has an unknown key or variable, or a rule that can
    /// never match; with the line.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let path = path.into();
        let mut policy = Self::new(load(&path)?);
        policy.path = Some(path);
        Ok(policy)
    }

    /// With these rules, in any order. Without any rule, everything is denied.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            path: None,
            rules: ArcSwap::from_pointee(in_order(rules)),
            generation: AtomicU64::new(0),
        }
    }

    /// Reads the file again. Does nothing for rules that are from no file.
    ///
    /// # Errors
    /// As [`FilePolicy::open`]; the rules in force then stay in force.
    pub fn reload(&self) -> Result<(), FileError> {
        if let Some(path) = &self.path {
            self.replace(load(path)?);
        }
        Ok(())
    }

    /// Puts other rules in force.
    pub fn replace(&self, rules: Vec<Rule>) {
        self.rules.store(Arc::new(in_order(rules)));
        // After the rules: whoever sees the new number decides by the new rules.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Authorizer for FilePolicy {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        let subject = Subject::new(request.identity, request.client_id);
        self.rules
            .load()
            .iter()
            .find(|rule| rule.decides(request, &subject))
            .map_or(Decision::Deny, Rule::decision)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rules: Vec<Rule>,
}

fn load(path: &Path) -> Result<Vec<Rule>, FileError> {
    Ok(file::parse::<RulesFile>(path, &file::read(path)?)?.rules)
}

fn in_order(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.sort_by_key(Rule::priority); // stable
    rules
}
