//! One client of the fleet: connects, sends PINGREQ or stays silent, and notices when it is
//! disconnected.

use std::{io, net::SocketAddr, time::Duration};

use hearthmq::mqtt::{Connect, ConnectProperties, Packet, ProtocolVersion, encode};
use indicatif::ProgressBar;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

const KEEP_ALIVE_SECS: u16 = 4;
const WATCHED: Duration = Duration::from_secs(48);
/// CONNACK with success, and PINGREQ.
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
const PING: [u8; 2] = [0xC0, 0];

/// Returns how long the connection lasted; `None` if it still does.
pub(crate) async fn live(
    client_id: &str,
    speaks: bool,
    mqtt: SocketAddr,
    (username, password): &(String, String),
    connected: &ProgressBar,
) -> io::Result<Option<Duration>> {
    let connect = Packet::Connect(Box::new(Connect {
        version: ProtocolVersion::V3_1_1,
        is_bridge: false,
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
    let mut stream = TcpStream::connect(mqtt).await?;
    stream.write_all(&bytes).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    connected.inc(1);
    if answer != ACCEPTED {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let began = Instant::now();
    let pause = Duration::from_secs(u64::from(KEEP_ALIVE_SECS) / 2);
    while began.elapsed() < WATCHED {
        // Reading notices the end of the connection; its
        // timeout is the moment for the next PINGREQ.
        match timeout(pause, stream.read(&mut [0; 16])).await {
            Ok(Ok(0) | Err(_)) => return Ok(Some(began.elapsed())),
            Ok(Ok(_)) => {} // PINGRESP
            Err(_) if speaks => stream.write_all(&PING).await?,
            Err(_) => {}
        }
    }
    Ok(None)
}
