//! The clients that the broker's double shows.

use async_trait::async_trait;
use hearthmq::{
    auth::Network,
    control::{
        AdviceCertainty, CertificateFacts, ClearQueue, ClearRetained, ClientFilter, ClientPage,
        ClientSession, ClientSummary, ClientViews, ControlError, CountClients, DroppedMessages,
        FatalSilences, FindReceivers, KeepAliveAdvice, KeepAliveAdvicePage, LastEnd, ListClients,
        ListHistory, ListKeepAliveAdvice, ListQueue, ListRetained, ListSubscriptions, Losing,
        MessageProperties, NodeView, PastConnection, QueuePage, QueuePosition, ReceiverPage,
        RetainedPage, RetainedView, SubscribedTo, SubscriptionPage, SubscriptionView,
        SurvivedSilences, TlsFacts, TopicReceiver, WaitingMessage,
    },
    hooks::DisconnectReason,
    limits::Limits,
    metrics::DropReason,
    mqtt::{ProtocolVersion, QoS},
};

use super::world::Fleet;

const CLIENTS: [&str; 5] = ["a/ü", "car-1", "car-2", "secret", "ship"];

#[async_trait]
impl ClientViews for Fleet {
    async fn client(&self, client_id: &str) -> Result<Option<ClientSession>, ControlError> {
        match self.answer(client_id, format!("show {client_id}")).await {
            Err(ControlError::NotOnline) => return Ok(None),
            answer => answer?,
        }
        let mut client = ClientSession::new(client_id, "192.0.2.7:4711".parse().unwrap());
        if client_id == "away" {
            let mut end = LastEnd::new(DisconnectReason::Kicked, 9_000);
            end.by = Some("ops".into());
            client.last_end = Some(end);
            client.expires_at_millis = Some(10_000);
            client.losing = Some(Losing::new(3, 8_000));
            client.oldest_waiting_millis = Some(7_000);
            client.dropped = vec![DroppedMessages::new(DropReason::QueueFull, 3)];
            return Ok(Some(client));
        }
        let mut certificate = CertificateFacts::default();
        certificate.subject = "CN=device-7".into();
        certificate.names = vec!["device-7.example".into()];
        certificate.expires_at_millis = 99;
        client.online = true;
        client.listener = "tls://0.0.0.0:8883".into();
        client.protocol = Some(ProtocolVersion::V5);
        client.tls = Some(TlsFacts::new("1.3", Some(certificate)));
        client.asked_keep_alive_secs = Some(60);
        client.keep_alive_secs = 120;
        client.keep_alive_changed_by = Some("ann".into());
        client.keep_alive_changed_at_millis = Some(5_000);
        client.deadline_millis = Some(180_000);
        client.in_flight_max = Some(64);
        Ok(Some(client))
    }

    async fn list_subscriptions(
        &self,
        request: ListSubscriptions,
    ) -> Result<Option<SubscriptionPage>, ControlError> {
        let ListSubscriptions { client_id, after, limit, .. } = request;
        let after = after.as_deref().unwrap_or("-").to_owned();
        match self.answer(&client_id, format!("subscriptions {client_id} {limit} {after}")).await {
            Err(ControlError::NotOnline) => return Ok(None),
            answer => answer?,
        }
        let found = SubscriptionView::new("a/+", QoS::AtLeastOnce);
        Ok(Some(SubscriptionPage::new(vec![found], Some("a/+".into()))))
    }

