//! Mail and questions between nodes.

use std::time::Duration;

use futures_util::StreamExt as _;
use hearthmq::internals::cluster::door::{Address, Nats as _, NatsAskError};
use hearthmq_test::nats::NatsServers;
use tokio::time::timeout;

use crate::support::{PATIENCE, WRITE, node, open, until};

#[tokio::test]
async fn mail_arrives_in_the_order_of_its_sender_and_at_one_incarnation() {
    let Some(servers) = NatsServers::start(1) else { return };
    let (sender, receiver) = (open(&servers, "a").await, open(&servers, "b").await);
    let to = Address::Mail(node("b"));
    let (mut now, mut former) = (receiver.subscribe(&to, 2), receiver.subscribe(&to, 1));
    let mut all = receiver.subscribe(&Address::All, 2);
    // The subscription of the receiver is with the server when its question is answered.
    let questions = receiver.questions(&node("b"), 2);
    let serving = async {
        questions
            .for_each(async |question| {
                let answer = [b"to ", &question.payload[..]].concat();
                receiver.answer(&question, answer.into()).await.unwrap();
            })
            .await
    };
    let asking = async {
        let answer = until(async || sender.ask(&node("b"), 2, "b".into(), WRITE).await.ok()).await;
        assert_eq!(&answer[..], b"to b");
        for number in 0..1_000_u32 {
            let payload = number.to_string().into();
            sender.publish(&to, 2, payload).await.unwrap();
        }
        sender.publish(&to, 1, "former".into()).await.unwrap();
        sender.publish(&Address::All, 7, "all".into()).await.unwrap();
        for number in 0..1_000_u32 {
            let mail = timeout(PATIENCE, now.next()).await.unwrap().unwrap();
            assert_eq!(mail, number.to_string());
        }
        assert_eq!(timeout(PATIENCE, former.next()).await.unwrap().unwrap(), "former");
        assert_eq!(timeout(PATIENCE, all.next()).await.unwrap().unwrap(), "all");
        let nobody = sender.ask(&node("b"), 3, "b".into(), WRITE).await;
        assert_eq!(nobody, Err(NatsAskError::Unreachable));
    };
    tokio::select! {
        () = serving => panic!("it serves on"),
        () = asking => {}
    }
}

#[tokio::test]
async fn a_question_without_an_answer_ends_in_time_and_without_nats_immediately() {
    let Some(mut servers) = NatsServers::start(1) else { return };
    let (sender, receiver) = (open(&servers, "a").await, open(&servers, "b").await);
    assert_eq!(sender.payload_bytes_max(), 1_048_576);
    let _silent = receiver.questions(&node("b"), 1);
    let short = Duration::from_millis(50);
    until(async || {
        let outcome = sender.ask(&node("b"), 1, "?".into(), short).await.unwrap_err();
        (outcome == NatsAskError::Timeout).then_some(())
    })
    .await;
    servers.kill(0);
    until(async || (!sender.is_connected()).then_some(())).await;
    let unreachable = NatsAskError::Unreachable;
    assert_eq!(sender.ask(&node("b"), 1, "?".into(), PATIENCE).await, Err(unreachable));
    assert_eq!(sender.publish(&Address::All, 1, "!".into()).await, Err(unreachable));
    servers.start_again(0);
    // The subscription of the receiver is there again without its doing.
    until(async || {
        let outcome = sender.ask(&node("b"), 1, "?".into(), short).await.unwrap_err();
        (outcome == NatsAskError::Timeout).then_some(())
    })
    .await;
}
