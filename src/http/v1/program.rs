//! `GET /api/v1/configuration`: the options in force. `GET` and `PUT /api/v1/log`: what is logged.
//!
//! They need `administer`, and a broker that is the program of its own.

use std::{pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Payload, ServiceConfig},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        Api, ApiError, OptionInForce, Program,
        admission::CallEffect,
        calls::{Answer, answer},
        failures::{
            Administration, Caller, Change, Fails, JsonBody, LogFilter, NoProgram, Parameters,
        },
    },
    body, resource,
    rules::administrator,
    target::Query,
};
use crate::{metrics::RestRoute, told::Changed};

/// Maximum bytes of a filter.
const FILTER_BYTES_MAX: usize = 1_024;
/// Maximum bytes of a body.
const BODY_BYTES_MAX: usize = 8 * 1_024;

pub(super) fn routes(config: &mut ServiceConfig) {
    let options = resource("/configuration", "GET, HEAD");
    let log = resource("/log", "GET, HEAD, PUT")
        .route(web::get().to(show_log))
        .route(web::head().to(show_log))
        .route(web::put().to(change_log));
    let options = options.route(web::get().to(configuration)).route(web::head().to(configuration));
    config.service(options).service(log);
}

fn program(api: &Api) -> Result<&Arc<dyn Program>, ApiError> {
    api.0.program.get().ok_or_else(ApiError::no_program)
}

/// The configuration in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Configuration)]
struct ConfigurationAnswer {
    /// All options, in the order of their names.
    options: Vec<OptionInForce>,
}

/// Lists the options in force, with their defaults. Secrets are hidden.
#[utoipa::path(
    get, path = "/configuration", tag = "node", operation_id = "configuration",
    responses(
        (status = 200, description = "The options.", body = ConfigurationAnswer, example = json!(
            {"options": [{"name": "limits.connections_max", "value": 1000, "default": 100_000,
            "is_changed": true, "is_hidden": false, "needs_restart": false}]})),
        Fails<(Caller, Administration, Parameters, NoProgram)>,
    ),
)]
pub(super) async fn configuration(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        Ok(Answer::json(&ConfigurationAnswer { options: program(&api)?.options() }))
    };
    answer(&api, &request, RestRoute::Configuration, pin!(call)).await
}

/// The levels of the log.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Log)]
struct LogBody {
    /// The filter, as in `log.filter`.
    #[schema(max_length = 1024, example = "warn,hearthmq=debug")]
    filter: String,
}

/// Returns the filter of the log.
#[utoipa::path(
    get, path = "/log", tag = "node", operation_id = "log",
    responses(
        (status = 200, description = "The filter.", body = LogBody, example = json!({"filter": "info"})),
        Fails<(Caller, Administration, Parameters, NoProgram)>,
    ),
)]
pub(super) async fn show_log(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        administrator(&api, &request, CallEffect::Looks).await?;
        Query::parse(request.query_string(), &[])?;
        Ok(Answer::json(&LogBody { filter: program(&api)?.log_filter() }))
    };
    answer(&api, &request, RestRoute::Log, pin!(call)).await
}

/// Changes what is logged from now on.
///
/// The filter of the configuration counts again after a reload or a restart.
#[utoipa::path(
    put, path = "/log", tag = "node", operation_id = "changeLog",
    request_body(content = LogBody, description = "The filter.",
        example = json!({"filter": "warn,hearthmq=debug"})),
    responses(
        (status = 200, description = "The filter.", body = LogBody,
         example = json!({"filter": "warn,hearthmq=debug"})),
        Fails<(Caller, Change, Administration, Parameters, JsonBody, NoProgram, LogFilter)>,
    ),
)]
pub(super) async fn change_log(
    request: HttpRequest,
    payload: Payload,
    api: Data<Api>,
) -> HttpResponse {
    let call = async {
        let caller = administrator(&api, &request, CallEffect::Changes).await?;
        Query::parse(request.query_string(), &[])?;
        let LogBody { filter: wanted } =
            body::read(&api, &request, payload, BODY_BYTES_MAX).await?;
        let program = program(&api)?;
        // Read before the change, for the audit log.
        let old = program.log_filter();
        if wanted.is_empty() || wanted.len() > FILTER_BYTES_MAX {
            return Err(ApiError::invalid_log_filter());
        }
        program.set_log_filter(&wanted).map_err(|_| ApiError::invalid_log_filter())?;
        let (old, new) = (Some(&*old), Some(&*wanted));
        caller.tell_changed(&api, Changed { call: "log", target: None, old, new });
        Ok(Answer::json(&LogBody { filter: wanted }))
    };
    answer(&api, &request, RestRoute::Log, pin!(call)).await
}
