//! The bodies of the calls about accounts, and what they become.
//!
//! Knows JSON and the limits of an account's parts; does not know the calls.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::super::ApiError;
use crate::{
    auth::{Attributes, Groups},
    control::{AccountProperties, NewPassword, NewUser, UserView},
    limits::OwnLimits,
};

/// An account.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct ShownUser {
    /// User name.
    pub(super) name: String,
    /// Whether logins are refused.
    disabled: bool,
    /// The scheme of the password's hash; absent without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    password: Option<&'static str>,
    /// The device secrets.
    secrets: Vec<ShownSecret>,
    /// The groups of the user.
    groups: Vec<String>,
    /// The attributes of the user.
    attributes: BTreeMap<String, String>,
    /// The limits that replace those of each user; absent without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<UserLimits>,
    /// When it was created, in milliseconds since the Unix epoch.
    created_at: u64,
    /// The number of its last change, as in `ETag`.
    revision: u64,
}

/// A device secret.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceSecret)]
pub(super) struct ShownSecret {
    /// Its identifier in the account.
    id: String,
    /// When it was made, in milliseconds since the Unix epoch.
    created_at: u64,
    /// When a client last logged in with it, in milliseconds since the Unix epoch, to the second; absent
    /// if none has since the broker started.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<u64>,
}

/// Limits of one user; a member that is left out has the value of each user.
#[derive(Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub(super) struct UserLimits {
    /// Sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sessions_max: Option<u64>,
    /// Retained messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retained_messages_max: Option<u64>,
    /// Bytes of retained messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retained_bytes_max: Option<u64>,
    /// Bytes of subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscription_bytes_max: Option<u64>,
    /// Shapes of Topic Filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter_shapes_max: Option<u64>,
    /// Stored messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored_messages_max: Option<u64>,
    /// Bytes of stored messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stored_bytes_max: Option<u64>,
    /// Bytes of Wills.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    will_bytes_max: Option<u64>,
    /// Messages that wait in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<u64>,
    /// Bytes of messages in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue_bytes_max: Option<u64>,
}

/// Takes an object alone: the derived form takes a list of the values as well.
impl<'de> Deserialize<'de> for UserLimits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = Map::<String, Value>::deserialize(deserializer)?;
        Self::deserialize(Value::Object(members)).map_err(D::Error::custom)
    }
}

impl Serialize for UserLimits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl From<OwnLimits> for UserLimits {
    fn from(limits: OwnLimits) -> Self {
        Self {
            sessions_max: limits.sessions_max,
            retained_messages_max: limits.retained_messages_max,
            retained_bytes_max: limits.retained_bytes_max,
            subscription_bytes_max: limits.subscription_bytes_max,
            filter_shapes_max: limits.filter_shapes_max,
            stored_messages_max: limits.stored_messages_max,
            stored_bytes_max: limits.stored_bytes_max,
            will_bytes_max: limits.will_bytes_max,
            queue_messages_max: limits.queue_messages_max,
            queue_bytes_max: limits.queue_bytes_max,
        }
    }
}

impl From<UserLimits> for OwnLimits {
    fn from(limits: UserLimits) -> Self {
        Self {
            sessions_max: limits.sessions_max,
            retained_messages_max: limits.retained_messages_max,
            retained_bytes_max: limits.retained_bytes_max,
            subscription_bytes_max: limits.subscription_bytes_max,
            filter_shapes_max: limits.filter_shapes_max,
            stored_messages_max: limits.stored_messages_max,
            stored_bytes_max: limits.stored_bytes_max,
            will_bytes_max: limits.will_bytes_max,
            queue_messages_max: limits.queue_messages_max,
            queue_bytes_max: limits.queue_bytes_max,
        }
    }
}

impl From<UserView> for ShownUser {
    fn from(user: UserView) -> Self {
        let secrets = user.secrets.iter().map(|secret| ShownSecret {
            id: id_text(secret.id),
            created_at: secret.created_at.millis(),
            last_used_at: secret.last_used_at.map(|at| at.millis()),
        });
        let attributes = user.attributes.iter();
        Self {
            disabled: user.is_disabled,
            password: user.password_scheme,
            secrets: secrets.collect(),
            groups: user.groups.iter().map(str::to_owned).collect(),
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            limits: user.limits.map(Into::into),
            created_at: user.created_at.millis(),
            revision: user.revision,
            name: user.name,
        }
    }
}

