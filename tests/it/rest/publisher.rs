//! The double that publishes messages of callers, and replies for devices.

use std::sync::Arc;

use async_trait::async_trait;
use hearthmq::{
    control::{
        ControlError, Deliveries, DeliveryStage, DeviceReply, PublishRequest, Published,
        Publishing, RequestReply, WaitForDeliveries,
    },
    mqtt::{PublicationBuilder, QoS, Timestamp},
};

use super::world::Fleet;

#[async_trait]
impl Publishing for Fleet {
    async fn publish(&self, request: PublishRequest) -> Result<Published, ControlError> {
        let publication = request.message.publication();
        let payload = String::from_utf8_lossy(publication.payload);
        let retained = if publication.retain { " retained" } else { "" };
        let (topic, qos) = (publication.topic, publication.qos.number());
        let bytes = publication.properties.len();
        let question = format!("{topic} {qos}{retained} {bytes} bytes: {payload}");
        self.asked.lock().unwrap().push(question);
        match topic {
            "full" => Err(ControlError::RetainedFull),
            "large" => Err(ControlError::MessageTooLarge),
            "deep" => Err(ControlError::TopicOverLimits),
            "stuck" => std::future::pending().await,
            "crowded" => Err(ControlError::TooManyDeliveries),
            _ => Ok(match request.wait {
                None => Published::new("here", 7),
                Some(wait) => Published::new("here", 7).with(deliveries(topic, wait)),
            }),
        }
    }

    /// Replies with a property, unless the topic says something else.
    async fn request(&self, request: RequestReply) -> Result<DeviceReply, ControlError> {
        let topic = request.message.topic();
        let (on, data) = (&request.response_topic, &request.correlation_data);
        let data = String::from_utf8_lossy(data);
        let (by, millis) = (request.by.as_deref().unwrap_or("-"), request.time_max.as_millis());
        let question = format!("{topic} by {by} for {millis}: {on} {data}");
        self.asked.lock().unwrap().push(question);
        match topic {
            "silent" => return Err(ControlError::Timeout),
            "unheard" => return Err(ControlError::NoSubscriber),
            "busy" => return Err(ControlError::Unavailable),
            "stuck" => std::future::pending().await,
            _ => {}
        }
        let payload: &[u8] = if topic == "binary" { b"\xFF\x00" } else { "21 °C".as_bytes() };
        let reply = PublicationBuilder::new("r", payload).qos(QoS::AtLeastOnce);
        let reply = reply.content_type("text/plain").user_property("k", "v");
        let client_id = (topic != "by-caller").then(|| "device".into());
        let reply = Arc::new(reply.build(Timestamp(0)).unwrap());
        Ok(DeviceReply::new("here", reply, client_id))
    }

    fn new_response_topic(&self) -> String {
        "own/1".into()
    }
}

/// Only of a message on `late` not all deliveries come as far as the call wants.
fn deliveries(topic: &str, wait: WaitForDeliveries) -> Deliveries {
    let mut deliveries = Deliveries::default();
    deliveries.stored = 4;
    deliveries.delivered = if wait.stage == DeliveryStage::Stored { 0 } else { 5 };
    deliveries.acknowledged = usize::try_from(wait.time_max.as_millis()).unwrap();
    deliveries.queued = 2;
    deliveries.is_complete = topic != "late";
    deliveries
}
