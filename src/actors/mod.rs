//! Actors, clocks and byte streams around the pure layers; the only place that knows actix.
//!
//! A [`Registry`] actor a shard maps client identifiers to sessions and to the `Connection`
//! actors of those that are connected. Whatever happens to one client identifier happens on its
//! home shard, in one order, without locks.

mod budget;
mod clock;
mod connection;
mod core;
mod doors;
mod in_process;
mod keeper;
mod logins;
mod messages;
mod outbox;
mod parcel;
mod refusal;
mod registry;
mod shard;
mod system;
mod tail;
mod transport;
mod undelivered;
mod waits;

pub use clock::Clock;
pub(crate) use in_process::InProcess;
pub use in_process::{Received, Subscription};
pub use keeper::SyncPolicy;
pub use messages::{
    Attach, ClientSession, Kick, Kicked, PublishMessage, QueryClient, QueryOnline, QueryOnlineMany,
    Recheck, SetKeepAliveMany, WillRequest,
};
pub use registry::Registry;
pub use transport::{AnyStream, Socket, SocketTransport, Transport};

pub(crate) use self::{
    budget::{Budget, Share},
    core::{Core, CoreParts, ShardHandle},
    keeper::Keeper,
    logins::StoredLogins,
    messages::{
        AcceptedConnect, AcceptedWill, Begin, EnhancedLogin, Quiesce, Restore, Restored, Retire,
        Shutdown,
    },
    outbox::OUTBOX,
    refusal::RefusalAnswer,
    undelivered::deliver_undelivered,
};
pub(crate) use crate::router::Host;
