//! The topics of a bridge: which filters it subscribes to on each side, and the name of a topic on the
//! other side.
//!
//! Pure. Of several topics that match, the first one in the configuration decides.

use std::borrow::Cow;

use super::topic::{BridgeTopic, Direction, RetainedOf};
use crate::mqtt::{QoS, filter_matches};

/// The topics of a bridge, ready for use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Routes(Box<[BridgeRoute]>);

#[derive(Debug, PartialEq, Eq)]
struct BridgeRoute {
    local: RouteSide,
    remote: RouteSide,
    direction: Direction,
    qos: QoS,
    retained: RetainedOf,
}

/// One side of a route.
#[derive(Debug, PartialEq, Eq)]
struct RouteSide {
    prefix: Box<str>,
    filter: Box<str>,
}

/// A subscription of a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BridgeWish<'a> {
    pub(crate) filter: &'a str,
    pub(crate) qos: QoS,
    pub(crate) retained: RetainedOf,
}

impl Routes {
    pub(crate) fn new(topics: &[BridgeTopic]) -> Self {
        let side = |prefix: &str, filter: String| RouteSide {
            prefix: prefix.into(),
            filter: filter.into(),
        };
        let routes = topics.iter().map(|topic| BridgeRoute {
            local: side(&topic.local_prefix, topic.local_filter()),
            remote: side(&topic.remote_prefix, topic.remote_filter()),
            direction: topic.direction,
            qos: topic.qos,
            retained: topic.retained,
        });
        Self(routes.collect())
    }

    /// Returns the name of a topic of this broker at the other one; `None` if it does not go there.
    pub(super) fn out<'a>(&self, topic: &'a str) -> Option<Cow<'a, str>> {
        let mut all = self.0.iter().filter(|route| route.direction.goes_out());
        all.find_map(|route| route.local.renamed(&route.remote, topic))
    }

    /// Returns the name of a topic of the other broker here; `None` if it does not come here.
    pub(super) fn comes_in<'a>(&self, topic: &'a str) -> Option<Cow<'a, str>> {
        let mut all = self.0.iter().filter(|route| route.direction.comes_in());
        all.find_map(|route| route.remote.renamed(&route.local, topic))
    }

    /// Returns whether messages come in under this topic.
    pub(super) fn has_in(&self, topic: &str) -> bool {
        let mut all = self.0.iter().filter(|route| route.direction.comes_in());
        all.any(|route| filter_matches(&route.local.filter, topic))
    }

    /// Returns whether a message that went out under this topic may come back.
    pub(super) fn may_return(&self, remote_topic: &str) -> bool {
        let mut all = self.0.iter().filter(|route| route.direction.comes_in());
        all.any(|route| filter_matches(&route.remote.filter, remote_topic))
    }

    /// Returns whether the bridge subscribes to this filter in this broker.
    pub(super) fn has_out(&self, filter: &str) -> bool {
        self.out_wishes().iter().any(|wish| wish.filter == filter)
    }

    /// Returns the subscriptions in this broker.
    pub(crate) fn out_wishes(&self) -> Vec<BridgeWish<'_>> {
        self.wishes(Direction::goes_out, |route| &route.local)
    }

    /// Returns the subscriptions at the other broker.
    pub(crate) fn in_wishes(&self) -> Vec<BridgeWish<'_>> {
        self.wishes(Direction::comes_in, |route| &route.remote)
    }

    /// Returns each filter once, with the highest QoS of those that have it.
    fn wishes(
        &self,
        goes: fn(Direction) -> bool,
        side: fn(&BridgeRoute) -> &RouteSide,
    ) -> Vec<BridgeWish<'_>> {
        let mut wishes: Vec<BridgeWish<'_>> = Vec::new();
        for route in self.0.iter().filter(|route| goes(route.direction)) {
            let filter = &*side(route).filter;
            match wishes.iter_mut().find(|wish| wish.filter == filter) {
                // One filter gets one subscription, because a second SUBSCRIBE would replace the first.
                Some(wish) => wish.qos = wish.qos.max(route.qos),
                None => {
                    wishes.push(BridgeWish { filter, qos: route.qos, retained: route.retained })
                }
            }
        }
        wishes
    }
}

