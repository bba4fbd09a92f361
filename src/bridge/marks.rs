//! The mark of MQTT 5.0 messages against loops: a User Property with the brokers that have sent a
//! message over a bridge.
//!
//! A broker neither sends a message again that it has sent, nor takes it back. The mark is bounded, and
//! so is the way of a message whose mark is not understood. Pure.

use std::sync::Arc;

use crate::mqtt::{UserProperties, UserPropertiesBuf};

/// The name of the User Property; its value are identifiers with commas between them.
pub(crate) const PATH: &str = "hearthmq-path";
/// Maximum bytes of a path. One that is longer is not from a bridge.
const PATH_BYTES_MAX: usize = 1024;

/// A message has passed this broker, or too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsLoop;

/// The marks of a connection.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// The identifier of this broker.
    pub(super) own: Arc<str>,
    /// The identifier of the other broker, if it has told it.
    pub(super) remote: Option<Arc<str>>,
    pub(super) hops_max: usize,
}

impl Marks {
    /// Returns the User Properties of a message on its way to the other broker.
    pub(super) fn on_the_way_out(
        &self,
        properties: UserProperties<'_>,
    ) -> Result<UserPropertiesBuf, IsLoop> {
        let path = self.path(properties)?;
        let has_passed = |one: &str| path.split(',').any(|broker| broker == one);
        let hops = if path.is_empty() { 0 } else { path.split(',').count() };
        let goes_back = self.remote.as_deref().is_some_and(has_passed);
        if has_passed(&self.own) || goes_back || hops >= self.hops_max {
            return Err(IsLoop);
        }
        with_path(properties, &joined(&path, &self.own))
    }

    /// Returns the User Properties of a message on its way in; `None` if they stay as they are.
    pub(super) fn on_the_way_in(
        &self,
        properties: UserProperties<'_>,
    ) -> Result<Option<UserPropertiesBuf>, IsLoop> {
        let path = self.path(properties)?;
        let has_passed = |one: &str| path.split(',').any(|broker| broker == one);
        if has_passed(&self.own) {
            return Err(IsLoop);
        }
        match self.remote.as_deref().filter(|remote| !has_passed(remote)) {
            Some(remote) => with_path(properties, &joined(&path, remote)).map(Some),
            None => Ok(None),
        }
    }

    fn path(&self, properties: UserProperties<'_>) -> Result<String, IsLoop> {
        let mut path = String::new();
        for (_, value) in properties.iter().filter(|(name, _)| *name == PATH) {
            if path.len() + value.len() >= PATH_BYTES_MAX {
                return Err(IsLoop);
            }
            path = joined(&path, value);
        }
        Ok(path)
    }
}

fn joined(path: &str, one: &str) -> String {
    if path.is_empty() { one.to_owned() } else { format!("{path},{one}") }
}

fn with_path(properties: UserProperties<'_>, path: &str) -> Result<UserPropertiesBuf, IsLoop> {
    let mut marked = UserPropertiesBuf::new();
    for (name, value) in properties.iter().filter(|(name, _)| *name != PATH) {
        marked.push(name, value).map_err(|_| IsLoop)?;
    }
    marked.push(PATH, path).map_err(|_| IsLoop)?;
    Ok(marked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(own: &str, remote: Option<&str>) -> Marks {
        Marks { own: own.into(), remote: remote.map(Into::into), hops_max: 3 }
    }

    fn with(pairs: &[(&str, &str)]) -> UserPropertiesBuf {
        let mut properties = UserPropertiesBuf::new();
        pairs.iter().for_each(|(name, value)| properties.push(name, value).unwrap());
        properties
    }

    fn sent(marks: &Marks, pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, IsLoop> {
        let marked = marks.on_the_way_out(with(pairs).as_user_properties())?;
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Ok(marked.as_user_properties().iter().map(own).collect())
    }

    #[test]
    fn a_message_is_marked_and_does_not_pass_a_broker_twice() {
        let a = marks("a", None);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(sent(&a, &[("k", "v")]), Ok(vec![pair("k", "v"), pair(PATH, "a")]));
        assert_eq!(
            sent(&a, &[(PATH, "b"), ("k", "v")]),
            Ok(vec![pair("k", "v"), pair(PATH, "b,a")])
        );
        assert_eq!(sent(&a, &[(PATH, "b,a,c")]), Err(IsLoop));
        assert_eq!(sent(&a, &[(PATH, "b"), (PATH, "a")]), Err(IsLoop));
        assert_eq!(sent(&a, &[(PATH, "b,c,d")]), Err(IsLoop), "three hops are enough");
        assert_eq!(sent(&a, &[(PATH, &"x".repeat(1024))]), Err(IsLoop));
        assert_eq!(
            sent(&marks("a", Some("b")), &[(PATH, "b")]),
            Err(IsLoop),
            "it is there already"
        );
    }

    #[test]
    fn a_message_does_not_come_back_and_is_marked_with_its_origin() {
        let a = marks("a", Some("b"));
        let taken = |pairs: &[(&str, &str)]| {
            let marked = a.on_the_way_in(with(pairs).as_user_properties())?;
            Ok(marked.map(|all| all.as_user_properties().iter().last().unwrap().1.to_owned()))
        };
        assert_eq!(taken(&[(PATH, "a")]), Err(IsLoop));
        assert_eq!(taken(&[]), Ok(Some("b".to_owned())));
        assert_eq!(taken(&[(PATH, "c")]), Ok(Some("c,b".to_owned())));
        assert_eq!(taken(&[(PATH, "b,c")]), Ok(None));
    }
}
