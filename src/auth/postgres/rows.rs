//! What the rows of the database say about a user.

use serde_json::{Map, Value};
use tokio_postgres::{Row, types::Type};

use crate::auth::{Attributes, Groups, OwnRules, own_rules};

/// What is known of a user.
pub(super) struct FoundUser {
    pub(super) hash: String,
    pub(super) is_disabled: bool,
    pub(super) attributes: Attributes,
    pub(super) groups: Groups,
    /// Of the column `acl`.
    pub(super) acl: Value,
}

/// Reads the row of a user: the hash in the first column. Of the others, `disabled` is a flag, `groups` a
/// list, `acl` JSON with rules, and every other text an attribute.
pub(super) fn account(row: &Row) -> Result<FoundUser, String> {
    let hash: Option<String> = row.try_get(0).map_err(|error| error.to_string())?;
    let mut account = FoundUser {
        hash: hash.ok_or("the first column, the hash, is null")?,
        is_disabled: false,
        attributes: Attributes::default(),
        groups: Groups::default(),
        acl: Value::Null,
    };
    let mut attributes = Vec::new();
    for (at, column) in row.columns().iter().enumerate().skip(1) {
        let name = column.name();
        let wrong = |error: tokio_postgres::Error| format!("column {name}: {error}");
        match (name, column.type_()) {
            ("disabled", _) => {
                // A null is no permission to log in.
                account.is_disabled =
                    row.try_get::<_, Option<bool>>(at).map_err(wrong)? != Some(false);
            }
            ("groups", _) => {
                let names: Option<Vec<String>> = row.try_get(at).map_err(wrong)?;
                let groups = Groups::new(names.unwrap_or_default());
                account.groups = groups.map_err(|error| error.to_string())?;
            }
            ("acl", _) => {
                account.acl =
                    row.try_get::<_, Option<Value>>(at).map_err(wrong)?.unwrap_or_default();
            }
            (_, kind) if is_text(kind) => {
                let value: Option<String> = row.try_get(at).map_err(wrong)?;
                attributes.extend(value.map(|value| (name.to_owned(), value)));
            }
            _ => {}
        }
    }
    account.attributes = Attributes::new(attributes).map_err(|error| error.to_string())?;
    Ok(account)
}

fn is_text(kind: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME].contains(kind)
}

/// Returns the rules of the column `acl`, followed by those of further rows.
pub(super) fn rules(acl: Value, rows: &[Row]) -> Result<OwnRules, String> {
    if rows.is_empty() {
        return own_rules(&acl).map_err(|error| error.to_string());
    }
    let mut all = match acl {
        Value::Null => Vec::new(),
        Value::Array(all) => all,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            return Err("acl is not a list, but there are further rules".to_owned());
        }
    };
    for row in rows {
        all.push(rule(row)?);
    }
    own_rules(&Value::Array(all)).map_err(|error| error.to_string())
}

/// Returns the rule of a row: the JSON of its column `rule`, or an object of its columns.
fn rule(row: &Row) -> Result<Value, String> {
    let mut members = Map::new();
    for (at, column) in row.columns().iter().enumerate() {
        let name = column.name();
        let wrong = |error: tokio_postgres::Error| format!("column {name}: {error}");
        let value = match column.type_() {
            kind if is_text(kind) => {
                row.try_get::<_, Option<String>>(at).map_err(wrong)?.map(Value::String)
            }
            &Type::BOOL => row.try_get::<_, Option<bool>>(at).map_err(wrong)?.map(Value::Bool),
            &Type::INT2 => row.try_get::<_, Option<i16>>(at).map_err(wrong)?.map(Value::from),
            &Type::INT4 => row.try_get::<_, Option<i32>>(at).map_err(wrong)?.map(Value::from),
            &Type::INT8 => row.try_get::<_, Option<i64>>(at).map_err(wrong)?.map(Value::from),
            &Type::TEXT_ARRAY | &Type::VARCHAR_ARRAY => {
                row.try_get::<_, Option<Vec<String>>>(at).map_err(wrong)?.map(Value::from)
            }
            &Type::JSON | &Type::JSONB => row.try_get::<_, Option<Value>>(at).map_err(wrong)?,
            other => return Err(format!("column {name} has the type {other}, which no rule has")),
        };
        match (name, value) {
            ("rule", Some(rule)) => return Ok(rule),
            (_, None) => {}
            (name, Some(value)) => drop(members.insert(name.to_owned(), value)),
        }
    }
    Ok(Value::Object(members))
}
