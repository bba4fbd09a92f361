//! The actix shell around the shards: registries, connections, and the messages that they handle.
//!
//! A [`Registry`] actor for each shard maps Client Identifiers to the `Connection` actors of
//! connected clients; there is one `Connection` actor for each connection. Everything that happens
//! to one Client Identifier happens on its home shard, in one order, without locks. Only this
//! module and the layers above it know actix.

mod connection;
mod messages;
mod registry;

pub use messages::{QueryClient, QueryOnline};
pub use registry::Registry;

#[cfg(feature = "cluster")]
pub(crate) use self::registry::{
    AdoptSession, AppendRest, DropSession, FenceShard, GiveUpOrder, ListLasting, OfferClient,
    ReadRest,
};
pub(crate) use self::registry::{FollowTrace, OfUser, QueryOnlinePart};

pub(crate) use self::messages::{
    Begin, PublishMessage, QueryOnlineMany, Quiesce, Recheck, Restore, Restored, Retire,
    SetKeepAliveMany, Shutdown,
};
pub(crate) use crate::shard::calls::publishing::WhileAwaited;
pub use crate::{
    control::ClientSession,
    durable::SyncPolicy,
    shard::{in_process::Received, subscription::Subscription},
};
