//! A broker joins a cluster: it tries to reach NATS without a time limit, and then begins its lives as a node.
//!
//! So a broker starts without NATS too, and joins later. Knows neither clients nor messages. Called by the
//! broker.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use tokio::{sync::oneshot, time::sleep};
use tracing::{error, info};

use super::{
    life_file::LifeFile,
    mailing::{MailStatus, NodeMail},
    nats::{NatsDoor, NatsSettings},
    node::{ClusterNode, NodeStatus},
};

/// Time between two attempts to use NATS.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How a broker joins a cluster.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// How it reaches NATS, and its name.
    pub nats: NatsSettings,
    /// The directory that keeps its incarnation: the one of its data.
    pub directory: PathBuf,
}

/// The part of a broker that is a member of a cluster. When it is dropped, the broker leaves: it renews no
/// lease, and the others declare it dead.
#[derive(Debug)]
pub struct ClusterMember {
    shared: Arc<SharedMember>,
    mail: NodeMail,
    _end: oneshot::Sender<()>,
    _end_of_mail: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct SharedMember {
    /// Set when NATS was reached.
    node: OnceLock<ClusterNode>,
    /// Why NATS cannot be used yet.
    fault: Mutex<Option<Box<str>>>,
}

impl ClusterMember {
    /// Begins to join, on a thread of its own. The thread of the mail runs already, until `end_of_mail` is
    /// dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        settings: ClusterSettings,
        mail: NodeMail,
        end_of_mail: oneshot::Sender<()>,
    ) -> io::Result<Self> {
        let shared = Arc::new(SharedMember::default());
        // The end of the member drops the sender, which ends the thread.
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let joining = Joining { settings, shared: Arc::clone(&shared), mail: mail.clone() };
        // A thread of its own, so that the start of the broker does not wait for NATS.
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = joining.join() => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-join".to_owned()).spawn(run)?;
        Ok(Self { shared, mail, _end: end, _end_of_mail: end_of_mail })
    }

    /// Returns whether this node may act for clients now.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.shared.node.get().is_some_and(ClusterNode::may_act)
    }

    /// Returns the view of the node; `None` until NATS was reached.
    #[must_use]
    pub fn status(&self) -> Option<NodeStatus> {
        self.shared.node.get().map(ClusterNode::status)
    }

    /// Returns the mail with the other nodes.
    pub(crate) fn mail(&self) -> MailStatus {
        self.mail.status()
    }

    /// Returns why NATS cannot be used yet.
    #[must_use]
    pub fn fault(&self) -> Option<Box<str>> {
        self.shared.fault().clone()
    }
}

impl SharedMember {
    fn fault(&self) -> std::sync::MutexGuard<'_, Option<Box<str>>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Joining {
    settings: ClusterSettings,
    shared: Arc<SharedMember>,
    mail: NodeMail,
}

impl Joining {
    /// Tries until NATS is reached and the node has begun.
    async fn join(&self) {
        loop {
            match self.attempt().await {
                Ok(node) => {
                    *self.shared.fault() = None;
                    info!(node = %self.settings.nats.node, "NATS is reached");
                    drop(self.shared.node.set(node));
                    return;
                }
                Err(fault) => self.tell(&fault),
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn attempt(&self) -> Result<ClusterNode, String> {
        let door = NatsDoor::open(&self.settings.nats).await.map_err(|fault| fault.to_string())?;
        let file = LifeFile::new(self.settings.directory.clone());
        let node = self.settings.nats.node.clone();
        let door = Arc::new(door);
        let (to_node, name) = (Arc::clone(&door), node.clone());
        let started = ClusterNode::start_prepared(to_node, name, file, Some(self.mail.prepared()));
        let started = started.map_err(|error| format!("start the thread of the node: {error}"))?;
        self.mail.join(door, node, &started);
        Ok(started)
    }

    /// Logs a fault if it differs from the last one.
    fn tell(&self, fault: &str) {
        let mut last = self.shared.fault();
        if last.as_deref() != Some(fault) {
            *last = Some(fault.into());
            error!(
                reason = fault,
                "the cluster is not joined yet; see [cluster] and the NATS servers"
            );
        }
    }
}
