//! The body of a request: JSON whose texts have variables.
//!
//! A value is never part of the JSON's syntax: it is put into a text, and the text is encoded.

use std::net::SocketAddr;

use serde_json::Value;

use crate::auth::{ClientCertificate, Credentials};

/// A body with variables.
#[derive(Clone, Debug)]
pub(super) struct RequestBody {
    json: Value,
    /// Whether a token of a REST caller is part of it.
    pub(super) has_token: bool,
}

/// The variables that there are.
const VARIABLES: [&str; 8] = [
    "address",
    "certificate.commonName",
    "certificate.serialNumber",
    "clientId",
    "listener",
    "password",
    "token",
    "username",
];

/// The values of the variables. A password or token that is not UTF-8 has none.
struct Values<'a> {
    client_id: Option<&'a str>,
    username: Option<&'a str>,
    password: Option<&'a str>,
    token: Option<&'a str>,
    certificate: Option<&'a ClientCertificate>,
    peer: SocketAddr,
    listener: &'a str,
}

impl RequestBody {
    /// Parses a body.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let json: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let mut names = Vec::new();
        collect(&json, &mut names)?;
        if let Some(name) = names.iter().find(|name| !VARIABLES.contains(&&***name)) {
            let known = VARIABLES.map(|name| format!("${{{name}}}")).join(", ");
            return Err(format!("unknown variable ${{{name}}}; there are {known}"));
        }
        Ok(Self { json, has_token: names.iter().any(|name| name == "token") })
    }

    /// Returns the body for a client; `None` if its password or token is not text.
    pub(super) fn fill(&self, shown: &Credentials<'_>) -> Option<Vec<u8>> {
        let password = shown.password.map(str::from_utf8).transpose().ok()?;
        let token = shown.bearer.map(str::from_utf8).transpose().ok()?;
        let values = Values {
            client_id: shown.client_id,
            username: shown.username,
            password,
            token,
            certificate: shown.certificate,
            peer: shown.peer,
            listener: shown.listener,
        };
        Some(values.fill(&self.json).to_string().into_bytes())
    }
}

/// Collects the names of all variables.
fn collect(json: &Value, names: &mut Vec<String>) -> Result<(), String> {
    match json {
        Value::String(text) => {
            let mut rest = text.as_str();
            while let Some((_, from_name)) = rest.split_once("${") {
                let (name, after) = from_name.split_once('}').ok_or("`${` without `}`")?;
                names.push(name.to_owned());
                rest = after;
            }
            Ok(())
        }
        Value::Array(all) => all.iter().try_for_each(|value| collect(value, names)),
        Value::Object(all) => all.values().try_for_each(|value| collect(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

impl Values<'_> {
    fn fill(&self, json: &Value) -> Value {
        match json {
            Value::String(text) => self.text(text),
            Value::Array(all) => all.iter().map(|value| self.fill(value)).collect(),
            Value::Object(all) => {
                all.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => json.clone(),
        }
    }

    /// A text that is one variable without a value is `null`; elsewhere such a variable is empty.
    fn text(&self, text: &str) -> Value {
        let only = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        // `null` tells the service "not given", which an empty text does not.
        if let Some(name) = only.filter(|name| !name.contains('}')) {
            return self.value(name).map_or(Value::Null, Value::String);
        }
        let (mut filled, mut rest) = (String::new(), text);
        while let Some((before, from_name)) = rest.split_once("${") {
            let Some((name, after)) = from_name.split_once('}') else { break };
            filled.push_str(before);
            filled.push_str(&self.value(name).unwrap_or_default());
            rest = after;
        }
        filled.push_str(rest);
        Value::String(filled)
    }

    fn value(&self, name: &str) -> Option<String> {
        let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
        match name {
            "address" => Some(self.peer.ip().to_string()),
            "certificate.commonName" => owned(self.certificate.map(|shown| &*shown.common_name)),
            "certificate.serialNumber" => {
                owned(self.certificate.map(|shown| &*shown.serial_number))
            }
            "clientId" => owned(self.client_id),
            "listener" => Some(self.listener.to_owned()),
            "password" => owned(self.password),
            "token" => owned(self.token),
            "username" => owned(self.username),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn values_are_texts_and_never_syntax() {
        let body =
            RequestBody::parse(r#"{"u":"${username}","p":"-${password}-","n":[1,"${clientId}"]}"#);
        let shown = Credentials {
            username: Some(r#"a","x":"${password}"#),
            password: Some(b"\\\""),
            ..Credentials::new((Ipv4Addr::LOCALHOST, 1).into(), "mqtt")
        };
        let filled = body.expect("it is one").fill(&shown).expect("it is text");
        let filled: Value = serde_json::from_slice(&filled).expect("it is JSON");
        assert_eq!(filled["u"], r#"a","x":"${password}"#);
        assert_eq!(filled["p"], "-\\\"-");
        assert_eq!(filled["n"], serde_json::json!([1, null]));
        let shown = Credentials { password: Some(b"\xFF"), ..shown };
        assert!(
            RequestBody::parse(r#"["${password}"]"#).expect("it is one").fill(&shown).is_none()
        );
    }

    #[test]
    fn a_variable_that_is_not_there_is_named() {
        assert!(RequestBody::parse(r#"{"u":"${user}"}"#).is_err_and(|why| why.contains("${user}")));
        assert!(RequestBody::parse(r#"{"u":"${username"}"#).is_err());
        assert!(RequestBody::parse("u=${username}").is_err());
        assert!(RequestBody::parse(r#"["${token}"]"#).is_ok_and(|body| body.has_token));
    }
}
