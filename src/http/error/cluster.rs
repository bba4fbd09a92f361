//! The errors of calls about clients of other nodes of a cluster.

use actix_web::http::StatusCode;

use super::{Advice, ApiError, RETRY_UNAVAILABLE_SECS};

impl ApiError {
    /// The node that has the client lives, and has not answered in time.
    pub(super) fn node_unreachable() -> Self {
        let message = "The node of the cluster that has the client does not answer in time; a change \
                       may have been made.";
        Self::of_cluster("node_unreachable", message)
    }

    /// The session is on a node that does not serve.
    pub(super) fn node_down() -> Self {
        let message = "The session of the client is on a node of the cluster that is dead, or has not \
                       joined again.";
        Self::of_cluster("node_down", message)
    }

    /// The broker does not know where the client is.
    pub(super) fn cluster_unavailable() -> Self {
        let message =
            "The broker does not serve in its cluster now; try again, or ask another one.";
        Self::of_cluster("cluster_unavailable", message)
    }

    fn of_cluster(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
            .advising(Advice::RetryAfter(RETRY_UNAVAILABLE_SECS))
    }
}
