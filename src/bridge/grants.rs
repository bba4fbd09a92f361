//! The permissions of a bridge's session: it subscribes to its out topics and publishes to its in topics,
//! as configured. No rule concerns it, and its configuration allows nothing to others.
//!
//! A session of a bridge has an identity whose source is [`BRIDGE_METHOD`]; no login gives such a one.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{options::Bridge, routes::Routes};
use crate::auth::{
    AccessRequest, Action, AuthenticationError, Authorizer, BRIDGE_CLIENTS, Decision,
    EnhancedAuthenticator, Exchange, ExchangeStart, Explanation, Identity, Preparation,
    PrepareRequest, Standing, Step, StoredRules,
};

/// The source of the identities of bridges, and the method by which their sessions are judged.
pub(crate) const BRIDGE_METHOD: &str = "$bridge";

/// The bridges that exist, with their topics.
#[derive(Default)]
pub(crate) struct Granted {
    bridges: ArcSwap<HashMap<Box<str>, Routes>>,
    generation: AtomicU64,
}

impl Granted {
    /// Replaces the bridges.
    pub(crate) fn set(&self, bridges: &[Bridge]) {
        let routes = |bridge: &Bridge| (bridge.name().into(), Routes::new(&bridge.topics));
        self.bridges.store(Arc::new(bridges.iter().map(routes).collect()));
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn allows(&self, client_id: &str, action: Action<'_>) -> bool {
        let name = client_id.strip_prefix(BRIDGE_CLIENTS).unwrap_or_default();
        let bridges = self.bridges.load();
        let Some(routes) = bridges.get(name) else { return false };
        match action {
            Action::Connect => true,
            Action::Publish { topic, .. } => routes.has_in(topic),
            Action::Subscribe { filter, .. } => routes.has_out(filter),
            Action::Observe | Action::Control | Action::Administer => false,
        }
    }

    fn standing(&self, identity: &Identity) -> Standing {
        let name = identity.username.as_deref().and_then(|user| user.strip_prefix(USER_PREFIX));
        match name.is_some_and(|name| self.bridges.load().contains_key(name)) {
            true => Standing::Good,
            false => Standing::Gone,
        }
    }
}

/// The beginning of the user names of bridges.
const USER_PREFIX: &str = "bridge:";

impl Bridge {
    /// Returns the identity of its session.
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            username: Some(format!("{USER_PREFIX}{}", self.name).into()),
            source: Some(BRIDGE_METHOD.into()),
            ..Identity::default()
        }
    }
}

/// Decides for the sessions of bridges, and leaves all others to the authorizer of the broker.
pub(crate) struct BridgeAuthorizer {
    pub(crate) others: Arc<dyn Authorizer>,
    pub(crate) granted: Arc<Granted>,
}

impl BridgeAuthorizer {
    fn decides(request: &AccessRequest<'_>) -> bool {
        request.identity.source.as_deref() == Some(BRIDGE_METHOD)
    }
}

impl Authorizer for BridgeAuthorizer {
    fn authorize(&self, request: &AccessRequest<'_>) -> Decision {
        match Self::decides(request) {
            false => self.others.authorize(request),
            true if self.granted.allows(request.client_id, request.action) => Decision::Allow,
            true => Decision::Deny,
        }
    }

    fn explain(&self, request: &AccessRequest<'_>) -> Explanation {
        match Self::decides(request) {
            false => self.others.explain(request),
            true => Explanation::new(self.authorize(request), None),
        }
    }

    fn stored_rules(&self) -> Option<&dyn StoredRules> {
        self.others.stored_rules()
    }

    fn generation(&self) -> u64 {
        let own = self.granted.generation.load(Ordering::Acquire);
        self.others.generation().wrapping_add(own)
    }

    fn prepare<'a>(&'a self, request: PrepareRequest<'a>) -> Option<Preparation<'a>> {
        match request.identity.source.as_deref() == Some(BRIDGE_METHOD) {
            false => self.others.prepare(request),
            true => None,
        }
    }

    fn uses_attributes(&self) -> bool {
        self.others.uses_attributes()
    }
}

/// Judges the sessions of bridges. A client that names it as its Authentication Method is refused.
pub(crate) struct BridgeMethod(pub(crate) Arc<Granted>);

impl EnhancedAuthenticator for BridgeMethod {
    fn knows(&self, method: &str) -> bool {
        method == BRIDGE_METHOD
    }

    fn begin(&self, _: ExchangeStart<'_>) -> Box<dyn Exchange> {
        Box::new(NoExchange)
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn standing(&self, identity: &Identity, _: u64) -> Standing {
        self.0.standing(identity)
    }
}

struct NoExchange;

#[async_trait]
impl Exchange for NoExchange {
    async fn step(&mut self, _: Option<&[u8]>) -> Result<Step, AuthenticationError> {
        Err(AuthenticationError::NotAllowed)
    }
}
