//! The REST interface of a broker, as routes for the `App` of an application.

use std::sync::Arc;

use actix_web::web::ServiceConfig;

use super::Broker;
use crate::http::{self, Api, ApiOptions};

impl Broker {
    /// Returns the REST interface, to mount into the application's own actix-web `App`:
    /// `App::new().configure(broker.http_routes())`.
    pub fn http_routes(&self) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
        http::routes(self.api(&ApiOptions::default()))
    }

    /// Returns the REST interface with these options.
    #[must_use]
    pub fn api(&self, options: &ApiOptions) -> Api {
        let control = Arc::new(self.clone());
        let core = &self.running.core;
        let of_broker = (Arc::clone(&core.told), core.clock);
        let (authenticator, authorizer) = (self.authenticator(), self.authorizer());
        let metrics = self.metrics();
        let api = Api::of_broker(of_broker, control, authenticator, authorizer, metrics, options);
        if let Some(tracer) = &core.tracer {
            api.set_tracer(Arc::clone(tracer));
        }
        api
    }
}
