//! What leaves a node for its clients: acknowledgements and messages.

use hearthmq::internals::cluster::names::{ClientKey, MessageId};

use super::{
    super::io::{Io, ToClient},
    Node, Publication,
};

impl Node {
    pub(super) fn acknowledge(&mut self, io: &mut Io) {
        let ready = |publication: &mut Publication| publication.left.is_empty();
        let ready: Vec<(u64, Publication)> =
            self.run.publications.extract_if(.., |_, publication| ready(publication)).collect();
        for (message, publication) in ready {
            let Publication { socket, from, .. } = publication;
            if self.run.sockets.get(&from) != Some(&socket) || !self.may_act(io) {
                continue;
            }
            let Some(term) = self.disk.sessions.get(&from).map(|kept| kept.term) else { continue };
            io.acts(from, term, self.index, self.life(), "PUBACK");
            io.tell(format!("node {}: message {message} is acknowledged", self.index));
            io.sockets[socket].to_client.push_back(ToClient::PubAck);
            let now = io.now;
            if let Some(published) = io.checks.published.get_mut(&message) {
                published.acked_at = Some(now);
            }
        }
    }

    pub(super) fn deliver(&mut self, io: &mut Io) {
        let sockets: Vec<(ClientKey, usize)> =
            self.run.sockets.iter().map(|(key, socket)| (*key, *socket)).collect();
        for (key, socket) in sockets {
            if self.run.in_flight.contains_key(&key) || !io.sockets[socket].is_open {
                continue;
            }
            let Some(kept) = self.disk.sessions.get_mut(&key) else { continue };
            let Some(first) = kept.session.queue.first_mut() else { continue };
            let (id, qos, is_repeated) = (first.mail.id, first.mail.qos, first.is_sent);
            first.is_sent = true;
            let term = kept.term;
            let message = io.checks.names.get(&id).copied().unwrap_or_default();
            io.acts(key, term, self.index, self.life(), "PUBLISH");
            io.tell(format!(
                "node {}: message {message} to {key}, repeated: {is_repeated}",
                self.index
            ));
            let publish = ToClient::Publish { message, id, is_repeated, qos };
            io.sockets[socket].to_client.push_back(publish);
            self.run.in_flight.insert(key, id);
        }
    }

    /// A client has acknowledged a message.
    pub(super) fn taken(&mut self, socket: usize, key: ClientKey, id: MessageId) {
        if self.run.sockets.get(&key) != Some(&socket) || self.run.in_flight.get(&key) != Some(&id)
        {
            return;
        }
        self.run.in_flight.remove(&key);
        if let Some(kept) = self.disk.sessions.get_mut(&key) {
            kept.session.queue.retain(|queued| queued.mail.id != id);
        }
    }
}
