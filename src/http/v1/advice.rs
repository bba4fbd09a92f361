//! `GET /api/v1/keep-alive/advice`: what connections have survived, and the Keep Alive that it
//! suggests.
//!
//! Needs `observe` for any client.

use std::{net::IpAddr, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;

use super::{
    super::{
        Api, ApiError,
        admission::{self, CallEffect},
        calls::{Answer, answer},
    },
    contents::PageAnswer,
    cursor, in_time, resource,
    target::Query,
};
use crate::{
    auth::Action,
    control::{AdviceCertainty, KeepAliveAdvice, ListKeepAliveAdvice},
    metrics::RestRoute,
};

/// The number of items of a page without `limit`.
const LIMIT_DEFAULT: u64 = 100;

pub(super) fn routes(config: &mut ServiceConfig) {
    let advice = resource("/keep-alive/advice", "GET, HEAD")
        .route(web::get().to(advice))
        .route(web::head().to(advice));
    config.service(advice);
}

/// What is known of a network and a listener. Silences are in seconds.
#[derive(Serialize)]
struct ShownAdvice<'a> {
    network: String,
    listener: &'a str,
    connections: u64,
    survived: ShownSurvived,
    #[serde(skip_serializing_if = "Option::is_none")]
    fatal: Option<ShownFatal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advised_keep_alive: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<&'static str>,
}

#[derive(Serialize)]
struct ShownSurvived {
    p50: u32,
    p90: u32,
    p99: u32,
    max: u32,
}

#[derive(Serialize)]
struct ShownFatal {
    count: u64,
    shortest: u32,
    p50: u32,
}

impl<'a> ShownAdvice<'a> {
    fn of(advice: &'a KeepAliveAdvice) -> Self {
        let KeepAliveAdvice { network, listener, connections, survived, fatal, .. } = advice;
        Self {
            network: network.to_string(),
            listener,
            connections: *connections,
            survived: ShownSurvived {
                p50: survived.p50_secs,
                p90: survived.p90_secs,
                p99: survived.p99_secs,
                max: survived.max_secs,
            },
            fatal: fatal.map(|fatal| ShownFatal {
                count: fatal.count,
                shortest: fatal.shortest_secs,
                p50: fatal.p50_secs,
            }),
            advised_keep_alive: advice.advised_keep_alive_secs,
            certainty: advice.certainty.map(AdviceCertainty::name),
        }
    }
}

async fn advice(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["limit", "cursor", "listener"])?;
        let limit = query.number("limit", 1..=ListKeepAliveAdvice::LIMIT_MAX as u64)?;
        let mut wanted = ListKeepAliveAdvice::new(limit.unwrap_or(LIMIT_DEFAULT) as usize);
        wanted.listener = query.text("listener")?.map(Into::into);
        if let Some(cursor) = query.text("cursor")? {
            wanted.after = Some(place_of(&cursor)?);
        }
        caller.permit(&api, "", &[Action::Observe])?;
        let page = in_time(&api, api.0.control.list_keep_alive_advice(wanted)).await?;
        let items = page.items.iter().map(ShownAdvice::of).collect();
        let next =
            page.next.map(|(address, listener)| cursor::after(&format!("{address} {listener}")));
        Ok(Answer::json(&PageAnswer { items, next }))
    };
    answer(&api, &request, RestRoute::KeepAliveAdvice, call).await
}

fn place_of(cursor: &str) -> Result<(IpAddr, Arc<str>), ApiError> {
    let key = cursor::key_of(cursor)?;
    let place = || {
        let (address, listener) = key.split_once(' ')?;
        Some((address.parse().ok()?, listener.into()))
    };
    place().ok_or_else(cursor::invalid)
}
