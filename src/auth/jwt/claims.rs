//! The claims of a token: those that it must have, and the identity that they give its holder.
//!
//! Pure. Called after signature and times of the token are checked.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    TokenRefused,
    options::{JwtConfig, JwtError},
};
use crate::{
    auth::{
        Attributes, ClientCertificate, Credentials, Groups, Identity, Login,
        identity::is_user_name,
        own_rules,
        policy::{Template, VariableValues},
    },
    mqtt::Timestamp,
};

type Claims = Map<String, Value>;

/// The facts about the holder of a token that come from its connection.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    /// `None` for REST callers.
    pub(super) client_id: Option<&'a str>,
    pub(super) username: Option<&'a str>,
    pub(super) certificate: Option<&'a ClientCertificate>,
}

impl<'a> Holder<'a> {
    pub(super) const fn of(credentials: &Credentials<'a>) -> Self {
        let &Credentials { client_id, username, certificate, .. } = credentials;
        Self { client_id, username, certificate }
    }
}

/// The options about claims.
pub(super) struct ClaimRules {
    required: Vec<(Box<str>, Template)>,
    username: Box<str>,
    /// The name of an attribute, and that of its claim.
    attributes: Vec<(Box<str>, Box<str>)>,
    groups: Box<str>,
    acl: Box<str>,
}

impl ClaimRules {
    pub(super) fn new(config: &JwtConfig) -> Result<Self, JwtError> {
        let required = config.claims.iter().map(|text| {
            let (name, value) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| JwtError::of("claims", format!("{text:?} is not NAME=VALUE")))?;
            // A value may have variables, for example to bind a token to one client identifier.
            let value = Template::parse(value)
                .map_err(|error| JwtError::of("claims", format!("{text:?}: {error}")))?;
            Ok((name.into(), value))
        });
        let attributes = config.attributes.iter().map(|text| {
            // A name alone is that of both.
            let (attribute, claim) = text.split_once('=').unwrap_or((text, text));
            match attribute.is_empty() || claim.is_empty() {
                true => {
                    let why = format!("{text:?} is not NAME or ATTRIBUTE=NAME");
                    Err(JwtError::of("attributes", why))
                }
                false => Ok((attribute.into(), claim.into())),
            }
        });
        // No claim has an empty name, so every token would be refused.
        if config.username_claim.is_empty() {
            return Err(JwtError::of(
                "username_claim",
                "it is empty; write a name such as \"sub\"",
            ));
        }
        Ok(Self {
            required: required.collect::<Result<_, _>>()?,
            username: config.username_claim.as_str().into(),
            attributes: attributes.collect::<Result<_, _>>()?,
            groups: config.groups_claim.as_str().into(),
            acl: config.acl_claim.as_str().into(),
        })
    }

    /// Returns the identity of the holder of a token with these claims.
    pub(super) fn identity(
        &self,
        claims: &Claims,
        holder: Holder<'_>,
        now: Timestamp,
    ) -> Result<Identity, TokenRefused> {
        let refused = |why: String| TokenRefused::Claims(why);
        let certificate = holder.certificate.cloned().map(Arc::new);
        let expires_at = expires_at(claims);
        // Without the leeway of `nbf`: the connection would end at the same moment.
        if expires_at.is_some_and(|at| at <= now) {
            return Err(TokenRefused::Wrong("its time (exp) is over".to_owned()));
        }
        self.check_required(claims, holder)?;
        let username = find(claims, &self.username).and_then(text_of);
        let username = username
            .filter(|name| is_user_name(name))
            .ok_or_else(|| refused(format!("its claim {} is not a user name", self.username)))?;
        // A token that was stolen from another device must not work with this certificate.
        if certificate.as_ref().is_some_and(|shown| shown.common_name != username) {
            return Err(TokenRefused::OtherCertificate);
        }
        let attributes = self.attributes.iter().filter_map(|(attribute, claim)| {
            Some((attribute.clone(), text_of(find(claims, claim)?)?))
        });
        let attributes = Attributes::new(attributes).map_err(|error| refused(error.to_string()))?;
        let groups = find(claims, &self.groups).map_or_else(Vec::new, texts_of);
        let groups = Groups::new(groups).map_err(|error| refused(error.to_string()))?;
        let rules = find(claims, &self.acl).unwrap_or(&Value::Null);
        let rules = own_rules(rules).map_err(|error| refused(format!("{}: {error}", self.acl)))?;
        let identity = Identity {
            username: Some(username.into()),
            certificate,
            login: Login::Other,
            attributes,
            groups,
            rules,
            ..Identity::default()
        };
        Ok(Identity { expires_at, ..identity })
    }

    fn check_required(&self, claims: &Claims, holder: Holder<'_>) -> Result<(), TokenRefused> {
        let shown = Identity {
            username: holder.username.map(Into::into),
            certificate: holder.certificate.cloned().map(Arc::new),
            ..Identity::default()
        };
        // The values come from CONNECT, so a required
        // claim can bind a token to one client identifier.
        let values = VariableValues::new(&shown, holder.client_id.unwrap_or_default());
        for (name, value) in &self.required {
            if holder.client_id.is_none() && value.has_client_id() {
                // Otherwise the token of a device would be worth more over REST than over MQTT.
                return Err(TokenRefused::Claims(format!(
                    "its claim {name} must be the client identifier, and a REST caller has none"
                )));
            }
            let wanted = value.text(&values);
            let found = find(claims, name).map_or_else(Vec::new, texts_of);
            // A variable without a value is no match:
            // otherwise a missing name would satisfy the rule.
            if wanted.is_none_or(|wanted| !found.iter().any(|text| **text == *wanted)) {
                return Err(TokenRefused::Claims(format!(
                    "its claim {name} is not the required one"
                )));
            }
        }
        Ok(())
    }
}

/// Returns when the token ends: at `exp`, without a leeway.
fn expires_at(claims: &Claims) -> Option<Timestamp> {
    let exp = claims.get("exp")?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time of this era"
    )]
    let exp = exp.as_u64().or_else(|| exp.as_f64().map(|secs| secs as u64))?;
    Some(Timestamp(exp.saturating_mul(1_000)))
}

/// Returns a claim by its name, or by a path of names with dots between them.
fn find<'c>(claims: &'c Claims, name: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// Returns the text of a claim that is one value.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns the texts of a claim that is one value or a list of them.
fn texts_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().filter_map(text_of).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            text_of(value).into_iter().collect()
        }
    }
}
