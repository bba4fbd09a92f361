//! Performs each step with the clients, and reports it to the model.

use hearthmq::{
    hooks::DisconnectReason,
    mqtt::{
        Connect, ConnectProperties, Disconnect, DisconnectProperties, LastWill, Packet,
        ProtocolVersion::V5, PublishProperties, QoS, ReasonCode, Subscribe, SubscribeFilter,
        SubscribeProperties, SubscriptionOptions, Unsubscribe, UserProperties, WillProperties,
        encode,
    },
};

use crate::{
    access::Undecided,
    client::{Outbound, Says, id, publish},
    line::Line,
    model::{Connected, End, Reply, Sent, Verdict, Will},
    steps::{How, Misdeed, Size, Step, What, WillHow},
    vocabulary::{FILTERS, NAMES, TOPICS, USERS, WILL_TOPICS},
    world::World,
};

/// Capacity of a pipe, and of a narrow one.
const PIPE_BYTES: usize = 64 * 1024;
const NARROW_PIPE_BYTES: usize = 4096;
/// A small Maximum Packet Size: small messages fit, large ones do not.
const SMALL_PACKET_BYTES: u32 = 200;

impl World {
    pub(crate) async fn play(&mut self, step: &Step) -> Verdict {
        let is_there = step.client().is_none_or(|client| self.model.link(client).is_some());
        match *step {
            Step::Connect { client, ref how } => self.connect(client, how).await,
            Step::SetKeepAlive { client, secs } => self.set_keep_alive(client, secs).await,
            Step::ChangeSettings { client, in_flight_max, expiry_secs, removes } => {
                self.change_settings(client, (in_flight_max, expiry_secs), removes).await
            }
            Step::Ban { ban, secs } => self.ban(ban, secs).await,
            Step::LiftBan { ban } => self.lift_ban(ban).await,
            Step::ChangeRule { rule, adds: true } => self.put_rule(rule).await,
            Step::ChangeRule { rule, adds: false } => self.remove_rule(rule).await,
            Step::ChangeToken { token, adds: true } => self.create_token(token).await,
            Step::ChangeToken { token, adds: false } => self.remove_token(token).await,
            Step::UseTokens => self.use_tokens().await,
            Step::Deny { client, nth } => self.deny(client, nth).await,
            Step::SlowDown { client } => Box::pin(self.slow_down(client)).await,
            Step::LookBack { client } => self.look_back(client).await,
            Step::Follow { follower, items, to_end } => self.follow(follower, items, to_end).await,
            Step::Kick { client, end_session, will } => self.kick(client, end_session, will).await,
            Step::HostPublish { what } => self.host_publish(what).await,
            Step::Wait { millis } => self.let_time_pass(millis).await,
            Step::Crash { ref during, turns, read, loses, denied, held, homes } => {
                self.hold_back(held);
                self.crash(during.as_deref(), turns, read, loses).await?;
                self.begin_again(denied, homes).await
            }
            Step::Cross { ref first, turns, ref second, held } => {
                Box::pin(self.cross((first, second), turns, held)).await
            }
            Step::Fail { fails } => self.fail(fails).await,
            _ if !is_there => {
                self.count("skipped");
                Ok(())
            }
            Step::Subscribe { client, ref asked, identifier } => {
                self.subscribe(client, asked, identifier).await
            }
            Step::Unsubscribe { client, filter } => self.unsubscribe(client, FILTERS[filter]).await,
            Step::Publish { client, what, times, alias } => {
                for _ in 0..times {
                    self.publish(client, what, alias).await?;
                }
                Ok(())
            }
            Step::Continue { client, nth, refuse } => self.answer(client, nth, refuse).await,
            Step::ContinueAll { client } => self.answer_all(client).await,
            Step::Answers { client, at_once } => {
                self.clients[client].answers_at_once = at_once;
                if at_once { self.answer_all(client).await } else { Ok(()) }
            }
            Step::Reads { client, reads } => {
                self.count(if reads { "reads" } else { "reads no more" });
                self.clients[client].reads = reads;
                Ok(())
            }
            Step::Halve { client, at } => {
                self.clients[client].halve = Some(at);
                Ok(())
            }
            Step::Ping { client } => self.ping(client).await,
            Step::Disconnect { client, with_will, expiry_secs } => {
                self.disconnect(client, with_will, expiry_secs).await
            }
            Step::Cut { client, read, sent, qos } => self.cut(client, read, sent, qos).await,
            Step::Misbehave { client, how } => self.misbehave(client, how).await,
        }
    }

    async fn ping(&mut self, client: usize) -> Verdict {
        self.count("PINGREQ");
        self.send(client, &Packet::PingReq).await?;
        self.affect(move |model| {
            model.heard(client);
            model.expect(client, Reply::PingResp);
        });
        Ok(())
    }

