//! SUBSCRIBE and UNSUBSCRIBE.

use crate::{
    auth::{AccessRequest, Action, Decision},
    hooks::DisconnectReason,
    metrics::{DropReason, UserLimit},
    mqtt::{
        AckProperties, FilterParts, Packet, ProtocolVersion, QoS, ReasonCode, RetainHandling,
        SubAck, Subscribe, SubscribeFilter, Timestamp, UnsubAck, Unsubscribe, validate_filter,
    },
    router::{Index, RetainedQuery, Subscriber},
    session::{Delivered, Delivery, Link, RetainedWalk, SubscribedAs, shape_of},
    shard::{
        Departure, Shard,
        packets::Handled,
        routing::asked::{Filters, FiltersAsked, FiltersKind, FiltersProgress},
        turn::Turn,
    },
};

impl Shard {
    pub(in crate::shard) fn handle_subscribe(
        &mut self,
        slot: u32,
        subscribe: &Subscribe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, Departure> {
        Self::check_filters(subscribe.filters.iter().map(|asked| asked.filter))?;
        self.check_trouble(slot)?;
        let kind =
            FiltersKind::Subscribe { identifier: subscribe.properties.subscription_identifier };
        let progress = FiltersProgress::new(kind, subscribe.packet_id, &subscribe.filters);
        self.handle_first_filters(slot, &subscribe.filters, progress, turn)
    }

    pub(in crate::shard) fn handle_unsubscribe(
        &mut self,
        slot: u32,
        unsubscribe: &Unsubscribe<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, Departure> {
        Self::check_filters(unsubscribe.filters.iter().copied())?;
        let progress = FiltersProgress::new(
            FiltersKind::Unsubscribe,
            unsubscribe.packet_id,
            &unsubscribe.filters,
        );
        self.handle_first_filters(slot, &unsubscribe.filters, progress, turn)
    }

    /// Handles as many filters as this read may; the others wait for the next turn.
    fn handle_first_filters(
        &mut self,
        slot: u32,
        filters: &dyn Filters,
        mut progress: FiltersProgress,
        turn: &mut Turn<'_>,
    ) -> Result<Handled, Departure> {
        self.handle_filters(slot, filters, &mut progress, turn)?;
        let is_paused = turn.filters_left == 0 || !progress.is_done();
        if !progress.is_done() {
            let asked = FiltersAsked::new(filters, progress, &self.core.incomplete_packets);
            turn.asked = Some(Box::new(asked));
        }
        Ok(if is_paused { Handled::Paused } else { Handled::Done })
    }

    /// Handles some filters of a packet, and answers it behind the last one.
    pub(in crate::shard) fn handle_filters(
        &mut self,
        slot: u32,
        filters: &dyn Filters,
        progress: &mut FiltersProgress,
        turn: &mut Turn<'_>,
    ) -> Result<(), Departure> {
        if !progress.is_answered {
            let mark = self.mark();
            // The filters of one read are limited, so that a long packet does not keep the thread from others.
            while progress.reasons.len() < filters.len() && turn.takes_filter() {
                let asked = filters.at(progress.reasons.len());
                match progress.kind {
                    FiltersKind::Subscribe { identifier } => {
                        self.subscribe_next(slot, &asked, identifier, progress);
                    }
                    FiltersKind::Unsubscribe => {
                        progress.reasons.push(self.unsubscribe_one(slot, asked.filter, turn.now));
                    }
                }
            }
            // Each portion is gated by its own ticket, also if the answer comes in a later turn.
            if let Some(ticket) = self.gate_since(mark, slot)
                && let Some(link) = self.link_mut(slot)
            {
                // Holds the answer, and the retained messages that follow.
                link.gate_output(ticket);
            }
            // The answer has the codes of all filters, and promises the messages of every node.
            if progress.reasons.len() < filters.len()
                || self.must_await_routes(slot, filters, progress)
            {
                return Ok(());
            }
            self.answer(slot, filters, progress, turn.now)?;
            // Noted, because the retained messages may take further turns, and the answer is sent once.
            progress.is_answered = true;
        }
        if let FiltersKind::Subscribe { identifier } = progress.kind {
            self.follow_answer(slot, filters, identifier, progress, turn);
        }
        Ok(())
    }

    fn link_mut(&mut self, slot: u32) -> Option<&mut Link> {
        self.slots.get_mut(slot as usize)?.session.link_mut()
    }

    /// Handles the next filter of a SUBSCRIBE.
    fn subscribe_next(
        &mut self,
        slot: u32,
        asked: &SubscribeFilter<'_>,
        identifier: Option<u32>,
        progress: &mut FiltersProgress,
    ) {
        let filters_max = self.core.limits_now().filters_per_subscribe_max as usize;
        let (reason, existed) = if progress.reasons.len() < filters_max {
            self.subscribe_one(slot, asked, identifier)
        } else {
            (ReasonCode::QuotaExceeded, false)
        };
        self.tell_not_subscribed(slot, asked.filter, reason);
        progress.reasons.push(reason);
        progress.sends_retained.push(match asked.options.retain_handling {
            RetainHandling::Send => true,          // [MQTT-3.3.1-9]
            RetainHandling::SendIfNew => !existed, // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false,    // [MQTT-3.3.1-11]
        });
    }

    /// Sends SUBACK or UNSUBACK.
    fn answer(
        &mut self,
        slot: u32,
        filters: &dyn Filters,
        progress: &FiltersProgress,
        now: Timestamp,
    ) -> Result<(), Departure> {
        let FiltersProgress { packet_id, ref reasons, .. } = *progress;
        let is_subscribe = matches!(progress.kind, FiltersKind::Subscribe { .. });
        if is_subscribe {
            self.check_quota(slot, reasons, now)?;
        }
        let Some(link) = self.link_mut(slot) else { return Ok(()) };
        let answer = if is_subscribe {
            let first_refusal = reasons.iter().find_map(|reason| why_refused(*reason));
            let reasons = if link.version() == ProtocolVersion::V3_1 {
                // No code refuses a subscription in this version; a client would take 0x80 for a
                // fault of the broker. Like other brokers, this one answers as if it were granted,
                // and sends nothing.
                let asked = (0..filters.len()).map(|position| filters.at(position).options.qos);
                asked.map(granted_code).collect()
            } else {
                reasons.clone()
            };
            Packet::SubAck(SubAck {
                packet_id, // [MQTT-3.8.4-2]
                properties: link.reason_string(first_refusal),
                reasons, // [MQTT-3.8.4-6] [MQTT-3.9.3-1]
            })
        } else {
            Packet::UnsubAck(UnsubAck {
                packet_id, // [MQTT-3.10.4-5]
                properties: AckProperties::NONE,
                reasons: reasons.clone(), // [MQTT-3.11.3-1]
            })
        };
        // A client would wait for an answer that exceeds its Maximum Packet Size. [MQTT-3.1.2-24]
        if link.try_send(&answer) { Ok(()) } else { Err(ANSWER_TOO_LARGE) }
    }

    /// Sends what follows SUBACK: retained messages, for clients that expect no message before it.
    /// They are sent for each filter as if it had come in a packet of its own, also if the packet
    /// has it twice. [MQTT-3.8.4-5]
    fn follow_answer(
        &mut self,
        slot: u32,
        filters: &dyn Filters,
        identifier: Option<u32>,
        progress: &mut FiltersProgress,
        turn: &mut Turn<'_>,
    ) {
        while progress.followed < filters.len() && turn.takes_filter() {
            let at = progress.followed;
            progress.followed += 1;
            // A refused filter gets neither an event nor retained messages.
            if progress.reasons[at].is_failure() {
                continue;
            }
            let asked = filters.at(at);
            self.announce_subscribed(slot, asked.filter, asked.options.qos, turn.now);
            if progress.sends_retained[at] {
                self.send_retained(slot, &asked, identifier, turn);
            }
            // Behind the retained messages, which are older than those that wait for the group.
            self.seek_backlog(slot, asked.filter);
        }
    }

    /// Ends the connection of a client whose packet has an ill-formed Topic Filter. SUBACK and
    /// UNSUBACK have no Reason Code for it: 0x8F says that a filter is "correctly formed but is not
    /// allowed". [MQTT-4.13.1-1], [MQTT-4.8.0-1] of 3.1.1
    fn check_filters<'f>(mut filters: impl Iterator<Item = &'f str>) -> Result<(), Departure> {
        let Some(error) = filters.find_map(|filter| validate_filter(filter).err()) else {
            return Ok(());
        };
        tracing::debug!(%error, "packet refused");
        let code = ReasonCode::MalformedPacket;
        let end = Departure::by_server(DisconnectReason::ProtocolError, code);
        Err(end.because(error.clause()))
    }

    /// Ends the connection of an MQTT 3.1 client if the subscription cannot be stored. MQTT 3.1 has
    /// no code that refuses it, and an acknowledgement would be false; so the client asks again.
    fn check_trouble(&self, slot: u32) -> Result<(), Departure> {
        let Some(trouble) = self.trouble() else { return Ok(()) };
        let is_kept_3_1 = self.slot(slot).is_some_and(|found| {
            let version = found.session.link().map(Link::version);
            version == Some(ProtocolVersion::V3_1) && found.session.number().is_some()
        });
        let end = Departure::by_server(DisconnectReason::InternalError, trouble.reason());
        if is_kept_3_1 { Err(end) } else { Ok(()) }
    }

    /// Ends the connection of an MQTT 3.1 client if there is no room for the subscription. MQTT 3.1
    /// has no code that refuses it, and the broker must not tell the client that it was granted.
    fn check_quota(
        &mut self,
        slot: u32,
        reasons: &[ReasonCode],
        now: Timestamp,
    ) -> Result<(), Departure> {
        let version = self.slot(slot).and_then(|s| s.session.link()).map(Link::version);
        let code = ReasonCode::QuotaExceeded;
        if version != Some(ProtocolVersion::V3_1) || !reasons.contains(&code) {
            return Ok(());
        }
        self.slow_down(slot, now);
        Err(Departure::by_server(DisconnectReason::QuotaExceeded, code))
    }

    /// Handles one filter; returns its reason code, and whether the subscription existed.
    pub(in crate::shard) fn subscribe_one(
        &mut self,
        slot: u32,
        asked: &SubscribeFilter<'_>,
        identifier: Option<u32>,
    ) -> (ReasonCode, bool) {
        let Some(found) = self.slot(slot) else {
            return (ReasonCode::UnspecifiedError, false);
        };
        let Ok(parts) = validate_filter(asked.filter) else {
            return (ReasonCode::TopicFilterInvalid, false);
        };
        // The limits on topics hold for filters too.
        if !self.core.allows_topic(asked.filter) {
            return (ReasonCode::TopicFilterInvalid, false);
        }
        // A durable session's subscription must be stored before SUBACK.
        if let Some(trouble) = self.trouble().filter(|_| found.session.number().is_some()) {
            return (trouble.reason(), false);
        }
        // A replaced subscription needs no additional room, so no limit refuses it. [MQTT-3.8.4-3]
        let existed = found.session.is_subscribed(asked.filter);
        let limits = self.core.limits_now();
        let is_one_too_many = limits.subscriptions_per_client_max != 0
            && found.session.subscriptions_len() >= limits.subscriptions_per_client_max as usize;
        let more = Index::bytes_of(parts);
        let account = found.account.clone();
        // What ended sessions still hold may be all that is in the way.
        if !existed {
            self.make_room(&account, more);
        }
        let bytes = self.core.index.bytes() + more;
        // Limits come before the rules: asking an authorizer costs more than comparing numbers.
        if !existed && (is_one_too_many || bytes as u64 > limits.subscription_bytes_max) {
            return (ReasonCode::QuotaExceeded, false);
        }
        if !existed && !account.subscription_bytes.fits(more as u64) {
            self.metrics.user_limits_reached.increment(UserLimit::SubscriptionBytes);
            return (ReasonCode::QuotaExceeded, false);
        }
        let is_one_shape_too_many = |shape: Box<str>| !account.takes_shape(&shape);
        if !existed && shape_of(parts).is_some_and(is_one_shape_too_many) {
            self.metrics.user_limits_reached.increment(UserLimit::FilterShapes);
            return (ReasonCode::QuotaExceeded, false);
        }
        if self.may_subscribe(slot, parts, asked.options.qos) == Decision::Deny {
            return (ReasonCode::NotAuthorized, false);
        }
        // Looked up again: the calls above needed the whole shard.
        let (Some(found), Some(place)) = (self.slot(slot), self.place(slot)) else {
            return (ReasonCode::UnspecifiedError, false);
        };
        let is_shared = parts.share_name.is_some();
        // A bridge gets options that it cannot ask for.
        let asked_for = asked.options;
        let settings = found.session.link().map(Link::settings);
        let options = settings.map_or(asked_for, |s| s.options_of(asked_for, is_shared));
        let is_durable = found.session.number().is_some();
        let subscriber = Subscriber { place, options, identifier, is_durable };
        self.core.index.subscribe(parts, subscriber);
        if let Some(found) = self.slots.get_mut(slot as usize) {
            found.session.subscribe(asked.filter, SubscribedAs { options, identifier });
        }
        (granted_code(options.qos), existed)
    }

    fn may_subscribe(&self, slot: u32, parts: FilterParts<'_>, qos: QoS) -> Decision {
        let Some(found) = self.slot(slot) else {
            return Decision::Deny;
        };
        self.core.authorizer.authorize(&AccessRequest {
            identity: &found.presence.identity,
            client_id: found.session.client_id(),
            peer: found.presence.peer,
            listener: &found.presence.listener,
            action: Action::Subscribe { filter: parts.filter, qos },
        })
    }

    /// Sends the retained messages for a new subscription. If there are very many, it sends the
    /// first part, and the rest is fetched as the client takes it.
    pub(in crate::shard) fn send_retained(
        &mut self,
        slot: u32,
        asked: &SubscribeFilter<'_>,
        identifier: Option<u32>,
        turn: &mut Turn<'_>,
    ) {
        let now = turn.now;
        let Ok(parts) = validate_filter(asked.filter) else {
            return;
        };
        if parts.share_name.is_some() {
            return; // Section 4.8.2: no retained messages to shared subscriptions.
        }
        let Some(found) = self.slots.get_mut(slot as usize) else { return };
        let identifiers = identifier.map(|identifier| [identifier].into());
        // Values of `$SYS` are few and never stored, so they need no walk.
        for message in self.core.system.matching(parts.filter) {
            let qos = message.qos().min(asked.options.qos);
            let delivery =
                Delivery { qos, retain: true, identifiers: identifiers.as_ref(), share: None };
            if found.session.deliver_retained(delivery, &message, now) == Delivered::QueueFull {
                self.metrics.dropped(DropReason::QueueFull, 1);
                found.note_dropped(DropReason::QueueFull, 1);
            }
        }
        // Messages retained from now on find the subscription, and are delivered through it.
        let until = self.core.retained.last_number();
        let mut after: Option<Box<str>> = None;
        // A walk that is there already is older, so a new one queues behind it.
        while turn.nodes_left > 0 && !found.session.has_walks() && !found.session.is_queue_full() {
            let query = RetainedQuery { filter: parts.filter, after: after.as_deref(), until };
            let slice = self.core.retained.slice(&query, turn.nodes_left, now);
            for message in slice.messages {
                let delivery = Delivery {
                    qos: message.qos().min(asked.options.qos),
                    retain: true, // [MQTT-3.3.1-8] of 3.1.1
                    identifiers: identifiers.as_ref(),
                    share: None,
                };
                if found.session.deliver_retained(delivery, &message, now) == Delivered::QueueFull {
                    self.metrics.dropped(DropReason::QueueFull, 1);
                    found.note_dropped(DropReason::QueueFull, 1);
                }
            }
            // Nodes and not messages are counted, because a search may pass many nodes that hold nothing.
            turn.nodes_left = turn.nodes_left.saturating_sub(slice.nodes);
            if slice.go_on_after.is_none() {
                return;
            }
            after = slice.go_on_after;
        }
        // The rest is fetched as the client takes messages, so the queue of the client does not overflow.
        let (filter, qos) = (parts.filter.into(), asked.options.qos);
        found.session.begin_walk(RetainedWalk { filter, qos, identifier, after, until });
    }

    /// Ends the subscription to one filter; returns its Reason Code.
    pub(in crate::shard) fn unsubscribe_one(
        &mut self,
        slot: u32,
        filter: &str,
        now: Timestamp,
    ) -> ReasonCode {
        let Ok(parts) = validate_filter(filter) else { return ReasonCode::TopicFilterInvalid };
        let place = self.place(slot);
        let (Some(place), Some(found)) = (place, self.slots.get_mut(slot as usize)) else {
            return ReasonCode::UnspecifiedError;
        };
        // The event has the QoS that the subscription had.
        let qos = found.session.subscription(filter).map(|s| s.options.qos);
        found.session.unsubscribe(filter);
        let Some(qos) = qos else { return ReasonCode::NoSubscriptionExisted };
        self.core.index.unsubscribe(parts, place); // [MQTT-3.10.4-2]
        // Messages of the group may wait here, and the other members may take them now.
        if parts.share_name.is_some() {
            self.forget_held(slot);
        }
        self.announce_unsubscribed(slot, filter, qos, now);
        ReasonCode::Success
    }
}

/// The answer exceeds the client's Maximum Packet Size, so the client would never learn the result
/// of its request. [MQTT-3.1.2-24]
const ANSWER_TOO_LARGE: Departure =
    Departure::by_server(DisconnectReason::ProtocolError, ReasonCode::PacketTooLarge)
        .because("the answer is larger than the client accepts");

const fn granted_code(qos: QoS) -> ReasonCode {
    match qos {
        QoS::AtMostOnce => ReasonCode::Success,
        QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
        QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
    }
}

/// Returns why a subscription was not granted, if the code alone does not say enough.
fn why_refused(reason: ReasonCode) -> Option<&'static str> {
    (reason == ReasonCode::QuotaExceeded).then_some("a limit on subscriptions is reached")
}
