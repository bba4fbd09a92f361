//! Accounts, groups and rules of a `dynamic-security.json`.
//!
//! Mosquitto asks the roles of a client, then those of its groups, each by priority, highest first;
//! within a role, the entries by priority, highest first; the first that matches decides. Of a SUBSCRIBE,
//! a role asks its literal entries before its patterns, whatever their priorities. Here the rule
//! with the smallest priority is asked first. So the roles are numbered in the order in which they are
//! asked, each with its users or its group.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::Deserialize;

use super::{
    MigrateError,
    accounts::{MigratedAccounts, NewAccount},
    conf::{Place, read_text},
    report::Report,
    rules::{NewRule, PUBLISH, SUBSCRIBE, priority, topic_of, unnameable},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DynamicSecurity {
    #[serde(default)]
    clients: Vec<DynamicClient>,
    #[serde(default)]
    groups: Vec<DynamicGroup>,
    #[serde(default)]
    roles: Vec<DynamicRole>,
    anonymous_group: Option<String>,
    #[serde(default, rename = "defaultACLAccess")]
    default_access: DefaultAccess,
}

#[derive(Deserialize)]
struct DynamicClient {
    username: String,
    clientid: Option<String>,
    #[serde(default)]
    disabled: bool,
    encoded_password: Option<String>,
    password: Option<String>,
    salt: Option<String>,
    iterations: Option<u32>,
    #[serde(default)]
    roles: Vec<RoleOf>,
}

#[derive(Deserialize)]
struct DynamicGroup {
    groupname: String,
    #[serde(default)]
    roles: Vec<RoleOf>,
    #[serde(default)]
    clients: Vec<MemberOf>,
}

#[derive(Deserialize)]
struct RoleOf {
    rolename: String,
    #[serde(default)]
    priority: i64,
}

#[derive(Deserialize)]
struct MemberOf {
    username: String,
    #[serde(default)]
    priority: i64,
}

#[derive(Deserialize)]
struct DynamicRole {
    rolename: String,
    #[serde(default)]
    acls: Vec<RoleEntry>,
    #[serde(default = "yes")]
    allowwildcardsubs: bool,
}

#[derive(Deserialize)]
struct RoleEntry {
    acltype: String,
    topic: String,
    #[serde(default)]
    priority: i64,
    allow: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DefaultAccess {
    publish_client_send: bool,
    publish_client_receive: bool,
    subscribe: bool,
}

impl Default for DefaultAccess {
    fn default() -> Self {
        Self { publish_client_send: false, publish_client_receive: true, subscribe: false }
    }
}

const fn yes() -> bool {
    true
}

/// The contents of a file of dynamic security.
pub(super) struct Taken {
    pub(super) rules: Vec<NewRule>,
    /// The names of the accounts.
    pub(super) users: Vec<String>,
}

/// The subject of the rules of a role.
#[derive(Clone)]
enum RoleSubject {
    Users(Vec<String>),
    Group(String),
}

/// Reads a file, and adds its accounts.
pub(super) fn read_dynamic_security(
    path: &Path,
    accounts: &mut MigratedAccounts,
    report: &mut Report,
) -> Result<Taken, MigrateError> {
    let text = read_text(path)?;
    let file: DynamicSecurity = serde_json::from_str(&text).map_err(|error| {
        MigrateError::Malformed { path: path.to_owned(), problem: error.to_string() }
    })?;
    let place = Place::new(&Arc::from(path), 0);
    // Only a file of Mosquitto 2.1 has this form of a password.
    let has_variables = file.clients.iter().any(|client| client.encoded_password.is_some());
    let (next, rules) = (priority::ROLES, Vec::new());
    let mut taking = Taking { place, report, has_variables, next, rules };
    let users = taking.clients(&file, accounts);
    for (subject, role) in taking.asked(&file) {
        taking.role(&subject, role);
    }
    taking.defaults(&file.default_access);
    Ok(Taken { rules: taking.rules, users })
}

struct Taking<'r> {
    place: Place,
    report: &'r mut Report,
    /// Whether `%u` and `%c` stand for user name and client identifier: since Mosquitto 2.1.
    has_variables: bool,
    /// The priority of the next rule.
    next: i64,
    rules: Vec<NewRule>,
}

impl Taking<'_> {
    fn not_taken(&mut self, what: &str, why: &str) {
        self.report.not_taken_at(&self.place, what, why);
    }

    /// Adds the accounts, and rules for those that are bound to one client identifier.
    fn clients(&mut self, file: &DynamicSecurity, accounts: &mut MigratedAccounts) -> Vec<String> {
        let mut names = Vec::new();
        for client in &file.clients {
            let name = client.username.clone();
            let groups = file.groups.iter();
            let groups =
                groups.filter(|group| group.clients.iter().any(|one| one.username == name));
            let groups: Vec<_> = groups.map(|group| group.groupname.clone()).collect();
            // An account whose binding to a client identifier cannot be expressed would allow more.
            if !self.bind(client) {
                continue;
            }
            let password_hash = client.hash();
            if password_hash.is_none() {
                self.not_taken(
                    &format!("user {name:?}"),
                    "it has no password, so it cannot log in",
                );
                continue;
            }
            let disabled = client.disabled;
            let account = NewAccount { name: name.clone(), password_hash, disabled, groups };
            if accounts.add(account, &self.place, self.report) {
                names.push(name);
            }
        }
        names
    }

    /// Adds the rules for a client with one client identifier; returns whether that is possible.
    fn bind(&mut self, client: &DynamicClient) -> bool {
        let Some(id) = client.clientid.as_deref() else { return true };
        let name = &client.username;
        if let Some(why) = unnameable(id).or_else(|| unnameable(name)) {
            self.not_taken(&format!("user {name:?} with client identifier {id:?}"), why);
            return false;
        }
        let before = priority::CONNECT - 20;
        let mut allow = NewRule::allow(before, &["connect"]).users([name.as_str()]);
        allow.clients = Some(vec![id.to_owned()]);
        self.rules.push(allow);
        self.rules.push(NewRule::deny(before + 1, &["connect"]).users([name.as_str()]));
        true
    }

    /// Returns the roles in the order in which they are asked, with their subjects.
    fn asked<'f>(&mut self, file: &'f DynamicSecurity) -> Vec<(RoleSubject, &'f DynamicRole)> {
        let mut direct: BTreeMap<(i64, &str), Vec<String>> = BTreeMap::new();
        for client in &file.clients {
            if let Some(why) = unnameable(&client.username).filter(|_| !client.roles.is_empty()) {
                self.not_taken(&format!("roles of user {:?}", client.username), why);
                continue;
            }
            for role in &client.roles {
                // Highest priority first; equal ones in the
                // order of their names, as Mosquitto has them.
                let key = (role.priority.saturating_neg(), role.rolename.as_str());
                direct.entry(key).or_default().push(client.username.clone());
            }
        }
        let mut asked: Vec<(RoleSubject, &str)> = direct
            .into_iter()
            .map(|((_, role), users)| (RoleSubject::Users(users), role))
            .collect();
        let mut groups: Vec<(i64, &DynamicGroup, RoleSubject)> = Vec::new();
        for group in &file.groups {
            let mut by_priority: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for member in group.clients.iter().filter(|one| unnameable(&one.username).is_none()) {
                let priority = member.priority.saturating_neg();
                by_priority.entry(priority).or_default().push(member.username.clone());
            }
            // One priority for all members: then one rule for
            // the group is enough, and new members get it.
            if by_priority.len() <= 1 && unnameable(&group.groupname).is_none() {
                let at = by_priority.keys().next().copied().unwrap_or_default();
                groups.push((at, group, RoleSubject::Group(group.groupname.clone())));
            } else {
                let each = by_priority.into_iter();
                groups.extend(each.map(|(at, users)| (at, group, RoleSubject::Users(users))));
            }
            if file.anonymous_group.as_ref() == Some(&group.groupname) {
                // An empty user name stands for clients without one.
                groups.push((i64::MAX, group, RoleSubject::Users(vec![String::new()])));
            }
        }
        groups.sort_by_key(|(at, group, _)| (*at, group.groupname.clone()));
        for (_, group, subject) in groups {
            let mut roles: Vec<&RoleOf> = group.roles.iter().collect();
            roles.sort_by_key(|role| (role.priority.saturating_neg(), role.rolename.clone()));
            asked.extend(roles.iter().map(|role| (subject.clone(), role.rolename.as_str())));
        }
        let role_of = |name: &str| file.roles.iter().find(|role| role.rolename == name);
        asked.into_iter().filter_map(|(subject, name)| Some((subject, role_of(name)?))).collect()
    }

    /// Adds the rules of a role for its subject.
    fn role(&mut self, subject: &RoleSubject, role: &DynamicRole) {
        if !role.allowwildcardsubs {
            self.not_taken(
                &format!("allowwildcardsubs of role {:?}", role.rolename),
                "a subscription with wildcards is allowed if a rule allows all its topics",
            );
        }
        let mut entries: Vec<&RoleEntry> = role.acls.iter().collect();
        let is_pattern = |entry: &RoleEntry| entry.acltype != "subscribeLiteral";
        // Literal entries first, whatever their priorities, as Mosquitto asks them.
        entries.sort_by_key(|entry| (is_pattern(entry), entry.priority.saturating_neg()));
        for entry in entries {
            let Some(action) = self.action(role, entry) else { continue };
            let topics = match self.topics(entry) {
                Ok(topics) => topics,
                Err(why) => {
                    self.not_taken(&entry.shown(role), &why);
                    continue;
                }
            };
            // Mosquitto looks for these at delivery, whatever it has decided about the SUBSCRIBE.
            let is_of_delivery = entry.acltype == "publishClientReceive";
            let at = if is_of_delivery { priority::USER_DENY } else { self.next };
            let mut rule = match entry.allow {
                true => NewRule::allow(at, &[action]),
                false => NewRule::deny(at, &[action]),
            }
            .topics(topics);
            match subject {
                RoleSubject::Users(users) => rule.users = Some(users.clone()),
                RoleSubject::Group(group) => rule.groups = Some(vec![group.clone()]),
            }
            // A rule that the broker would refuse makes the whole policy invalid.
            if let Some(why) = rule.fault() {
                self.not_taken(&entry.shown(role), &why);
                continue;
            }
            self.rules.push(rule);
            // A priority of its own for each rule keeps the order in which Mosquitto asks.
            self.next += 1;
        }
    }

    /// Returns the topics of a rule for an entry.
    fn topics(&mut self, entry: &RoleEntry) -> Result<Vec<String>, String> {
        let has_variable = ["%u", "%c"].iter().any(|variable| entry.topic.contains(variable));
        if self.has_variables || !has_variable {
            return topic_of(&entry.topic, true).map(|topic| vec![topic]);
        }
        self.report.differs(
            Some(&self.place),
            "%u and %c in the topics of roles have no meaning before Mosquitto 2.1, of which no password of \
             this file is: what allows them allows these letters alone",
        );
        let mut topics = vec![topic_of(&entry.topic, false)?];
        if !entry.allow {
            topics.push(topic_of(&entry.topic, true)?); // in case it is of 2.1 after all
        }
        Ok(topics)
    }

    /// Returns the action of a rule for an entry; `None` if there is none, which is reported.
    fn action(&mut self, role: &DynamicRole, entry: &RoleEntry) -> Option<&'static str> {
        if entry.topic.starts_with("$CONTROL/") {
            self.not_taken(
                &entry.shown(role),
                "accounts and rules are administered over REST, with the permission administer",
            );
            return None;
        }
        match (entry.acltype.as_str(), entry.allow) {
            ("publishClientSend", _) => Some(PUBLISH),
            ("subscribePattern", _) | ("subscribeLiteral", true) => Some(SUBSCRIBE),
            ("subscribeLiteral", false) if entry.topic.contains(['+', '#']) => {
                self.not_taken(
                    &entry.shown(role),
                    "a rule that denies a filter denies each subscription that has a topic of it; a \
                     subscription needs a rule that allows all its topics in any case",
                );
                None
            }
            // The second denies the delivery in Mosquitto; here it denies the subscription.
            ("subscribeLiteral" | "publishClientReceive", false) => Some(SUBSCRIBE),
            ("publishClientReceive", true) => {
                self.report.differs(
                    Some(&self.place),
                    "publishClientReceive that allows has no counterpart: who may subscribe receives",
                );
                None
            }
            ("unsubscribeLiteral" | "unsubscribePattern", true) => None, // always allowed here
            ("unsubscribeLiteral" | "unsubscribePattern", false) => {
                self.not_taken(&entry.shown(role), "every client may unsubscribe");
                None
            }
            _ => {
                self.not_taken(&entry.shown(role), "the acltype is not known");
                None
            }
        }
    }

    /// Adds the rules for what no role decides.
    fn defaults(&mut self, access: &DefaultAccess) {
        for (is_allowed, action) in
            [(access.publish_client_send, PUBLISH), (access.subscribe, SUBSCRIBE)]
        {
            if is_allowed {
                self.rules.push(NewRule::allow(self.next, &[action]));
            }
        }
        if !access.publish_client_receive {
            self.report.differs(
                Some(&self.place),
                "publishClientReceive is denied by default there; here, who may subscribe receives",
            );
        }
    }
}

impl DynamicClient {
    /// Returns the text of the hash.
    fn hash(&self) -> Option<String> {
        if let Some(encoded) = &self.encoded_password {
            return Some(encoded.clone());
        }
        let (password, salt) = (self.password.as_ref()?, self.salt.as_ref()?);
        Some(format!("$7${}${salt}${password}", self.iterations?))
    }
}

impl RoleEntry {
    fn shown(&self, role: &DynamicRole) -> String {
        let effect = if self.allow { "allow" } else { "deny" };
        format!("role {:?}: {effect} {} {:?}", role.rolename, self.acltype, self.topic)
    }
}