    async fn let_time_pass(&mut self, millis: u64) -> Verdict {
        self.count("time passed");
        self.wait(millis).await
    }

    pub(crate) async fn connect(&mut self, client: usize, how: &How) -> Verdict {
        self.look_at_store().await;
        let is_v5 = how.version == V5;
        let will = how.will.as_ref().map(|will| self.will(client, will, is_v5));
        let properties = ConnectProperties {
            session_expiry_interval: how.expiry_secs,
            receive_maximum: how.receive_maximum,
            maximum_packet_size: how.is_small.then_some(SMALL_PACKET_BYTES),
            // None, or enough for all topics.
            topic_alias_maximum: how.has_aliases.then_some(30),
            ..ConnectProperties::default()
        };
        let identity_secs = how.identity_secs.filter(|_| self.pass_office.knows_time());
        let password = identity_secs.unwrap_or_default().to_string().into_bytes();
        let connect = Connect {
            version: how.version,
            is_bridge: false,
            clean_start: how.clean_start,
            keep_alive: how.keep_alive_secs,
            client_id: NAMES[client],
            will: will.as_ref().map(|will| last_will(will, is_v5)),
            username: Some(USERS[client]),
            password: identity_secs.map(|_| &*password),
            properties: if is_v5 { properties.clone() } else { ConnectProperties::default() },
        };
        match self.refusal_of(client, how) {
            Ok(None) => {}
            Ok(Some(reason)) => return self.connect_in_vain(connect, reason).await,
            Err(Undecided) => {
                self.count("skipped");
                return Ok(());
            }
        }
        let old = self.clients[client].line.take();
        let bytes = if how.is_narrow { NARROW_PIPE_BYTES } else { PIPE_BYTES };
        let line = Line::open(&self.broker, how.version, bytes, ([192, 0, 2, 7], 40_000).into());
        let own = &mut self.clients[client];
        own.begin(line);
        if how.clean_start {
            own.outbound.clear();
        }
        self.count(if old.is_some() { "takeover" } else { "CONNECT" });
        let said = how.says_at_once.filter(|_| !self.disk.is_failing());
        let said = said.map(|what| self.message(what).for_version(is_v5));
        let packet_id = self.clients[client].free_id().unwrap_or(u16::MAX);
        let mut bytes = Vec::new();
        let encoded = encode(&Packet::Connect(Box::new(connect)), how.version, &mut bytes);
        encoded.map_err(|error| error.to_string())?;
        if let Some(sent) = &said {
            let packet = Packet::Publish(publish(sent, Some(packet_id), false));
            encode(&packet, how.version, &mut bytes).map_err(|error| error.to_string())?;
        }
        self.write(client, &bytes).await?;
        let connected = Connected {
            version: how.version,
            clean_start: how.clean_start,
            keep_alive_secs: how.keep_alive_secs,
            expiry_secs: how.expiry_secs,
            identity_secs,
            receive_maximum: properties.receive_maximum.filter(|_| is_v5),
            packet_bytes_max: properties.maximum_packet_size.filter(|_| is_v5),
            will,
        };
        let session_present = self.affect(move |model| model.connected(client, connected.clone()));
        if let Some(sent) = said {
            self.has_sent(client, sent, packet_id);
        }
        self.connected(client, session_present, packet_id, old).await
    }

    /// Sends CONNECT; an older connection gets its end by the takeover.
    async fn connected(
        &mut self,
        client: usize,
        session_present: bool,
        said: u16,
        old: Option<Line>,
    ) -> Verdict {
        if let Some(old) = old {
            self.farewell(old, Some(ReasonCode::SessionTakenOver)).await?;
        }
        self.moment().await;
        if !session_present {
            self.clients[client].outbound.retain(|o| o.packet_id == said);
            return Ok(());
        }
        self.count("session resumed");
        let (said, rest): (Vec<_>, Vec<_>) =
            self.clients[client].outbound.drain(..).partition(|o| o.packet_id == said);
        self.clients[client].outbound = rest;
        self.resume(client).await?;
        self.clients[client].outbound.extend(said);
        Ok(())
    }

    fn will(&mut self, client: usize, how: &WillHow, is_v5: bool) -> Will {
        self.messages += 1;
        Will {
            topic: WILL_TOPICS[client],
            payload: self.messages.to_string().into_bytes(),
            qos: how.qos,
            retain: how.retain,
            delay_secs: how.delay_secs.filter(|_| is_v5).unwrap_or(0),
            expiry_secs: how.expiry_secs.filter(|_| is_v5),
        }
    }

