//! What can be asked of the broker about one live client: the verbs behind the REST calls.
//!
//! Types only. The broker's handle implements [`Control`], `http` and embedding applications call
//! it; neither knows the other.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;

/// Change the Keep Alive of a live connection, at once and until it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetKeepAlive {
    /// The client whose connection is meant.
    pub client_id: String,
    /// The new Keep Alive, in seconds.
    pub interval_secs: u16,
    /// The user name of who asked, for the event that reports the change.
    pub by: Option<Arc<str>>,
}

/// A Keep Alive was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveChanged {
    /// What was in force before, in seconds.
    pub old_secs: u16,
    /// What is in force now, in seconds.
    pub new_secs: u16,
}

/// Send clients to another server: their connections end with DISCONNECT and a Server Reference,
/// where their version has that. [MQTT 5.0, 4.11]
#[derive(Clone, Debug)]
pub struct Redirect {
    /// Whose connections are meant.
    pub clients: Clients,
    /// Where they are sent.
    pub to: Redirection,
    /// Whom among them the one who asks may control; `None` is everybody.
    pub only: Option<ClientFilter>,
}

/// Some of the clients that are connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clients {
    /// The one with this identifier.
    One(String),
    /// Those whose identifier matches.
    Matching(ClientPattern),
}

/// A pattern for client identifiers: `*` stands for any text, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPattern {
    /// Without two asterisks in a row.
    text: Box<str>,
    /// The bytes that stand for themselves.
    literal_bytes: usize,
}

/// The longest client identifier that there can be. [MQTT 5.0, 1.5.4]
const CLIENT_ID_BYTES_MAX: usize = 65_535;
/// A pattern is held against every client on the thread that serves them.
const ASTERISKS_MAX: usize = 16;

impl ClientPattern {
    /// `*` alone matches everybody; several in a row are one.
    ///
    /// # Errors
    /// If it has more than 16 asterisks, or more other bytes than a client identifier can have.
    pub fn new(pattern: &str) -> Result<Self, ClientPatternError> {
        let mut text = String::new();
        for character in pattern.chars() {
            if character != '*' || !text.ends_with('*') {
                text.push(character);
            }
        }
        let asterisks = text.matches('*').count();
        let literal_bytes = text.len() - asterisks;
        if asterisks > ASTERISKS_MAX || literal_bytes > CLIENT_ID_BYTES_MAX {
            return Err(ClientPatternError);
        }
        Ok(Self { text: text.into(), literal_bytes })
    }

    /// Whether it matches everybody.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        *self.text == *"*"
    }

    /// Whether it matches all of `client_id`; takes time in proportion to that. What is between
    /// two asterisks is looked for once: the first place is as good as any other.
    #[must_use]
    pub fn matches(&self, client_id: &str) -> bool {
        if self.literal_bytes > client_id.len() {
            return false;
        }
        let Some((first, rest)) = self.text.split_once('*') else {
            return *self.text == *client_id;
        };
        let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = client_id.strip_prefix(first).and_then(|inner| inner.strip_suffix(last));
        let mut pieces = between.split('*');
        inner.is_some_and(|mut inner| {
            pieces.all(|piece| {
                let found = inner.find(piece);
                inner = found.map_or("", |at| &inner[at + piece.len()..]);
                found.is_some()
            })
        })
    }
}

/// A text that is no pattern for client identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has at most 16 asterisks and 65535 other bytes")]
pub struct ClientPatternError;

impl ClientPattern {
    /// The pattern as it was given, without two asterisks in a row.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Decides about a client identifier.
#[derive(Clone)]
pub struct ClientFilter(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl fmt::Debug for ClientFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientFilter")
    }
}

/// Another server that clients are to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    server_reference: Arc<str>,
    is_permanent: bool,
}

/// A Server Reference has room in the smallest packets that clients can be expected to take.
const SERVER_REFERENCE_BYTES_MAX: usize = 1024;

impl Redirection {
    /// Use another server (0x9C), or where it is permanent Server moved (0x9D). The reference is
    /// what clients make something of: `host:port` each as a rule, with spaces between them.
    ///
    /// # Errors
    /// If the reference is empty, longer than 1,024 bytes or has control characters.
    pub fn new(server_reference: &str, is_permanent: bool) -> Result<Self, ServerReferenceError> {
        let is_fine = (1..=SERVER_REFERENCE_BYTES_MAX).contains(&server_reference.len())
            && !server_reference.contains(char::is_control);
        if !is_fine {
            return Err(ServerReferenceError);
        }
        Ok(Self { server_reference: server_reference.into(), is_permanent })
    }

