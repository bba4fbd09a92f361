//! Situations that arise only if several shards act at the same moment, here forced on one shard.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    time::sleep,
};

use super::Broker;
use crate::{
    auth::AllowAll,
    limits::{Limits, QueueFull},
    mqtt::QoS,
};

/// Maximum number of messages in the queue of a client.
const QUEUE: usize = 32;

/// A stream that calls `on_write` whenever the broker writes to it.
struct Hooked<F> {
    stream: DuplexStream,
    on_write: F,
}

impl<F: Unpin> AsyncRead for Hooked<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(task, buffer)
    }
}

impl<F: Fn() + Unpin> AsyncWrite for Hooked<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        (self.on_write)();
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}

/// Connects a client with this name and Receive Maximum, which subscribes to the topic of its name.
async fn subscriber(
    broker: &Broker,
    name: u8,
    receive_maximum: u8,
    on_write: impl Fn() + Send + Unpin + 'static,
) -> DuplexStream {
    let (mut here, stream) = duplex(1 << 20);
    let broker = broker.clone();
    actix_rt::spawn(async move {
        let peer = "192.0.2.7:40000".parse().expect("it is an address");
        broker.serve(Hooked { stream, on_write }, peer).await;
    });
    let mut bytes = b"\x10\x11\x00\x04MQTT\x05\x02\x00\x00\x03\x21\x00".to_vec();
    bytes.extend([receive_maximum, 0, 1, name]);
    bytes.extend([0x82, 7, 0, 1, 0, 0, 1, name, 1]);
    here.write_all(&bytes).await.expect("the broker is there");
    sleep(Duration::from_secs(1)).await;
    here
}

/// Fills a client's in-flight window and its queue.
async fn fill(broker: &Broker, topic: &'static str, in_flight: usize, payload: Vec<u8>) {
    let broker = broker.clone();
    actix_rt::spawn(async move {
        for _ in 0..in_flight + QUEUE {
            let published = broker.publish(topic, &payload, QoS::AtLeastOnce, false);
            published.await.expect("the broker is there");
        }
    });
    sleep(Duration::from_secs(1)).await;
}

/// The publisher's own output makes room in its own queue. Its shard then looks at held publishers,
/// among them this one, whose reason to be held has just ended.
#[actix_rt::test]
async fn who_need_be_held_no_longer_while_it_is_at_work_goes_on() {
    tokio::time::pause();
    let limits = Limits {
        queue_full: QueueFull::HoldPublisher,
        queue_messages_per_client_max: QUEUE as u32,
        queue_hold_secs_max: 1000,
        ..Limits::default()
    };
    let builder = Broker::builder().on_current_arbiter().limits(limits);
    let builder = builder.authenticator(AllowAll).authorizer(AllowAll);
    let broker = builder.start().await.expect("there is nothing in the way");

    let _full = subscriber(&broker, b'f', 1, || ()).await;
    fill(&broker, "f", 1, b"x".to_vec()).await;
    let has_room = Arc::new(AtomicBool::new(false));
    let make_room = {
        let (core, has_room) = (broker.running.core.clone(), has_room.clone());
        move || {
            if has_room.load(Ordering::Relaxed) {
                core.waits.end(core.index.plan("f").targets()[0].place);
            }
        }
    };
    let mut publisher = subscriber(&broker, b'p', 3, make_room).await;
    // One message is written at a time, and two are a sixteenth of the queue.
    fill(&broker, "p", 3, vec![0; 70_000]).await;
    assert_eq!(broker.client("p").await.ok().flatten().map(|c| c.queued), Some(QUEUE));
    has_room.store(true, Ordering::Relaxed);
    let acknowledgements = b"\x40\x02\x00\x01\x40\x02\x00\x02\x40\x02\x00\x03";
    let to_the_full = b"\x32\x07\x00\x01f\x00\x01\x00x";
    let bytes = [&acknowledgements[..], to_the_full].concat();
    publisher.write_all(&bytes).await.expect("the broker is there");
    sleep(Duration::from_secs(1)).await;
    let metrics = broker.metrics().shard(0);
    assert_eq!(metrics.publisher_holds.of(crate::metrics::HoldReason::SubscriberFull).value(), 1);
    assert_eq!(metrics.messages_received[1].value(), 1);
}