    async fn list_keep_alive_advice(
        &self,
        request: ListKeepAliveAdvice,
    ) -> Result<KeepAliveAdvicePage, ControlError> {
        let ListKeepAliveAdvice { listener, after, limit, .. } = request;
        self.answer("", format!("advice {listener:?} {after:?} {limit}")).await?;
        let address = "192.0.2.7".parse().unwrap();
        let advice = KeepAliveAdvice {
            network: Network::around(address, 24),
            listener: "mqtt://a".into(),
            connections: 7,
            survived: SurvivedSilences { p50_secs: 1, p90_secs: 2, p99_secs: 3, max_secs: 4 },
            fatal: Some(FatalSilences { count: 5, shortest_secs: 60, p50_secs: 90 }),
            advised_keep_alive_secs: Some(40),
            certainty: Some(AdviceCertainty::Medium),
        };
        let unknown = KeepAliveAdvice {
            fatal: None,
            advised_keep_alive_secs: None,
            certainty: None,
            ..advice.clone()
        };
        let next = after.is_none().then(|| (address, "mqtt://a".into()));
        Ok(KeepAliveAdvicePage::new(vec![advice, unknown], next))
    }

    async fn list_history(
        &self,
        request: ListHistory,
    ) -> Result<Option<Vec<PastConnection>>, ControlError> {
        let ListHistory { client_id, limit, .. } = request;
        match self.answer(&client_id, format!("history {client_id} {limit}")).await {
            Err(ControlError::NotOnline) => return Ok(None),
            answer => answer?,
        }
        let mut past = PastConnection::new(3, "192.0.2.7:4711".parse().unwrap(), 5_000);
        past.listener = "tls://0.0.0.0:8883".into();
        past.username = Some("ann".into());
        let mut end = LastEnd::new(DisconnectReason::Kicked, 9_000);
        end.by = Some("ops".into());
        past.end = Some(end);
        let mut live = PastConnection::new(4, "[2001:db8::7]:4711".parse().unwrap(), 9_500);
        live.online = true;
        Ok(Some(vec![live, past]))
    }

    async fn list_queue(&self, request: ListQueue) -> Result<Option<QueuePage>, ControlError> {
        let ListQueue { client_id, after, limit, has_payloads, .. } = request;
        let question = format!("queue {client_id} {limit} {after:?} {has_payloads}");
        match self.answer(&client_id, question).await {
            Err(ControlError::NotOnline) => return Ok(None),
            answer => answer?,
        }
        let mut found = WaitingMessage::new("t", QoS::AtLeastOnce, 2);
        (found.received_at_millis, found.age_millis) = (Some(7_000), Some(12));
        found.payload = has_payloads.then(|| b"hi".to_vec().into());
        Ok(Some(QueuePage::new(vec![found], Some(QueuePosition::Stored(7)))))
    }

    async fn clear_queue(&self, request: ClearQueue) -> Result<Option<u64>, ControlError> {
        match self.answer(&request.client_id, format!("clear {}", request.client_id)).await {
            Err(ControlError::NotOnline) => Ok(None),
            answer => answer.map(|()| Some(3)),
        }
    }

    /// Selects by identifier and permission alone; the name of the user selects the behaviour.
    async fn list_clients(&self, request: ListClients) -> Result<ClientPage, ControlError> {
        let ListClients { filter, after, limit, caller, .. } = request;
        let conditions = conditions(&filter);
        let question =
            format!("list {limit} after {}{conditions}", after.as_deref().unwrap_or("-"));
        self.answer(filter.username.as_deref().unwrap_or_default(), question).await?;
        let may_observe =
            |id: &str| caller.as_ref().is_none_or(|caller| caller.may_observe(&*self.policy, id));
        let mut found: Vec<ClientSummary> = CLIENTS
            .into_iter()
            .filter(|id| after.as_deref().is_none_or(|after| *id > after))
            .filter(|id| filter.client_id.as_ref().is_none_or(|pattern| pattern.matches(id)))
            .filter(|id| {
                filter.client_ids.as_ref().is_none_or(|ids| ids.iter().any(|other| **other == **id))
            })
            .filter(|id| may_observe(id))
            .map(|id| {
                let mut client = ClientSummary::new(id, "192.0.2.7:4711".parse().unwrap());
                client.online = true;
                client
            })
            .collect();
        let next = (found.len() > limit).then(|| found[limit - 1].client_id.clone());
        found.truncate(limit);
        Ok(ClientPage::new(found, next))
    }

