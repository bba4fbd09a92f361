//! `DELETE /api/v1/clients/{id}`: ends a client's connection.

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    web::{self, Data, Payload, ServiceConfig},
};
use serde_json::json;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
    },
    client::show_client,
    clients::query_clients,
    in_time, resource,
    target::{Query, client_id_in_path},
};
use crate::{
    auth::Action,
    control::{Kick, KickOptions, WillRequest},
    metrics::RestRoute,
    told::Changed,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let client = resource("/clients/{id}", ALLOW)
        .route(web::get().to(show_client))
        .route(web::head().to(show_client))
        .route(web::delete().to(kick))
        .route(web::post().to(many));
    config.service(client);
}

/// The methods of a client. An identifier may be any text, so the calls about many clients, which
/// are `POST`, share its route.
const ALLOW: &str = "GET, HEAD, DELETE";

async fn many(request: HttpRequest, payload: Payload, api: Data<Api>) -> HttpResponse {
    match client_id_in_path(&request).as_deref() {
        Ok("query") => query_clients(request, payload, api).await,
        _ => ApiError::method_not_allowed(ALLOW).error_response(),
    }
}

async fn kick(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Changes).await?;
        let client_id = client_id_in_path(&request)?;
        let options = options(request.query_string())?;
        caller.permit(&api, &client_id, &[Action::Control])?;
        in_time(&api, api.0.control.kick(Kick::new(&*client_id, options))).await?;
        let (call, target) = ("kick", Some(&*client_id));
        caller.tell_changed(&api, Changed { call, target, old: None, new: None });
        Ok(Answer::json(&json!({ "success": true })))
    };
    answer(&api, &request, RestRoute::Client, call).await
}

/// Parses how the connection ends.
fn options(query: &str) -> Result<KickOptions, ApiError> {
    let query = Query::parse(query, &["session", "will", "reason"])?;
    let one_of = |text: &str, [no, yes]: [&str; 2]| match text {
        _ if text == no => Some(false),
        _ if text == yes => Some(true),
        _ => None,
    };
    let ends = query.value("session", "must be keep or end", |it| one_of(it, ["keep", "end"]))?;
    let discards = query
        .value("will", "must be publish or discard", |it| one_of(it, ["publish", "discard"]))?;
    let mut options = KickOptions::new();
    if ends == Some(true) {
        options = options.end_session();
    }
    if discards == Some(true) {
        options = options.will(WillRequest::Discard);
    }
    match query.text("reason")? {
        None => Ok(options),
        Some(reason) => options
            .reason_string(&reason)
            .map_err(|error| ApiError::invalid_parameter("reason", &error.to_string())),
    }
}