    /// Server Reference.
    #[must_use]
    pub const fn server_reference(&self) -> &Arc<str> {
        &self.server_reference
    }

    /// Whether clients should use the other server from now on, or for the time being.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.is_permanent
    }
}

/// A text that is no Server Reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a server reference has 1 to 1024 bytes of UTF-8 and no control characters")]
pub struct ServerReferenceError;

/// Why the broker did not do what it was asked for. Nothing has been changed, but that of many
/// clients who were to be sent away some may have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No client of this identifier is connected.
    #[error("client is not connected")]
    NotOnline,
    /// The client connected with Keep Alive 0, which stays off.
    #[error("client has its keep alive turned off")]
    KeepAliveDisabled,
    /// An interval of 0, which would turn Keep Alive off: only the client may.
    #[error("an interval of 0 is not allowed")]
    InvalidInterval,
    /// The broker is shutting down, or the connection cannot take one more request now.
    #[error("broker cannot take the request now")]
    Unavailable,
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
}

/// The broker, as those see it who control live clients.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// Changes the Keep Alive of a live connection.
    async fn set_keep_alive(&self, request: SetKeepAlive)
    -> Result<KeepAliveChanged, ControlError>;

    /// Whether a client is connected now: the live state, not a cache. An identifier never seen
    /// is not connected.
    async fn query_online(&self, client_id: &str) -> Result<bool, ControlError>;

    /// The same for many clients, each with an answer of its own, in their order.
    async fn query_each_online(&self, client_ids: Vec<String>) -> Vec<Result<bool, ControlError>> {
        join_all(client_ids.iter().map(|client_id| self.query_online(client_id))).await
    }

    /// [`Control::set_keep_alive`] for many clients, each with an answer of its own, in their order.
    async fn set_each_keep_alive(
        &self,
        requests: Vec<SetKeepAlive>,
    ) -> Vec<Result<KeepAliveChanged, ControlError>> {
        join_all(requests.into_iter().map(|request| self.set_keep_alive(request))).await
    }

    /// Sends clients to another server; how many. Ends when the future is dropped; those that
    /// were sent away by then, or before an error, have gone.
    async fn redirect(&self, request: Redirect) -> Result<usize, ControlError>;

    /// Refuses clients from now on, as [`Control::drain`], and sends away those that are there,
    /// as [`Control::redirect`]. If that fails, or the future is dropped, clients are taken or
    /// refused as before, unless somebody else has decided about that meanwhile.
    async fn evacuate(&self, request: Redirect) -> Result<usize, ControlError>;

    /// Refuses clients from now on and names them another server; with `None`, takes them again.
    /// Those that are connected stay.
    fn drain(&self, to: Option<Redirection>);

    /// The server that clients are sent to which would connect now, if they are refused.
    fn drained_to(&self) -> Option<Redirection> {
        None
    }

    /// Whether clients and callers are welcome; not once the broker is shutting down.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether durable messages are taken: what they need to be kept can be written.
    fn is_storing(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asterisks_stand_for_any_text() {
        let matches =
            |pattern: &str, text: &str| ClientPattern::new(pattern).unwrap().matches(text);
        for (pattern, text) in [
            ("*", ""),
            ("*", "a"),
            ("**", "a"),
            ("a", "a"),
            ("a*", "a"),
            ("a*", "abc"),
            ("*a", "bca"),
            ("a*a", "aa"),
            ("a*b*c", "a-b-b-c"),
            ("*b*", "abc"),
            ("a?", "a?"),
            ("", ""),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", "A"),
            ("a*a", "a"),
            ("a*b*c", "a-c"),
            ("*b*", "ac"),
            ("a?", "ab"),
            ("a*b*b", "ab"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn asterisks_in_a_row_are_one() {
        assert_eq!(ClientPattern::new("a***b**"), ClientPattern::new("a*b*"));
        assert!(ClientPattern::new(&"*".repeat(100_000)).unwrap().is_everybody());
        assert!(!ClientPattern::new("").unwrap().is_everybody());
    }

    #[test]
    fn a_pattern_that_no_client_needs_is_refused() {
        let longest = "x".repeat(65_535);
        assert!(ClientPattern::new(&longest).unwrap().matches(&longest));
        let with_asterisks =
            format!("{longest}{}", "*a".repeat(16)).replacen(&"x".repeat(16), "", 1);
        assert!(ClientPattern::new(&with_asterisks).is_ok());
        for pattern in [format!("{longest}x"), format!("*x{longest}"), "*a".repeat(17)] {
            assert_eq!(ClientPattern::new(&pattern), Err(ClientPatternError));
        }
    }
}
