//! The variables of rules, and the plain text they stand for.
//!
//! Knows the attributes of a caller; does not know where in a rule a variable stands. Called by the
//! patterns for client identifiers, user names and topics.

use std::borrow::Cow;

use crate::auth::Identity;

/// The identity and client identifier from which the variables take their values.
pub(in crate::auth) struct VariableValues<'a> {
    identity: &'a Identity,
    client_id: &'a str,
}

impl<'a> VariableValues<'a> {
    pub(in crate::auth) const fn new(identity: &'a Identity, client_id: &'a str) -> Self {
        Self { identity, client_id }
    }

    /// Returns the value. An empty value counts as missing: `v/${clientId}/#` must not become
    /// `v//#`.
    fn value(&self, variable: &Variable) -> Option<&'a str> {
        let certificate = self.identity.certificate.as_deref();
        let value = match variable {
            Variable::Username => self.identity.username.as_deref(),
            Variable::ClientId => Some(self.client_id),
            Variable::CommonName => certificate.map(|shown| shown.common_name.as_str()),
            Variable::SerialNumber => certificate.map(|shown| shown.serial_number.as_str()),
            Variable::Attribute(name) => self.identity.attributes.get(name),
        };
        value.filter(|value| !value.is_empty())
    }
}

/// Whether a condition holds; undecided if a value is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// A variable has no value, or one that is unusable here.
    Unknown,
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Holds {
    /// Returns whether at least one of several holds.
    pub(super) fn any(each: impl IntoIterator<Item = Self>) -> Self {
        let mut any = Self::No;
        for holds in each {
            match holds {
                Self::Yes => return Self::Yes,
                Self::Unknown => any = Self::Unknown,
                Self::No => {}
            }
        }
        any
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Username,
    ClientId,
    CommonName,
    SerialNumber,
    Attribute(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PatternPiece {
    Text(Box<str>),
    Variable(Variable),
}

/// Text with variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Template(Vec<PatternPiece>);

/// The faults of a `${…}` in a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum TemplateError {
    #[error("`${{` without `}}`")]
    Unclosed,
    #[error(
        "unknown variable `${{{0}}}`; there are `${{username}}`, `${{clientId}}`, \
         `${{certificate.commonName}}`, `${{certificate.serialNumber}}` and `${{attributes.NAME}}`"
    )]
    UnknownVariable(Box<str>),
}

impl Template {
    pub(in crate::auth) fn parse(mut text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        while let Some((before, from_name)) = text.split_once("${") {
            let (name, after) = from_name.split_once('}').ok_or(TemplateError::Unclosed)?;
            let variable = match name {
                "username" => Variable::Username,
                "clientId" => Variable::ClientId,
                "certificate.commonName" => Variable::CommonName,
                "certificate.serialNumber" => Variable::SerialNumber,
                other => match other.strip_prefix("attributes.").filter(|name| !name.is_empty()) {
                    Some(name) => Variable::Attribute(name.into()),
                    // A misspelt variable would be a text that no
                    // client has, and a denying rule would not deny.
                    None => return Err(TemplateError::UnknownVariable(other.into())),
                },
            };
            if !before.is_empty() {
                pieces.push(PatternPiece::Text(before.into()));
            }
            pieces.push(PatternPiece::Variable(variable));
            text = after;
        }
        if !text.is_empty() {
            pieces.push(PatternPiece::Text(text.into()));
        }
        Ok(Self(pieces))
    }

    /// Returns whether it contains the client identifier.
    pub(in crate::auth) fn has_client_id(&self) -> bool {
        self.0.contains(&PatternPiece::Variable(Variable::ClientId))
    }

    /// Returns the text for `subject`; `None` if a variable in it has no value.
    pub(in crate::auth) fn text<'a>(
        &'a self,
        subject: &VariableValues<'a>,
    ) -> Option<Cow<'a, str>> {
        match self.0.as_slice() {
            [] => Some(Cow::Borrowed("")),
            [only] => only.text(subject).map(Cow::Borrowed),
            pieces => pieces
                .iter()
                .map(|piece| piece.text(subject))
                .collect::<Option<_>>()
                .map(Cow::Owned),
        }
    }

    /// Returns whether `level`, one level of a topic, equals the text for `subject`. A value that
    /// contains a level separator is unusable there.
    pub(super) fn matches_level(&self, level: &str, subject: &VariableValues<'_>) -> Holds {
        let mut rest = level;
        for piece in &self.0 {
            let usable = piece.text(subject).filter(|value| !value.contains('/'));
            let Some(value) = usable else {
                return Holds::Unknown;
            };
            let Some(after) = rest.strip_prefix(value) else {
                return Holds::No;
            };
            rest = after;
        }
        Holds::from(rest.is_empty())
    }

    /// Returns whether its text depends on an attribute of the identity.
    pub(super) fn uses_attributes(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, PatternPiece::Variable(Variable::Attribute(_))))
    }

    /// Returns whether it is the empty text.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether it begins with a variable.
    pub(super) fn begins_with_variable(&self) -> bool {
        matches!(self.0.first(), Some(PatternPiece::Variable(_)))
    }

    /// Returns whether its text for `subject` begins with a `$`.
    pub(super) fn begins_with_dollar(&self, subject: &VariableValues<'_>) -> bool {
        let first = self.0.first().and_then(|piece| piece.text(subject));
        first.is_some_and(|text| text.starts_with('$'))
    }
}

impl PatternPiece {
    fn text<'a>(&'a self, subject: &VariableValues<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Variable(variable) => subject.value(variable),
        }
    }
}
