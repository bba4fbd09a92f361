//! Two clients, of which one publishes a message each millisecond and the other receives it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hearthmq::{Broker, mqtt::Packet};
use hearthmq_test::packets::{QOS_0, V3_1_1, encoded, filter, publish, subscribe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fleet::connect;

/// An echo that goes on until it is asked for its times.
pub(crate) struct Echo {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Echo {
    pub(crate) async fn begin(broker: &Broker) -> Self {
        let mut publisher = connect(broker, "echo-publisher").await;
        let mut subscriber = connect(broker, "echo-subscriber").await;
        subscriber
            .write_all(&encoded(&subscribe(1, vec![filter("echo", QOS_0)]), V3_1_1))
            .await
            .unwrap();
        subscriber.read_exact(&mut [0; 5]).await.unwrap();
        let message = encoded(&Packet::Publish(publish("echo", "x")), V3_1_1);
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let run = move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (mut took, mut buffer) = (Vec::new(), vec![0; message.len()]);
                while !until.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    publisher.write_all(&message).await.unwrap();
                    subscriber.read_exact(&mut buffer).await.unwrap();
                    took.push(began.elapsed());
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                took
            })
        };
        // On a thread of its own with a name, by which its CPU time is left out.
        let thread = std::thread::Builder::new().name("client-echo".into()).spawn(run).unwrap();
        Self { is_over, thread }
    }

    /// Ends the echo; returns the 99th percentile of its times.
    pub(crate) async fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        while !self.thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut took = self.thread.join().unwrap();
        took.sort_unstable();
        took[took.len() * 99 / 100]
    }
}

/// Returns the 99th percentile of an echo that has the broker for itself.
pub(crate) async fn alone(broker: &Broker, time: Duration) -> Duration {
    let echo = Echo::begin(broker).await;
    tokio::time::sleep(time).await;
    echo.end().await
}
