//! Stands in for the layers that a build leaves out: TLS without the feature `tls`, WebSocket without
//! `websocket`.
//!
//! The settings of such a layer have no value, so no listener can have the layer, and the code that
//! would serve it is never reached.

#[cfg(not(feature = "tls"))]
pub(super) mod tls {
    use std::fmt;

    use crate::net::{admission::Admitted, newcomer::Shown, refused::Refused};

    #[derive(Clone, Debug)]
    pub(crate) enum TlsSource {}

    impl TlsSource {
        pub(in crate::net) const fn asks_for_certificate(&self) -> bool {
            match *self {}
        }
    }

    #[derive(Debug)]
    pub(crate) enum ClientCertificateError {}

    impl ClientCertificateError {
        pub(crate) const fn why(&self) -> &'static str {
            match *self {}
        }
    }

    impl fmt::Display for ClientCertificateError {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match *self {}
        }
    }

    pub(in crate::net) async fn secure<S>(
        _: S,
        source: &TlsSource,
        _: &mut Admitted,
    ) -> Result<(S, Shown), Refused> {
        match *source {}
    }
}

#[cfg(not(feature = "websocket"))]
pub(super) mod websocket {
    use crate::net::refused::Refused;

    #[derive(Clone, Debug)]
    pub(crate) enum WebSocketOptions {}

    impl WebSocketOptions {
        pub(in crate::net) const fn path(&self) -> &str {
            match *self {}
        }

        pub(crate) const fn set_origins(&mut self, _: &Self) {
            match *self {}
        }
    }

    pub(in crate::net) async fn accept<S>(
        _: S,
        options: &WebSocketOptions,
        _: bool,
    ) -> Result<S, Refused> {
        match *options {}
    }
}
