//! `GET /api/v1/keep-alive/advice`: what connections have survived, and the Keep Alive that it
//! suggests.
//!
//! Needs `observe` for any client.

use std::{net::IpAddr, pin::pin, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    super::{
        Api,
        admission::{self, CallEffect},
        calls::answer,
        failures::{Caller, Fails, Parameters, Permission},
    },
    cursor, in_time,
    page::{AskedPage, PageAnswer},
    resource,
    target::Query,
};
use crate::{
    auth::Action,
    control::{AdviceCertainty, KeepAliveAdvice, ListKeepAliveAdvice},
    metrics::RestRoute,
};

pub(super) fn routes(config: &mut ServiceConfig) {
    let advice = resource("/keep-alive/advice", "GET, HEAD")
        .route(web::get().to(advice))
        .route(web::head().to(advice));
    config.service(advice);
}

/// Measurements of the connections from a network to a listener. Silences are in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = KeepAliveAdvice)]
struct ShownAdvice<'a> {
    /// The network: a /24 of IPv4, a /48 of IPv6.
    network: String,
    /// The URL of the listener.
    listener: &'a str,
    /// The connections that have ended since the broker started.
    connections: u64,
    /// The longest silences that connections survived.
    survived: ShownSurvived,
    /// The silences after which the network was gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    fatal: Option<ShownFatal>,
    /// The advised Keep Alive; absent if too little is known.
    #[schema(minimum = 30, maximum = 1200)]
    #[serde(skip_serializing_if = "Option::is_none")]
    advised_keep_alive: Option<u16>,
    /// `low`, `medium` or `high`: how many connections have survived a silence of that length.
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<&'static str>,
}

/// The longest silence of each connection, in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = SurvivedSilences)]
struct ShownSurvived {
    /// Half of the connections have at most this one.
    p50: u32,
    /// 90% have at most this one.
    p90: u32,
    /// 99% have at most this one.
    p99: u32,
    /// The longest one.
    max: u32,
}

/// The silences after which the network was gone, in seconds.
#[derive(Serialize, ToSchema)]
#[schema(as = FatalSilences)]
struct ShownFatal {
    /// Their number.
    count: u64,
    /// The shortest one.
    shortest: u32,
    /// Half of them have at most this length.
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

/// Advises a Keep Alive, from the silences that connections survived, by network and listener.
#[utoipa::path(
    get, path = "/keep-alive/advice", tag = "keep-alive", operation_id = "keepAliveAdvice",
    params(
        ("limit" = Option<u64>, Query, description = "Maximum number of items of the page.",
         minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before."),
        ("listener" = Option<String>, Query,
         description = "Only connections of the listener with this URL."),
    ),
    responses(
        (status = 200, description = "A page of what is known.",
         body = PageAnswer<ShownAdvice<'static>>,
         example = json!({"items": [{"network": "192.0.2.0/24", "listener": "mqtt://0.0.0.0:1883",
            "connections": 412, "survived": {"p50": 128, "p90": 256, "p99": 256, "max": 287},
            "fatal": {"count": 31, "shortest": 300, "p50": 512},
            "advised_keep_alive": 256, "certainty": "medium"}]})),
        Fails<(Caller, Permission, Parameters)>,
    ),
)]
pub(super) async fn advice(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let call = async {
        let caller = admission::admit(&api, &request, CallEffect::Looks).await?;
        let query = Query::parse(request.query_string(), &["limit", "cursor", "listener"])?;
        let asked = AskedPage::within(&query, ListKeepAliveAdvice::LIMIT_MAX as u64)?;
        let mut wanted = ListKeepAliveAdvice::new(asked.limit);
        wanted.listener = query.text("listener")?.map(Into::into);
        wanted.after = asked.place(place_of)?;
        caller.permit(&api, "", &[Action::Observe])?;
        let mut text = asked.begin(&api, &caller)?;
        let page = in_time(&api, api.0.control.list_keep_alive_advice(wanted)).await?;
        page.items.iter().try_for_each(|advice| text.push(&ShownAdvice::of(advice)))?;
        let key = |(address, listener)| cursor::after(&format!("{address} {listener}"));
        Ok(text.end(page.next.map(key)))
    };
    answer(&api, &request, RestRoute::KeepAliveAdvice, pin!(call)).await
}

fn place_of(key: &str) -> Option<(IpAddr, Arc<str>)> {
    let (address, listener) = key.split_once(' ')?;
    Some((address.parse().ok()?, listener.into()))
}