    async fn find_receivers(&self, request: FindReceivers) -> Result<ReceiverPage, ControlError> {
        let FindReceivers { subscribed_to, after, limit, caller, .. } = request;
        let after = after.as_deref().unwrap_or("-").to_owned();
        let (name, text) = match &subscribed_to {
            SubscribedTo::Topic(topic) => ("topic", topic),
            SubscribedTo::Filter(filter) => ("filter", filter),
            _ => return Err(ControlError::Unavailable),
        };
        let by = caller.and_then(|caller| caller.identity.username).unwrap_or_default();
        self.answer(text, format!("receivers of {name} {text} {limit} {after} by {by}")).await?;
        let mut found = TopicReceiver::new("car-1", true, "here");
        found.qos = Some(QoS::AtLeastOnce);
        let mut shared = TopicReceiver::new("car-2", false, "here");
        shared.shares = vec!["$share/g/a/+".into()];
        Ok(ReceiverPage::new(vec![found, shared], Some("car-2".into())))
    }

    async fn list_retained(&self, request: ListRetained) -> Result<RetainedPage, ControlError> {
        let ListRetained { filter, after, limit, has_payloads, .. } = request;
        let after = after.as_deref().unwrap_or("-").to_owned();
        self.answer(&filter, format!("retained {filter} {limit} {after} {has_payloads}")).await?;
        let mut found = RetainedView::new("a/b", QoS::AtLeastOnce, 2);
        found.payload = has_payloads.then(|| b"hi".to_vec().into());
        Ok(RetainedPage::new(vec![found], Some("a/b".into())))
    }

    async fn retained(&self, topic: &str) -> Result<Option<RetainedView>, ControlError> {
        match self.answer(topic, format!("show {topic}")).await {
            Err(ControlError::NotOnline) => return Ok(None),
            answer => answer?,
        }
        let mut found = RetainedView::new(topic, QoS::AtMostOnce, 2);
        found.payload = Some(b"hi".to_vec().into());
        found.expires_at_millis = Some(9_000);
        let mut properties = MessageProperties::default();
        properties.response_topic = Some("r".into());
        properties.correlation_data = Some(b"\xFFcd".to_vec().into());
        properties.content_type = Some("t".into());
        properties.is_utf8 = true;
        properties.user_properties = vec![("k".into(), "v".into()), ("k".into(), "w".into())];
        found.properties = Some(properties);
        Ok(Some(found))
    }

    async fn clear_retained(&self, request: ClearRetained) -> Result<bool, ControlError> {
        match self.answer(&request.topic, format!("clear {}", request.topic)).await {
            Err(ControlError::NotOnline) => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    async fn node(&self) -> Result<NodeView, ControlError> {
        let mut node = NodeView::new("here", Limits::default());
        (node.started_at_millis, node.now_millis) = (1_000, 61_999);
        (node.shards, node.connections, node.sessions) = (2, 3, 4);
        node.listeners = vec!["mqtt://127.0.0.1:1883".into()];
        Ok(node)
    }

    async fn count_clients(&self, request: CountClients) -> Result<u64, ControlError> {
        let CountClients { filter, caller, .. } = request;
        let mut question = ListClients::new(filter, CLIENTS.len());
        question.caller = caller;
        Ok(self.list_clients(question).await?.clients.len() as u64)
    }
}

/// Returns the conditions of a filter, except the identifiers, as text.
fn conditions(filter: &ClientFilter) -> String {
    let conditions = [
        filter.username.clone(),
        filter.network.map(|network| network.to_string()),
        filter.protocol.map(|level| level.to_string()),
        filter.online.map(|online| online.to_string()),
        filter.listener.clone(),
        filter.keep_alive_secs_min.map(|secs| secs.to_string()),
        filter.keep_alive_secs_max.map(|secs| secs.to_string()),
        filter.idle_secs_min.map(|secs| secs.to_string()),
        filter.queued_min.map(|messages| messages.to_string()),
    ];
    conditions.into_iter().flatten().map(|condition| format!(" {condition}")).collect()
}