    pub(crate) fn message(&mut self, what: What) -> Sent {
        self.messages += 1;
        let mut payload = self.messages.to_string().into_bytes();
        match what.size {
            Size::Empty => payload.clear(),
            Size::Small => {}
            Size::Large => payload.resize(300, b'.'),
            Size::Huge => payload.resize(3000, b'.'),
        }
        Sent {
            topic: TOPICS[what.topic],
            payload,
            qos: what.qos,
            retain: what.retain,
            expiry_secs: what.expiry_secs,
        }
    }

    /// Notes that the client has sent a PUBLISH.
    fn has_sent(&mut self, client: usize, sent: Sent, packet_id: u16) {
        let published = sent.clone();
        self.affect(move |model| model.published(client, &published, packet_id));
        self.will_send_again(client, sent, packet_id);
    }

    /// Notes that the client has begun to send a PUBLISH.
    fn will_send_again(&mut self, client: usize, sent: Sent, packet_id: u16) {
        let counted = ["QoS 0 sent", "QoS 1 sent", "QoS 2 sent"];
        self.count(counted[usize::from(sent.qos.number())]);
        if sent.qos > QoS::AtMostOnce {
            self.clients[client].outbound.push(Outbound { packet_id, sent, is_released: false });
        }
    }

    pub(crate) async fn publish(&mut self, client: usize, what: What, alias: bool) -> Verdict {
        self.look_at_store().await;
        let Some(packet_id) = self.clients[client].free_id() else { return Ok(()) };
        if self.model.link(client).is_none() {
            return Ok(());
        }
        let is_v5 = self.model.link(client).is_some_and(|link| link.version == V5);
        let sent = self.message(what).for_version(is_v5);
        let mut packet = publish(&sent, Some(packet_id), false);
        if alias && is_v5 {
            let (alias, is_new) = self.clients[client].alias(sent.topic);
            packet.properties.topic_alias = Some(alias);
            if !is_new {
                packet.topic = "";
                self.count("sent by alias");
            }
        }
        self.send(client, &Packet::Publish(packet)).await?;
        self.has_sent(client, sent, packet_id);
        Ok(())
    }

    pub(crate) async fn subscribe(
        &mut self,
        client: usize,
        asked: &[(usize, SubscriptionOptions)],
        identifier: Option<u32>,
    ) -> Verdict {
        self.look_at_store().await;
        let Some(link) = self.model.link(client) else { return Ok(()) };
        let is_v5 = link.version == V5;
        let asked: Vec<(&'static str, SubscriptionOptions)> = asked
            .iter()
            .map(|(filter, options)| {
                let plain = SubscriptionOptions { qos: options.qos, ..Default::default() };
                (FILTERS[*filter], if is_v5 { *options } else { plain })
            })
            .collect();
        let identifier = identifier.filter(|_| is_v5);
        // The order of several retained messages is unspecified, but which of them come first must
        // make no difference: all of them are taken at once.
        let several = asked.iter().any(|(filter, _)| self.model.retained_matching(filter) > 1);
        let at_once = self.clients[client].answers_at_once;
        if several && self.disk.is_failing() {
            return Ok(()); // some of them would have to wait
        }
        if several {
            self.count("several retained messages for a subscription");
            self.clients[client].reads = true;
            self.clients[client].answers_at_once = true;
            self.answer_all(client).await?;
            self.settle().await?;
        }
        let packet_id = self.clients[client].subscribe_id();
        let filters = asked.iter();
        let packet = Packet::Subscribe(Subscribe {
            packet_id: id(packet_id),
            properties: SubscribeProperties {
                subscription_identifier: identifier,
                ..SubscribeProperties::default()
            },
            filters: filters
                .map(|&(filter, options)| SubscribeFilter { filter, options })
                .collect(),
        });
        self.send(client, &packet).await?;
        self.count("SUBSCRIBE");
        self.affect(move |model| model.subscribed(client, packet_id, &asked, identifier));
        if several {
            self.settle().await?;
            self.clients[client].answers_at_once = at_once;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, client: usize, filter: &'static str) -> Verdict {
        let packet_id = self.clients[client].subscribe_id();
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: id(packet_id),
            user_properties: UserProperties::NONE,
            filters: vec![filter],
        });
        self.send(client, &packet).await?;
        self.count("UNSUBSCRIBE");
        self.affect(move |model| model.unsubscribed(client, packet_id, filter));
        Ok(())
    }

    /// Continues one exchange.
    async fn answer(&mut self, client: usize, nth: usize, refuse: bool) -> Verdict {
        let own = &mut self.clients[client];
        if own.waiting.is_empty() {
            return Ok(());
        }
        let waiting = own.waiting.remove(nth % own.waiting.len());
        let is_v5 = self.model.link(client).is_some_and(|link| link.version == V5);
        let is_refused = refuse && is_v5;
        self.send(client, &waiting.packet(is_refused)).await?;
        let packet_id = waiting.packet_id;
        match waiting.says {
            Says::Received => self.count(if is_refused { "PUBREC refused" } else { "PUBREC sent" }),
            Says::Acked | Says::Release | Says::Complete => {}
        }
        self.affect(move |model| match waiting.says {
            Says::Acked => model.pub_acked(client, packet_id),
            Says::Received => model.pub_received(client, packet_id, is_refused),
            Says::Release => model.released(client, packet_id),
            Says::Complete => model.pub_completed(client, packet_id),
        });
        Ok(())
    }

