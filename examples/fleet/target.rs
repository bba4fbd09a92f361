//! The broker that the fleet connects to: one in this process, or a running one.

use std::{env, error::Error, net::SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearthmq::{Broker, auth::AllowAll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) struct Target {
    pub(crate) mqtt: SocketAddr,
    /// User name and password.
    pub(crate) login: (String, String),
    control: Control,
}

enum Control {
    Library(Broker),
    Rest(SocketAddr),
}

/// Chooses it by the command line.
pub(crate) async fn choose() -> Result<Target, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, mqtt, http, login] = arguments.as_slice()
        && flag == "--broker"
    {
        let (user, password) = login.split_once(':').ok_or("the login is USER:PASSWORD")?;
        return Ok(Target {
            mqtt: mqtt.parse()?,
            login: (user.into(), password.into()),
            control: Control::Rest(http.parse()?),
        });
    }
    let builder = Broker::builder().tcp("127.0.0.1:0");
    let builder = builder.authenticator(AllowAll).authorizer(AllowAll);
    let broker = builder.start().await?;
    Ok(Target {
        mqtt: broker.local_addrs()[0],
        login: ("fleet".into(), String::new()),
        control: Control::Library(broker),
    })
}

impl Target {
    pub(crate) async fn set_keep_alive(&self, id: &str, secs: u16) -> Result<(), Box<dyn Error>> {
        let http = match &self.control {
            Control::Library(broker) => {
                broker.set_keep_alive(id, secs).await?;
                return Ok(());
            }
            Control::Rest(http) => http,
        };
        let (user, password) = &self.login;
        let login = STANDARD.encode(format!("{user}:{password}"));
        let request = format!(
            "POST /keep-alive?client-id={id}&interval={secs} HTTP/1.1\r\nHost: {http}\r\n\
             Authorization: Basic {login}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(http).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(answer.into()),
        }
    }
}
