//! The rules of one identity, as its source has given them.
//!
//! Plain data: a text of limited size. The policy reads it, once for all copies. Made by the policy,
//! kept with sessions.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock},
};

/// Maximum bytes of the text.
pub(super) const BYTES_MAX: usize = 16 * 1024;

/// Rules of an [`Identity`](super::Identity), in the form of the policy's rules, as JSON: for example
/// the claim `acl` of a token. The policy asks them before its own. At most 64, and at most 16 KiB of
/// text. Cloning copies a pointer.
#[derive(Clone, Default)]
pub struct OwnRules(Option<Arc<Own>>);

struct Own {
    text: Box<str>,
    /// The parsed rules of the policy; an empty option if the text is not valid.
    read: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl OwnRules {
    /// Creates them from the text that [`OwnRules::as_json`] returned. Text that is too long stands for
    /// rules that deny everything.
    #[must_use]
    pub fn from_json(text: &str) -> Self {
        let text = if text.len() <= BYTES_MAX { text } else { "" };
        Self(Some(Arc::new(Own { text: text.into(), read: OnceLock::new() })))
    }

    /// Returns the text; `None` if there are no rules.
    #[must_use]
    pub fn as_json(&self) -> Option<&str> {
        self.0.as_ref().map(|own| &*own.text)
    }

    /// Returns only the rules that deny: these still hold after the identity has expired. Rules that cannot
    /// be read stay unchanged.
    pub(crate) fn without_allowing(&self) -> Self {
        let Some(text) = self.as_json() else { return Self::default() };
        let Ok(mut rules) = serde_json::from_slice::<Vec<serde_json::Value>>(text.as_bytes())
        else {
            return self.clone();
        };
        rules.retain(|rule| rule["effect"] != "allow");
        match rules.is_empty() {
            true => Self::default(),
            false => Self::from_json(&serde_json::Value::Array(rules).to_string()),
        }
    }

    /// Returns whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the text as parsed by `read`, which is called once for all copies; `Some(None)` if the text is
    /// not valid, and `None` if there are no rules.
    #[cfg_attr(not(feature = "accounts"), expect(dead_code, reason = "only the policy reads them"))]
    pub(super) fn read_by<T: Any + Send + Sync>(
        &self,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<&T>> {
        let own = self.0.as_ref()?;
        let read = own.read.get_or_init(|| Some(Box::new(read(&own.text)?)));
        Some(read.as_ref().and_then(|rules| rules.downcast_ref()))
    }
}

impl PartialEq for OwnRules {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl Eq for OwnRules {}

impl fmt::Debug for OwnRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "OwnRules(none)" } else { "OwnRules(..)" })
    }
}
