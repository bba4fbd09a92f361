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
    asking::{
        NodeAsker,
        answering::{AnsweringNode, AnswersAboutClients},
    },
    life_file::LifeFile,
    mailing::{MailStatus, NodeMail},
    nats::{NatsDoor, NatsSettings},
    node::{ActingLease, ClusterNode, NodeCompany, NodeStatus},
    owning::{ClientOwnership, OwnedSessions, OwnerDriver, OwnersOfNode},
    retaining::{RetainedStatus, RetainedStream},
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
    retained: RetainedStream,
    ownership: ClientOwnership,
    _end: oneshot::Sender<()>,
    _end_of_others: [oneshot::Sender<()>; 2],
}

#[derive(Debug, Default)]
struct SharedMember {
    /// Set when NATS was reached; the other values end the driver of owners, and the answers about clients.
    node: OnceLock<(ClusterNode, [oneshot::Sender<()>; 2])>,
    /// Set together with it.
    asker: OnceLock<Arc<NodeAsker>>,
    /// Why NATS cannot be used yet.
    fault: Mutex<Option<Box<str>>>,
}

impl ClusterMember {
    /// Begins to join, on a thread of its own. The threads of the mail and of retained messages run already,
    /// until their ends are dropped.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        settings: ClusterSettings,
        (mail, end_of_mail): (NodeMail, oneshot::Sender<()>),
        (retained, end_of_retained): (RetainedStream, oneshot::Sender<()>),
        (sessions, answers): (Arc<dyn OwnedSessions>, Arc<dyn AnswersAboutClients>),
    ) -> io::Result<Self> {
        let shared = Arc::new(SharedMember::default());
        let lease = ActingLease::default();
        let (ownership, driver) = ClientOwnership::new(lease.clone());
        // The end of the member drops the sender, which ends the thread.
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared_here, mail_here) = (Arc::clone(&shared), mail.clone());
        let joining = Joining {
            settings,
            lease,
            ownership: ownership.clone(),
            sessions,
            answers,
            shared: shared_here,
            mail: mail_here,
            retained: retained.clone(),
        };
        // A thread of its own, so that the start of the broker does not wait for NATS.
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = joining.join(driver) => {}
                    _ = ended => {}
                }
            });
        };
        thread::Builder::new().name("cluster-join".to_owned()).spawn(run)?;
        let _end_of_others = [end_of_mail, end_of_retained];
        Ok(Self { shared, mail, retained, ownership, _end: end, _end_of_others })
    }

    /// Returns the client identifiers of this node.
    #[must_use]
    pub const fn ownership(&self) -> &ClientOwnership {
        &self.ownership
    }

    /// Returns whether this node may act for clients now.
    #[must_use]
    pub fn may_act(&self) -> bool {
        self.ownership.may_act()
    }

    /// Returns the view of the node; `None` until NATS was reached.
    #[must_use]
    pub fn status(&self) -> Option<NodeStatus> {
        self.shared.node.get().map(|(node, _)| node.status())
    }

    /// Returns what asks the other nodes about clients; `None` until NATS was reached.
    pub(crate) fn asker(&self) -> Option<&Arc<NodeAsker>> {
        self.shared.asker.get()
    }

    /// Returns the mail with the other nodes.
    pub(crate) fn mail(&self) -> MailStatus {
        self.mail.status()
    }

    /// Returns the state of the stream of retained messages.
    pub(crate) fn retained(&self) -> RetainedStatus {
        self.retained.status()
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
    lease: ActingLease,
    ownership: ClientOwnership,
    sessions: Arc<dyn OwnedSessions>,
    answers: Arc<dyn AnswersAboutClients>,
    shared: Arc<SharedMember>,
    mail: NodeMail,
    retained: RetainedStream,
}

impl Joining {
    /// Tries until NATS is reached and the node has begun.
    async fn join(&self, driver: OwnerDriver) {
        let door = loop {
            match NatsDoor::open(&self.settings.nats).await {
                Ok(door) => break Arc::new(door),
                Err(fault) => self.tell(&fault.to_string()),
            }
            sleep(AGAIN_AFTER).await;
        };
        info!(node = %self.settings.nats.node, "NATS is reached");
        match self.begin(&door, driver) {
            Ok(node) => {
                *self.shared.fault() = None;
                drop(self.shared.node.set(node));
            }
            Err(error) => self.tell(&format!("start the threads of the node: {error}")),
        }
    }

    fn begin(
        &self,
        door: &Arc<NatsDoor>,
        driver: OwnerDriver,
    ) -> io::Result<(ClusterNode, [oneshot::Sender<()>; 2])> {
        let file = LifeFile::new(self.settings.directory.clone());
        let node = self.settings.nats.node.clone();
        let company = NodeCompany {
            lease: self.lease.clone(),
            prepared: vec![self.mail.prepared(), driver.prepared(), self.retained.prepared()],
        };
        let begun = ClusterNode::start_in(company, Arc::clone(door) as _, node.clone(), file)?;
        self.mail.join(Arc::clone(door) as _, node.clone(), &begun);
        self.retained.join(Arc::clone(door) as _, node.clone(), &begun);
        let status = begun.follow_status();
        let sessions = Arc::clone(&self.sessions);
        let end_of_answers = AnsweringNode {
            door: Arc::clone(door) as _,
            node: node.clone(),
            watch: begun.watch(),
            lease: self.lease.clone(),
            answers: Arc::clone(&self.answers),
        }
        .start()?;
        let (watch, ownership) = (begun.watch(), self.ownership.clone());
        let asker = NodeAsker::new(Arc::clone(door) as _, node.clone(), watch, ownership);
        drop(self.shared.asker.set(Arc::new(asker)));
        let routes = Arc::new(self.mail.clone());
        let end = driver.start(OwnersOfNode {
            door: Arc::clone(door) as _,
            node,
            status,
            sessions,
            routes,
        })?;
        Ok((begun, [end, end_of_answers]))
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
