//! rumqttc's two clients, one for each version of MQTT, behind one interface.
//!
//! Does not know the tests. Called by the cells in `main`.

use std::{env, fs};

use rumqttc::{TlsConfiguration, Transport, v5};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Properties of a PUBLISH; none in MQTT 3.1.1.
pub(crate) type Given = v5::mqttbytes::v5::PublishProperties;

const REQUESTS_MAX: usize = 200;
const EXPIRY_SECS: u32 = 60;

/// Returns whether to use MQTT 5.0.
pub(crate) fn is_5() -> bool {
    variable("VERSION") == "5"
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("run.py sets {name}"))
}

#[derive(Default)]
pub(crate) struct Options {
    /// Whether to keep or resume the session.
    pub(crate) keep: bool,
    pub(crate) user: Option<String>,
    /// Topic and payload.
    pub(crate) will: Option<(String, &'static str)>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) given: Given,
}

/// The events that a cell waits for.
enum Seen {
    Connected {
        session_present: bool,
    },
    /// The answer to a request, with its Reason Code as text.
    Answered(String),
    Message(Box<Message>),
    Lost(String),
}

enum Handle {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

/// A connected client.
pub(crate) struct Client {
    handle: Handle,
    seen: UnboundedReceiver<Seen>,
    messages: Vec<Message>,
    pub(crate) session_present: bool,
}

/// Calls the same method of either client.
macro_rules! either {
    ($handle:expr, $client:ident => $call:expr) => {
        match $handle {
            Handle::V3($client) => $call.await.map_err(|error| error.to_string()),
            Handle::V5($client) => $call.await.map_err(|error| error.to_string()),
        }
    };
}

impl Client {
    pub(crate) async fn connect(name: &str, options: Options) -> Result<Self, String> {
        let (tell, mut seen) = unbounded_channel();
        let handle =
            if is_5() { start_5(name, options, tell) } else { start_3(name, options, tell) };
        match seen.recv().await {
            Some(Seen::Connected { session_present }) => {
                Ok(Self { handle, seen, messages: Vec::new(), session_present })
            }
            Some(Seen::Lost(error)) => Err(error),
            _ => Err("no CONNACK".to_owned()),
        }
    }

    pub(crate) async fn subscribe(
        &mut self,
        filter: &str,
        qos: u8,
        identifier: Option<usize>,
    ) -> Result<(), String> {
        match &self.handle {
            Handle::V3(client) => {
                let sent = client.subscribe(filter, qos_3(qos)).await;
                sent.map_err(|error| error.to_string())?;
            }
            Handle::V5(client) => {
                let properties = v5::mqttbytes::v5::SubscribeProperties {
                    id: identifier,
                    user_properties: Vec::new(),
                };
                let sent = client.subscribe_with_properties(filter, qos_5(qos), properties).await;
                sent.map_err(|error| error.to_string())?;
            }
        }
        let granted = self.answer().await?;
        let expected = format!("Success({:?})", qos_3(qos));
        if granted == expected { Ok(()) } else { Err(format!("SUBACK says {granted}")) }
    }

    /// Unsubscribes; returns the Reason Code of the answer.
    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Result<String, String> {
        either!(&self.handle, client => client.unsubscribe(filter))?;
        self.answer().await
    }

    /// Publishes without waiting.
    pub(crate) async fn send(
        &self,
        topic: &str,
        payload: &str,
        qos: u8,
        retain: bool,
        given: Option<Given>,
    ) -> Result<(), String> {
        match &self.handle {
            Handle::V3(client) => {
                let sent = client.publish(topic, qos_3(qos), retain, payload).await;
                sent.map_err(|error| error.to_string())
            }
            Handle::V5(client) => {
                let (qos, given) = (qos_5(qos), given.unwrap_or_default());
                let payload = payload.to_owned();
                let sent = client.publish_with_properties(topic, qos, retain, payload, given).await;
                sent.map_err(|error| error.to_string())
            }
        }
    }

    /// Publishes with QoS 1; returns the Reason Code of the answer.
    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        retain: bool,
        given: Option<Given>,
    ) -> Result<String, String> {
        self.send(topic, payload, 1, retain, given).await?;
        self.answer().await
    }

    /// Returns the next message.
    pub(crate) async fn receive(&mut self) -> Result<Message, String> {
        if !self.messages.is_empty() {
            return Ok(self.messages.remove(0));
        }
        loop {
            match self.seen.recv().await {
                Some(Seen::Message(message)) => return Ok(*message),
                Some(Seen::Connected { .. } | Seen::Answered(_)) => {}
                Some(Seen::Lost(error)) => return Err(error),
                None => return Err("the connection has ended".to_owned()),
            }
        }
    }

