//! Clients: they connect to any node, change it, subscribe to a topic of their own, and publish to others.

use hearthmq::{internals::cluster::names::ClientKey, mqtt::QoS};

use super::{
    checks::Published,
    io::{Event, Input, Io, Socket, TICK, ToClient},
    node::Node,
};

/// Time until a client gives up a CONNECT.
const CONNECT_MILLIS_MAX: u64 = 12_000;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) key: ClientKey,
    pub(super) socket: Option<usize>,
    /// All that it has opened.
    sockets: Vec<usize>,
    asked_at: u64,
    asks_to_subscribe: bool,
    /// When it got its SUBACK.
    pub(super) subscribed_at: Option<u64>,
    /// When it goes for good.
    pub(super) leaves_at: Option<u64>,
    pub(super) has_left: bool,
    /// Chance of a change of the node in a turn.
    restless: f32,
}

impl Client {
    pub(super) fn new(number: usize, leaves_at: Option<u64>, restless: f32) -> Self {
        // Spread over buckets and NATS servers.
        let key = ClientKey((number as u128 * 5 + 1) << 120 | number as u128);
        Self {
            number,
            key,
            socket: None,
            sockets: Vec::new(),
            asked_at: 0,
            asks_to_subscribe: false,
            subscribed_at: None,
            leaves_at,
            has_left: false,
            restless,
        }
    }

    fn to_node(&self, io: &mut Io, node: usize, input: Input) {
        let delay = io.rng.u64(0..2) * TICK;
        io.later(delay, Event::ToNode { node, life: None, input });
    }

    pub(super) fn is_connected(&self, io: &Io) -> bool {
        self.socket
            .is_some_and(|socket| io.sockets[socket].is_open && io.sockets[socket].is_admitted)
    }

    fn hang_up(&mut self, io: &mut Io) {
        let Some(socket) = self.socket.take() else { return };
        io.close(socket);
        let node = io.sockets[socket].node;
        self.to_node(io, node, Input::Closed { socket, key: self.key });
    }

    /// One turn of a client.
    pub(super) fn turn(&mut self, io: &mut Io, nodes: &[Node], others: &[ClientKey]) {
        if self.has_left {
            return;
        }
        if self.leaves_at.is_some_and(|at| io.now >= at) {
            self.has_left = true;
            io.tell(format!("client {} leaves", self.key));
            for socket in std::mem::take(&mut self.sockets) {
                self.socket = Some(socket);
                self.hang_up(io);
            }
            return;
        }
        self.read(io);
        if self.socket.is_some_and(|socket| !io.sockets[socket].is_open) {
            self.socket = None;
        }
        let changes = self.socket.is_some() && !io.is_quiet && io.rng.f32() < self.restless;
        if (self.socket.is_none() && io.rng.f32() < 0.08) || changes {
            self.connect(io, nodes);
        }
        let Some(socket) = self.socket else { return };
        if !io.sockets[socket].is_admitted {
            if io.now > self.asked_at + CONNECT_MILLIS_MAX {
                self.hang_up(io);
            }
            return;
        }
        let node = io.sockets[socket].node;
        if self.subscribed_at.is_none() && !self.asks_to_subscribe {
            self.asks_to_subscribe = true;
            self.to_node(io, node, Input::Subscribe { socket, key: self.key });
        }
        if !io.is_quiet && io.rng.f32() < 0.03 && !others.is_empty() {
            self.publish(io, socket, node, others);
        }
    }

    fn publish(&self, io: &mut Io, socket: usize, node: usize, others: &[ClientKey]) {
        let to = others[io.rng.usize(0..others.len())];
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][io.rng.usize(0..2)];
        let message = io.checks.published.len() as u64 + 1;
        let from = self.key;
        let published = Published { from, to, qos, acked_at: None, delivered: 0 };
        io.checks.published.insert(message, published);
        // No delay: the packets of one connection have an order.
        let input = Input::Publish { socket, from, to, message, qos };
        io.later(TICK, Event::ToNode { node, life: None, input });
    }

    fn connect(&mut self, io: &mut Io, nodes: &[Node]) {
        let node = io.rng.usize(0..nodes.len());
        if !nodes[node].is_serving() || io.now < nodes[node].frozen_until {
            return;
        }
        // The older connection may still be there: a takeover.
        if io.rng.bool() {
            self.hang_up(io);
        }
        let (is_open, is_admitted) = (true, false);
        let to_client = Default::default();
        io.sockets.push(Socket { node, is_open, is_admitted, to_client });
        let socket = io.sockets.len() - 1;
        io.tell(format!("client {} connects to node {node}, socket {socket}", self.key));
        self.socket = Some(socket);
        self.sockets.push(socket);
        self.asked_at = io.now;
        self.asks_to_subscribe = false;
        self.to_node(io, node, Input::Connect { socket, key: self.key });
    }

    /// Reads what has arrived on the present connection.
    fn read(&mut self, io: &mut Io) {
        let Some(socket) = self.socket else { return };
        while io.sockets[socket].is_open && io.rng.f32() < 0.8 {
            let Some(packet) = io.sockets[socket].to_client.pop_front() else { return };
            let node = io.sockets[socket].node;
            match packet {
                ToClient::SubAck => {
                    let now = io.now;
                    self.subscribed_at.get_or_insert(now);
                }
                ToClient::PubAck => io.checks.count("acknowledged"),
                ToClient::Publish { message, id, is_repeated, qos } => {
                    io.checks.delivered(message, is_repeated && qos == QoS::ExactlyOnce);
                    self.to_node(io, node, Input::Taken { socket, key: self.key, id });
                }
            }
        }
    }
}