    pub(crate) async fn answer_all(&mut self, client: usize) -> Verdict {
        while !self.clients[client].waiting.is_empty() && self.clients[client].line.is_some() {
            self.answer(client, 0, false).await?;
        }
        Ok(())
    }

    pub(crate) async fn disconnect(
        &mut self,
        client: usize,
        with_will: bool,
        expiry_secs: Option<u32>,
    ) -> Verdict {
        let Some(session) = &self.model.sessions[client] else { return Ok(()) };
        let is_v5 = session.link.as_ref().is_some_and(|link| link.version == V5);
        // A session that ends with its connection must not be made durable.
        let expiry_secs = expiry_secs.filter(|_| is_v5 && session.expiry_secs > 0);
        let properties =
            DisconnectProperties { session_expiry_interval: expiry_secs, ..Default::default() };
        let with_will = with_will && is_v5;
        let reason = if with_will { ReasonCode::DisconnectWithWill } else { ReasonCode::Success };
        self.count(if with_will { "DISCONNECT with Will" } else { "DISCONNECT" });
        self.send(client, &Packet::Disconnect(Disconnect { reason, properties })).await?;
        let end = End::without_disconnect(DisconnectReason::Normal);
        self.affect(move |model| {
            if let (Some(session), Some(secs)) = (&mut model.sessions[client], expiry_secs) {
                session.expiry_secs = secs;
            }
            model.end_connection(client, End { with_will, ..end }); // [MQTT-3.14.4-3]
        });
        let Some(mut line) = self.clients[client].line.take() else { return Ok(()) };
        self.moment().await;
        line.discard();
        Ok(())
    }

    pub(crate) async fn cut(
        &mut self,
        client: usize,
        read: usize,
        sent: usize,
        qos: QoS,
    ) -> Verdict {
        self.count("cut off");
        self.look_at_store().await;
        if let Some(line) = &mut self.clients[client].line {
            line.read(read);
            self.take_packets(client)?;
        }
        let free_id = self.clients[client].free_id();
        let size = Size::Small;
        let what = What { topic: sent % TOPICS.len(), qos, retain: false, expiry_secs: None, size };
        if let Some(packet_id) = free_id.filter(|_| sent > 0) {
            let message = self.message(what);
            let version = self.model.link(client).map_or(V5, |link| link.version);
            let mut bytes = Vec::new();
            let packet = Packet::Publish(publish(&message, Some(packet_id), false));
            encode(&packet, version, &mut bytes).map_err(|error| error.to_string())?;
            self.write(client, &bytes[..sent.min(bytes.len())]).await?;
            if sent >= bytes.len() {
                self.has_sent(client, message, packet_id);
            } else {
                self.count("cut within a packet");
                self.will_send_again(client, message, packet_id);
            }
        }
        self.clients[client].line = None;
        let end = End::without_disconnect(DisconnectReason::TcpClosed);
        self.affect(move |model| model.end_connection(client, end));
        Ok(())
    }

    async fn misbehave(&mut self, client: usize, how: Misdeed) -> Verdict {
        self.count("broke a rule");
        let version = self.model.link(client).map_or(V5, |link| link.version);
        let connect = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
        let bytes: &[u8] = match (how, version) {
            (Misdeed::SecondConnect, _) => &connect,
            (Misdeed::ReservedType, _) => &[0x00, 0],
            (Misdeed::ServersPacket, _) => &[0xd0, 0],
            (Misdeed::AliasOfNothing, V5) => &[0x30, 6, 0, 0, 3, 0x23, 0, 31],
            (Misdeed::AliasOfNothing, _) => &[0x30, 2, 0, 0],
            (Misdeed::WildcardInTopic, V5) => &[0x30, 4, 0, 1, b'#', 0],
            (Misdeed::WildcardInTopic, _) => &[0x30, 3, 0, 1, b'#'],
        };
        self.write(client, bytes).await?;
        let end = End::without_disconnect(DisconnectReason::ProtocolError);
        self.affect(move |model| model.end_connection(client, end));
        Ok(())
    }
}

fn last_will(will: &Will, is_v5: bool) -> LastWill<'_> {
    LastWill {
        topic: will.topic,
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain,
        properties: WillProperties {
            will_delay_interval: is_v5.then_some(will.delay_secs),
            publish: PublishProperties {
                message_expiry_interval: will.expiry_secs,
                ..PublishProperties::default()
            },
        },
    }
}