    async fn answer(&mut self) -> Result<String, String> {
        loop {
            match self.seen.recv().await {
                Some(Seen::Answered(reason)) => return Ok(reason),
                Some(Seen::Message(message)) => self.messages.push(*message),
                Some(Seen::Connected { .. }) => {}
                Some(Seen::Lost(error)) => return Err(error),
                None => return Err("the connection has ended".to_owned()),
            }
        }
    }

    /// Sends DISCONNECT; returns when it is sent.
    pub(crate) async fn end(mut self) {
        let _ = either!(&self.handle, client => client.disconnect());
        while self.seen.recv().await.is_some() {}
    }
}

fn start_3(name: &str, options: Options, tell: UnboundedSender<Seen>) -> Handle {
    use rumqttc::{Event, Outgoing, Packet};

    let (host, port, transport) = address();
    let mut asked = rumqttc::MqttOptions::new(format!("{}-{name}", variable("NAME")), host, port);
    asked.set_transport(transport).set_clean_session(!options.keep);
    asked.set_credentials(user(&options), variable("PASSWORD"));
    if let Some((topic, payload)) = options.will {
        asked.set_last_will(rumqttc::LastWill::new(topic, payload, qos_3(1), false));
    }
    let (client, mut events) = rumqttc::AsyncClient::new(asked, REQUESTS_MAX);
    tokio::spawn(async move {
        loop {
            let seen = match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    Seen::Connected { session_present: ack.session_present }
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    Seen::Answered(format!("{:?}", ack.return_codes[0]))
                }
                Ok(Event::Incoming(Packet::UnsubAck(_) | Packet::PubAck(_))) => {
                    Seen::Answered("Success".to_owned())
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => Seen::Message(Box::new(Message {
                    payload: text(&publish.payload),
                    topic: publish.topic,
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    given: Given::default(),
                })),
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(_) => continue,
                Err(error) => Seen::Lost(error.to_string()),
            };
            let is_lost = matches!(seen, Seen::Lost(_));
            if tell.send(seen).is_err() || is_lost {
                return;
            }
        }
    });
    Handle::V3(client)
}

fn start_5(name: &str, options: Options, tell: UnboundedSender<Seen>) -> Handle {
    use rumqttc::Outgoing;
    use v5::{Event, mqttbytes::v5::Packet};

    let (host, port, transport) = address();
    let mut asked = v5::MqttOptions::new(format!("{}-{name}", variable("NAME")), host, port);
    asked.set_transport(transport).set_clean_start(!options.keep);
    asked.set_session_expiry_interval(options.keep.then_some(EXPIRY_SECS));
    asked.set_credentials(user(&options), variable("PASSWORD"));
    if let Some((topic, payload)) = options.will {
        asked.set_last_will(v5::mqttbytes::v5::LastWill::new(
            topic,
            payload,
            qos_5(1),
            false,
            None,
        ));
    }
    let (client, mut events) = v5::AsyncClient::new(asked, REQUESTS_MAX);
    tokio::spawn(async move {
        loop {
            let seen = match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                    Seen::Connected { session_present: ack.session_present }
                }
                Ok(Event::Incoming(Packet::SubAck(ack))) => {
                    Seen::Answered(format!("{:?}", ack.return_codes[0]))
                }
                Ok(Event::Incoming(Packet::UnsubAck(ack))) => {
                    Seen::Answered(format!("{:?}", ack.reasons[0]))
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    Seen::Answered(format!("{:?}", ack.reason))
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => Seen::Message(Box::new(Message {
                    payload: text(&publish.payload),
                    topic: text(&publish.topic),
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    given: publish.properties.unwrap_or_default(),
                })),
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                Ok(_) => continue,
                Err(error) => Seen::Lost(error.to_string()),
            };
            let is_lost = matches!(seen, Seen::Lost(_));
            if tell.send(seen).is_err() || is_lost {
                return;
            }
        }
    });
    Handle::V5(client)
}

/// Returns the host, or the URL of a WebSocket, the port and the transport.
fn address() -> (String, u16, Transport) {
    let url = variable("URL");
    let (scheme, rest) = url.split_once("://").expect("run.py gives a URL");
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').expect("run.py names the port");
    let port = port.parse().expect("run.py gives a port that is a number");
    let tls = || {
        let ca = fs::read(variable("CA")).expect("run.py gives a file that can be read");
        TlsConfiguration::Simple { ca, alpn: None, client_auth: None }
    };
    match scheme {
        "mqtts" => (host.to_owned(), port, Transport::Tls(tls())),
        "ws" => (url.clone(), port, Transport::Ws),
        "wss" => (url.clone(), port, Transport::Wss(tls())),
        _ => (host.to_owned(), port, Transport::Tcp),
    }
}

fn user(options: &Options) -> String {
    options.user.clone().unwrap_or_else(|| variable("USERNAME"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn qos_3(number: u8) -> rumqttc::QoS {
    rumqttc::qos(number).expect("0, 1 or 2")
}

fn qos_5(number: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(number).expect("0, 1 or 2")
}
