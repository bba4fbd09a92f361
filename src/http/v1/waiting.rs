//! Calls that publish and wait for what becomes of their messages.
//!
//! The connection of a call ends with its caller. The broker then forgets the call, and its place among
//! the calls that wait is free. A call with an `Idempotency-Key` goes on and keeps its place.

use std::{rc::Rc, time::Duration};

use actix_web::{HttpRequest, rt::time::timeout, web::Data};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        Api, ApiError,
        admission::HttpCaller,
        live::{ReplaceableCall, ServerEnding},
        shares::OwnShare,
    },
    target::Query,
};
use crate::control::{
    DELIVERY_WAIT_MAX, Deliveries, DeliveryStage, PublishRequest, Published, WaitForDeliveries,
};

/// The parameters of a wait.
pub(super) const WAIT: &str = "wait";
pub(super) const TIMEOUT: &str = "timeout_ms";
/// How long a call waits that does not say so.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// The deliveries that a call waits for, and the longest wait.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described here")]
pub(super) struct WaitParameters {
    /// `stored`, `delivered` or `acknowledged`: answer when each matching session has come so far.
    #[param(pattern = "^(stored|delivered|acknowledged)$")]
    wait: Option<String>,
    /// How long to wait, in milliseconds; needs `wait`.
    #[param(minimum = 1, maximum = 60_000, default = 5_000)]
    timeout_ms: Option<u64>,
}

/// Parses what a call waits for; `None` if it does not wait.
pub(super) fn wait_in(query: &Query<'_>) -> Result<Option<WaitForDeliveries>, ApiError> {
    let stage =
        query.value(WAIT, "must be stored, delivered or acknowledged", |text| match text {
            "stored" => Some(DeliveryStage::Stored),
            "delivered" => Some(DeliveryStage::Delivered),
            "acknowledged" => Some(DeliveryStage::Acknowledged),
            _ => None,
        })?;
    let time_max = timeout_in(query)?;
    match (stage, time_max) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ApiError::missing_parameter(WAIT)),
        (Some(stage), time_max) => {
            Ok(Some(WaitForDeliveries::new(stage, time_max.unwrap_or(TIMEOUT_DEFAULT))))
        }
    }
}

/// Parses how long a call waits.
pub(super) fn time_in(query: &Query<'_>) -> Result<Duration, ApiError> {
    Ok(timeout_in(query)?.unwrap_or(TIMEOUT_DEFAULT))
}

fn timeout_in(query: &Query<'_>) -> Result<Option<Duration>, ApiError> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 60,000")]
    let max = DELIVERY_WAIT_MAX.as_millis() as u64;
    Ok(query.number(TIMEOUT, 1..=max)?.map(Duration::from_millis))
}

/// The outcomes of the deliveries of one message.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = Deliveries)]
pub(super) struct ShownDeliveries {
    /// The number of sessions for which it is stored.
    #[schema(required = false)]
    stored: usize,
    /// The number of clients to which it was sent.
    #[schema(required = false)]
    delivered: usize,
    /// The number of clients that have acknowledged it.
    #[schema(required = false)]
    acknowledged: usize,
    /// The number of absent clients for which it waits.
    #[schema(required = false)]
    queued: usize,
    /// The number of sessions for which it was dropped.
    #[schema(required = false)]
    dropped: usize,
}

impl From<Deliveries> for ShownDeliveries {
    fn from(deliveries: Deliveries) -> Self {
        let Deliveries { stored, delivered, acknowledged, queued, dropped, .. } = deliveries;
        Self { stored, delivered, acknowledged, queued, dropped }
    }
}

/// Enters the calls that wait, if this one does.
pub(super) fn enter(
    api: &Api,
    caller: &HttpCaller,
    wait: Option<WaitForDeliveries>,
) -> Result<Option<Rc<OwnShare>>, ApiError> {
    wait.map(|_| enter_one(api, caller).map(Rc::new)).transpose()
}

/// Enters the calls that wait.
pub(super) fn enter_one(api: &Api, caller: &HttpCaller) -> Result<OwnShare, ApiError> {
    api.0.waiting.enter(api.options().waiting_max, caller)
}

/// Publishes a message, and waits as long as its request says.
pub(super) async fn publish(
    api: &Data<Api>,
    request: PublishRequest,
    place: Option<Rc<OwnShare>>,
) -> Result<Published, ApiError> {
    let time = api.options().call_timeout;
    let Some(wait) = request.wait else {
        return super::in_time(api, api.0.control.publish(request)).await;
    };
    // The broker forgets a call whose caller leaves.
    let _place = place;
    // The broker answers when the wait is over; the time of a call is added for its answer.
    match timeout(time + wait.time_max, api.0.control.publish(request)).await {
        Ok(published) => Ok(published?),
        Err(_) => Err(ApiError::timeout()),
    }
}

/// Waits for the answer to a call, unless the server begins to stop. If the call `waits` for others, its
/// connection ends when the caller leaves.
pub(super) async fn unless_ending<T>(
    request: &HttpRequest,
    waits: bool,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let _awaited = waits.then(|| ReplaceableCall::begin(request));
    let Some(ServerEnding(ending)) = request.conn_data() else { return answer.await };
    tokio::select! {
        biased;
        answer = answer => answer,
        () = ending.cancelled() => Err(ApiError::unavailable()),
    }
}
