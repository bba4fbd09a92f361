//! `GET /api/v1/me`: who the caller is, and what it may do.

use std::pin::pin;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        admission::{self, CallEffect, HttpCaller},
        calls::{Answer, answer},
        failures::{Caller, ClientId, Fails, Parameters},
        parameters::check_client_id,
    },
    resource,
    target::Query,
};
use crate::{
    auth::{Action, Login},
    metrics::RestRoute,
    mqtt::{QoS, is_of_the_broker, validate_filter, validate_topic},
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let call = resource("/me", "GET, HEAD");
    config.service(call.route(web::get().to(me)).route(web::head().to(me)));
}

/// The caller, and what it may do.
#[derive(Serialize, ToSchema)]
#[schema(as = Me)]
struct MeAnswer<'a> {
    /// Its user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    /// How it has logged in: `password`, `certificate`, `scram` or `other`.
    #[schema(value_type = String)]
    login: Login,
    /// Its address, without the port.
    address: String,
    /// The URL of the listener that accepted it.
    listener: &'a str,
    /// The permissions of the caller.
    permissions: PermissionsPart,
}

/// The permissions of a caller for the client that the query names, or for all clients.
#[derive(Serialize, ToSchema)]
#[schema(as = Permissions)]
struct PermissionsPart {
    /// Whether it may look.
    observe: bool,
    /// Whether it may change live sessions.
    control: bool,
    /// Whether it may run the broker: users, rules, bans.
    administer: bool,
    /// Whether it may publish to the `topic` of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish: Option<bool>,
    /// Whether it may publish a retained message there, and remove one.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_retained: Option<bool>,
    /// Whether it may subscribe to the `topic` of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<bool>,
}

/// Says who the caller is, and what it may do.
#[utoipa::path(
    get, path = "/me", tag = "access", operation_id = "me",
    params(
        ("client_id" = Option<String>, Query, example = "car-17",
         description = "The client that the permissions are about; left out: all clients."),
        ("topic" = Option<String>, Query, example = "cars/17/state",
         description = "A Topic Name or Topic Filter to publish or subscribe to."),
    ),
    responses(
        (status = 200, description = "The caller.", body = MeAnswer<'static>, example = json!({
            "username": "admin", "login": "password", "address": "127.0.0.1",
            "listener": "http://127.0.0.1:8080",
            "permissions": {"observe": true, "control": true, "administer": true}})),
        Fails<(Caller, Parameters, ClientId)>,
    ),
)]
pub(super) async fn me(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["client_id", "topic"])?;
        let client_id = query.text("client_id")?.unwrap_or_default();
        check_client_id(&client_id)?;
        let topic = query.text("topic")?;
        Ok(Answer::json(&MeAnswer {
            username: caller.identity.username.as_deref(),
            login: caller.identity.login,
            address: caller.peer.ip().to_string(),
            listener: caller.listener(),
            permissions: permissions(&api, &caller, &client_id, topic.as_deref()),
        }))
    };
    answer(&api, &request, RestRoute::Me, pin!(call)).await
}

fn permissions(
    api: &Api,
    caller: &HttpCaller,
    client_id: &str,
    topic: Option<&str>,
) -> PermissionsPart {
    let may = |action| caller.may(api, client_id, action);
    let publish = |topic: &str, retain| {
        let action = Action::Publish { topic, qos: QoS::AtMostOnce, retain };
        // In the order of a PUBLISH: an invalid topic or one of the broker is refused before rules.
        validate_topic(topic).is_ok() && !is_of_the_broker(topic) && caller.may(api, "", action)
    };
    let subscribe = |filter: &str| {
        let parts = validate_filter(filter).ok();
        parts.is_some_and(|parts| {
            let filter = parts.filter;
            caller.may(api, "", Action::Subscribe { filter, qos: QoS::AtMostOnce })
        })
    };
    PermissionsPart {
        observe: may(Action::Observe),
        control: may(Action::Control),
        administer: caller.may(api, "", Action::Administer),
        publish: topic.map(|topic| publish(topic, false)),
        publish_retained: topic.map(|topic| publish(topic, true)),
        subscribe: topic.map(subscribe),
    }
}
