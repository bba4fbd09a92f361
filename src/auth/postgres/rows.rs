//! The meaning of the rows of the database.

use serde_json::{Map, Value};
use tokio_postgres::{
    Row,
    types::{FromSql, Type},
};

use crate::{
    auth::{Attributes, Groups, OwnRules, own_rules},
    outbound::with_causes,
};

/// A user as the database knows it.
pub(super) struct FoundUser {
    /// `None` if the user has no password.
    pub(super) hash: Option<String>,
    pub(super) is_disabled: bool,
    pub(super) attributes: Attributes,
    pub(super) groups: Groups,
    /// The value of the column `acl`.
    pub(super) acl: Value,
}

/// Reads the row of a user: the hash in the first column. Of the others, `disabled` is a flag, `groups` a
/// list, `acl` JSON with rules, and every other text an attribute.
pub(super) fn account(row: &Row) -> Result<FoundUser, String> {
    if row.is_empty() {
        return Err("it has no column; the first one is the hash".to_owned());
    }
    let hash: Option<String> = read(row, 0, "text")?;
    // A column of the type character(n) is filled up with spaces.
    let hash = hash.map(|hash| hash.trim_end_matches(' ').to_owned());
    let mut account = FoundUser {
        hash,
        is_disabled: false,
        attributes: Attributes::default(),
        groups: Groups::default(),
        acl: Value::Null,
    };
    let mut attributes = Vec::new();
    for (at, column) in row.columns().iter().enumerate().skip(1) {
        let name = column.name();
        match (name, column.type_()) {
            ("disabled", _) => {
                // NULL is not a permission to log in.
                account.is_disabled = read::<bool>(row, at, "boolean")? != Some(false);
            }
            ("groups", _) => {
                let names: Option<Vec<String>> = read(row, at, "text[]")?;
                let groups = Groups::new(names.unwrap_or_default());
                account.groups = groups.map_err(|error| format!("column groups: {error}"))?;
            }
            ("acl", _) => {
                account.acl = read::<Value>(row, at, "json or jsonb")?.unwrap_or_default();
            }
            (_, kind) if is_text(kind) => {
                let value: Option<String> = read(row, at, "text")?;
                attributes.extend(value.map(|value| (name.to_owned(), value)));
            }
            _ => {}
        }
    }
    account.attributes = Attributes::new(attributes).map_err(|error| error.to_string())?;
    Ok(account)
}

/// Reads a value; `None` if it is null.
fn read<'r, T: FromSql<'r>>(row: &'r Row, at: usize, wanted: &str) -> Result<Option<T>, String> {
    let column = &row.columns()[at];
    let (name, kind) = (column.name(), column.type_());
    if !T::accepts(kind) {
        return Err(format!("column {name} has the type {kind}; it must be {wanted}"));
    }
    row.try_get(at).map_err(|error| format!("column {name}: {}", with_causes(&error)))
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
    // Behind those of `acl`: among rules of one priority the first that applies decides.
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
        let value = match column.type_() {
            kind if is_text(kind) => read(row, at, "text")?.map(Value::String),
            &Type::BOOL => read(row, at, "boolean")?.map(Value::Bool),
            &Type::INT2 => read::<i16>(row, at, "smallint")?.map(Value::from),
            &Type::INT4 => read::<i32>(row, at, "integer")?.map(Value::from),
            &Type::INT8 => read::<i64>(row, at, "bigint")?.map(Value::from),
            &Type::TEXT_ARRAY | &Type::VARCHAR_ARRAY => {
                read::<Vec<String>>(row, at, "text[]")?.map(Value::from)
            }
            &Type::JSON | &Type::JSONB => read::<Value>(row, at, "jsonb")?,
            other => return Err(format!("column {name} has the type {other}, which no rule has")),
        };
        match (name, value) {
            // A whole rule in one column; the other columns are then for people.
            ("rule", Some(rule)) => return Ok(rule),
            // NULL means that the rule has no such condition.
            (_, None) => {}
            (name, Some(value)) => drop(members.insert(name.to_owned(), value)),
        }
    }
    Ok(Value::Object(members))
}
