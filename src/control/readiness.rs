//! The state of the broker itself, for health checks.

use super::ClusterView;

/// The state of the broker itself.
pub trait Readiness: Send + Sync + 'static {
    /// Returns whether the broker accepts clients and callers; false during shutdown.
    fn is_ready(&self) -> bool {
        true
    }

    /// Returns whether durable messages are accepted: whether the store can be written.
    fn is_storing(&self) -> bool {
        true
    }

    /// Returns the cluster of which the broker is a member; `None` without one.
    fn cluster(&self) -> Option<ClusterView> {
        None
    }
}
