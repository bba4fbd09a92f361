//! A caller of the REST interface that controls every byte it sends, and the parsed answer. Knows
//! neither the program nor TLS: it works on any stream.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Returns the value of `Authorization` for `user:password`.
pub fn basic(user_and_password: &str) -> String {
    format!("Basic {}", STANDARD.encode(user_and_password))
}

/// Returns `METHOD target` as an HTTP/1.1 request without a body, after which the server closes.
pub fn request(line: &str, authorization: Option<&str>) -> String {
    let header = authorization.map_or_else(String::new, |it| format!("Authorization: {it}\r\n"));
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n{header}\r\n"
    )
}

/// Sends a request and reads until the server closes.
pub fn exchange(
    mut stream: impl Read + Write,
    request: impl AsRef<[u8]>,
) -> std::io::Result<Answer> {
    stream.write_all(request.as_ref())?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A server that has answered may close without the closing alert of TLS.
        Err(error) if bytes.is_empty() => Err(error),
        _ if bytes.is_empty() => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Answer::parse(std::str::from_utf8(&bytes).unwrap())),
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status line and the headers as sent.
    pub head: String,
    pub status: u16,
    headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let mut headers = BTreeMap::new();
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            let values: &mut String = headers.entry(name.to_lowercase()).or_default();
            if !values.is_empty() {
                values.push_str(", "); // RFC 9110, section 5.3
            }
            values.push_str(value);
        }
        Self {
            head: head.to_owned(),
            status: status.parse().unwrap(),
            headers,
            body: body.to_owned(),
        }
    }

    /// Returns the value of a header, named in lower case; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns status and body.
    pub fn outcome(&self) -> (u16, &str) {
        (self.status, &self.body)
    }

    /// Returns status and `code`, after checking that the body has the form of every failure.
    pub fn failure(&self) -> (u16, String) {
        let body: serde_json::Value = serde_json::from_str(&self.body).expect(&self.body);
        let fields: Vec<_> = body.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["code", "message", "success"]);
        assert_eq!(body["success"], false);
        let message = body["message"].as_str().unwrap();
        assert!(message.ends_with('.') && message.len() > 10, "{message}");
        assert_eq!(self.header("content-type"), "application/json");
        (self.status, body["code"].as_str().unwrap().into())
    }
}
