//! Calls of the application meanwhile: messages whose deliveries it waits for, and requests. What hostile
//! clients do with them must add up, and leave nothing.

use std::{sync::Arc, time::Duration};

use actix_rt::task::JoinHandle;
use hearthmq::{
    Broker,
    control::{
        ControlError, Deliveries, DeliveryStage, PublishRequest, RequestReply, WaitForDeliveries,
    },
    mqtt::{Message, PublicationBuilder, QoS, Timestamp},
};

/// Less than the time after which a round is over.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Maximum number of calls of one round.
const CALLS_MAX: usize = 8;

/// The calls of one round.
#[derive(Default)]
pub(crate) struct Calls(Vec<JoinHandle<()>>);

impl Calls {
    /// Begins one call more on a topic, unless there are enough.
    pub(crate) fn begin(&mut self, broker: &Broker, topic: &str) {
        if self.0.len() >= CALLS_MAX {
            return;
        }
        let broker = broker.clone();
        let call = match self.0.len() % 4 {
            0 => wait(broker, message(topic, QoS::AtMostOnce), DeliveryStage::Delivered),
            1 => wait(broker, message(topic, QoS::AtLeastOnce), DeliveryStage::Acknowledged),
            2 => wait(broker, message(topic, QoS::ExactlyOnce), DeliveryStage::Acknowledged),
            _ => ask(broker, topic),
        };
        self.0.push(call);
    }

    /// Ends all of them.
    pub(crate) async fn end(self) {
        for call in self.0 {
            call.await.expect("a call ends");
        }
    }
}

fn message(topic: &str, qos: QoS) -> Arc<Message> {
    let message = PublicationBuilder::new(topic, "call").qos(qos);
    Arc::new(message.build(Timestamp(0)).expect("the topic is one"))
}

fn wait(broker: Broker, message: Arc<Message>, stage: DeliveryStage) -> JoinHandle<()> {
    actix_rt::spawn(async move {
        let wait = WaitForDeliveries::new(stage, TIME_MAX);
        let request = PublishRequest::new(message).waiting(wait);
        let published = broker.publish_counted(request).await.expect("it is published");
        let deliveries = published.deliveries.expect("the call has waited");
        let Deliveries { delivered, acknowledged, queued, dropped, is_complete, .. } = deliveries;
        let adds_up = delivered + queued + dropped == published.matched
            && acknowledged <= delivered
            && (queued == 0 || !is_complete);
        assert!(adds_up, "{published:?}");
    })
}

fn ask(broker: Broker, topic: &str) -> JoinHandle<()> {
    let response_topic = broker.new_response_topic();
    let message = PublicationBuilder::new(topic, "ask").response_topic(&response_topic);
    let message = message.correlation_data("cd").build(Timestamp(0)).expect("the topic is one");
    let request = RequestReply::new(Arc::new(message), TIME_MAX).expect("it has both");
    actix_rt::spawn(async move {
        match broker.request(request).await {
            Ok(reply) => assert_eq!(reply.message.topic(), response_topic),
            Err(error) => assert_eq!(error, ControlError::Timeout),
        }
    })
}
