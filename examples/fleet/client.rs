//! The clients of the fleet, and the calls on a broker that is not in this process.

use std::{error::Error, io, net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::mqtt::{Connect, ConnectProperties, Packet, ProtocolVersion, encode};
use indicatif::ProgressBar;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

pub(crate) const CLIENTS: usize = 1_000;
const KEEP_ALIVE_SECS: u16 = 4;
const WATCHED: Duration = Duration::from_secs(48);

/// A broker somewhere.
#[derive(Clone)]
pub(crate) struct Remote {
    mqtt: SocketAddr,
    http: Option<SocketAddr>,
    login: String,
}

impl Remote {
    pub(crate) fn of(mqtt: SocketAddr) -> Self {
        Self {
            mqtt,
            http: None,
            login: "fleet:".into(),
        }
    }

    pub(crate) fn new(mqtt: &str, http: &str, login: &str) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            mqtt: mqtt.parse()?,
            http: Some(http.parse()?),
            login: login.into(),
        })
    }

    pub(crate) async fn set_keep_alive(&self, client_id: &str, secs: u16) -> io::Result<()> {
        let Some(http) = self.http else { return Ok(()) };
        let mut stream = TcpStream::connect(http).await?;
        let login = STANDARD.encode(&self.login);
        let request = format!(
            "POST /keep-alive?client-id={client_id}&interval={secs} HTTP/1.1\r\nHost: {http}\r\n\
             Authorization: Basic {login}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        answer
            .starts_with("HTTP/1.1 200")
            .then_some(())
            .ok_or_else(|| io::Error::other(answer))
    }
}

/// Connects a client and watches its connection: how long it lasted, `None` if it still does.
pub(crate) async fn live(
    client_id: &str,
    speaks: bool,
    remote: &Remote,
    connected: &ProgressBar,
) -> io::Result<Option<Duration>> {
    let (username, password) = remote.login.split_once(':').unwrap_or((&remote.login, ""));
    let connect = Packet::Connect(Box::new(Connect {
        version: ProtocolVersion::V3_1_1,
        clean_start: true,
        keep_alive: KEEP_ALIVE_SECS,
        client_id,
        will: None,
        username: Some(username),
        password: Some(password.as_bytes()),
        properties: ConnectProperties::default(),
    }));
    let mut bytes = Vec::new();
    encode(&connect, ProtocolVersion::V3_1_1, &mut bytes).map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(remote.mqtt).await?;
    stream.write_all(&bytes).await?;
    if stream.read_u32().await? != 0x2002_0000 {
        return Err(io::Error::other("the broker does not let the fleet in"));
    }
    connected.inc(1);
    let began = Instant::now();
    while began.elapsed() < WATCHED {
        let half = Duration::from_secs(u64::from(KEEP_ALIVE_SECS) / 2);
        match timeout(half, stream.read(&mut [0; 16])).await {
            Ok(Ok(0) | Err(_)) => return Ok(Some(began.elapsed())),
            Ok(Ok(_)) => {}                                          // PINGRESP
            Err(_) if speaks => stream.write_all(&[0xC0, 0]).await?, // PINGREQ
            Err(_) => {}
        }
    }
    Ok(None)
}