impl RouteSide {
    /// Returns the name of a topic of this side on the other one; `None` if it does not match.
    fn renamed<'a>(&self, other: &Self, topic: &'a str) -> Option<Cow<'a, str>> {
        if !filter_matches(&self.filter, topic) {
            return None;
        }
        if self.prefix == other.prefix {
            return Some(Cow::Borrowed(topic));
        }
        let renamed = match topic.strip_prefix(&*self.prefix) {
            Some(rest) => format!("{}{rest}", other.prefix),
            // `a/#` matches `a` too, which has no text behind the prefix `a/`.
            None => other.prefix.strip_suffix('/').unwrap_or(&other.prefix).to_owned(),
        };
        (!renamed.is_empty()).then_some(Cow::Owned(renamed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(filter: &str, direction: Direction, local: &str, remote: &str) -> BridgeTopic {
        BridgeTopic {
            filter: filter.into(),
            direction,
            local_prefix: local.into(),
            remote_prefix: remote.into(),
            ..BridgeTopic::default()
        }
    }

    #[test]
    fn a_prefix_is_replaced_and_the_first_topic_decides() {
        let routes = Routes::new(&[
            topic("a/#", Direction::Out, "", "site/"),
            topic("a/b", Direction::Out, "", "never/"),
            topic("#", Direction::In, "from/", "cmd/"),
            topic("", Direction::Both, "here/one", "there/one"),
        ]);
        assert_eq!(routes.out("a/b").as_deref(), Some("site/a/b"));
        assert_eq!(routes.out("a").as_deref(), Some("site/a"));
        assert_eq!(routes.out("b"), None);
        assert_eq!(routes.comes_in("cmd/x/y").as_deref(), Some("from/x/y"));
        assert_eq!(routes.comes_in("other"), None);
        assert_eq!(routes.out("here/one").as_deref(), Some("there/one"));
        assert_eq!(routes.comes_in("there/one").as_deref(), Some("here/one"));
        assert!(routes.has_in("from/z") && !routes.has_in("z") && !routes.has_in("$SYS/z"));
        assert!(routes.may_return("there/one") && !routes.may_return("site/a"));
    }

    #[test]
    fn a_filter_also_matches_the_level_above_it() {
        let routes = Routes::new(&[
            topic("#", Direction::Out, "a/", "b/"),
            topic("#", Direction::In, "", "c/"),
        ]);
        assert_eq!(routes.out("a").as_deref(), Some("b"));
        assert_eq!(routes.comes_in("c"), None, "a topic has at least one character");
    }

    #[test]
    fn a_filter_is_subscribed_once_with_its_highest_qos() {
        let low = topic("a", Direction::Both, "", "");
        let high = BridgeTopic { qos: QoS::ExactlyOnce, direction: Direction::Out, ..low.clone() };
        let routes = Routes::new(&[low, high]);
        let wish = |qos| BridgeWish { filter: "a", qos, retained: RetainedOf::New };
        assert_eq!(routes.out_wishes(), [wish(QoS::ExactlyOnce)]);
        assert_eq!(routes.in_wishes(), [wish(QoS::AtMostOnce)]);
    }

    #[test]
    fn a_topic_that_cannot_be_mapped_is_refused() {
        for wrong in [
            topic("", Direction::Out, "a", ""),
            topic("a", Direction::Out, "+/", ""),
            topic("a/#/b", Direction::Out, "", ""),
            topic("$share/g/a", Direction::In, "", ""),
            topic("share/g/a", Direction::In, "", "$"),
            topic("#", Direction::In, "a", ""),
            topic(&"x".repeat(1025), Direction::In, "", ""),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
        topic("", Direction::Both, "a", "b").check().unwrap();
        topic("+/b", Direction::Both, "a/", "c/").check().unwrap();
    }
}