/// An account as the audit log has it: without hashes and secrets.
#[derive(Serialize)]
pub(super) struct NotedUser<'a> {
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'static str>,
    groups: Vec<&'a str>,
    attributes: BTreeMap<&'a str, &'a str>,
    limits: Option<UserLimits>,
}

impl<'a> NotedUser<'a> {
    pub(super) fn of(user: &'a UserView) -> Self {
        Self {
            disabled: user.is_disabled,
            password: user.password_scheme,
            groups: user.groups.iter().collect(),
            attributes: user.attributes.iter().collect(),
            limits: user.limits.map(Into::into),
        }
    }
}

/// Returns the identifier of a secret as text.
pub(super) fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

/// The account that a caller creates.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
pub(super) struct NewUserBody {
    /// User name.
    name: String,
    /// The password, which the broker hashes.
    password: Option<String>,
    /// The hash of the password, in place of the password.
    password_hash: Option<String>,
    /// Whether logins are refused.
    #[serde(default)]
    #[schema(required = false)]
    disabled: bool,
    /// The groups of the user.
    #[serde(default)]
    #[schema(required = false)]
    groups: Vec<String>,
    /// The attributes of the user.
    #[serde(default)]
    #[schema(required = false)]
    attributes: BTreeMap<String, String>,
    /// The limits that replace those of each user.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, required = false)]
    limits: Option<UserLimits>,
}

impl TryFrom<NewUserBody> for NewUser {
    type Error = ApiError;

    fn try_from(body: NewUserBody) -> Result<Self, ApiError> {
        let password = password_of(body.password, body.password_hash)?;
        let mut user = Self::new(body.name);
        user.password = password;
        user.is_disabled = body.disabled;
        user.groups = groups_of(body.groups)?;
        user.attributes = attributes_of(body.attributes)?;
        user.limits = body.limits.map(Into::into);
        Ok(user)
    }
}

/// Returns the password that a body has, or its hash.
pub(super) fn password_of(
    plain: Option<String>,
    hash: Option<String>,
) -> Result<Option<NewPassword>, ApiError> {
    match (plain, hash) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid_body("password and password_hash exclude each other"))
        }
        (Some(plain), None) => Ok(Some(NewPassword::Plain(plain.into_bytes().into()))),
        (None, Some(hash)) => Ok(Some(NewPassword::Hash(hash))),
        (None, None) => Ok(None),
    }
}

pub(super) fn groups_of(groups: Vec<String>) -> Result<Groups, ApiError> {
    Groups::new(groups).map_err(|error| ApiError::invalid_body(&error.to_string()))
}

pub(super) fn attributes_of(attributes: BTreeMap<String, String>) -> Result<Attributes, ApiError> {
    Attributes::new(attributes).map_err(|error| ApiError::invalid_body(&error.to_string()))
}

/// Changes of an account: a member that is left out stays. `null` removes the limits.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = UserChange)]
pub(super) struct UserPatch {
    /// Whether logins are refused.
    disabled: Option<bool>,
    /// All groups of the user from now on.
    groups: Option<Vec<String>>,
    /// All attributes of the user from now on.
    attributes: Option<BTreeMap<String, String>>,
    /// All limits of the user from now on, with the members of those of a new account.
    #[serde(deserialize_with = "given")]
    #[schema(value_type = Option<Object>)]
    limits: Option<Option<UserLimits>>,
}

/// Tells `null` from a member that is left out.
pub(in crate::http::v1) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl TryFrom<UserPatch> for AccountProperties {
    type Error = ApiError;

    fn try_from(patch: UserPatch) -> Result<Self, ApiError> {
        Ok(Self {
            is_disabled: patch.disabled,
            groups: patch.groups.map(groups_of).transpose()?,
            attributes: patch.attributes.map(attributes_of).transpose()?,
            limits: patch.limits.map(|limits| limits.map(Into::into)),
        })
    }
}
