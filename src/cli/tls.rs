//! The TLS settings of all listeners, read at the start and again at a reload.

use std::net::SocketAddr;

use hearthmq::{
    config::Config,
    net::tls::{Alpn, TlsConfig, TlsError, TlsSource},
};

/// The TLS settings of all listeners. Listeners with the same settings share them.
#[derive(Default)]
pub(super) struct TlsSources {
    sources: Vec<(TlsConfig, Alpn, TlsSource)>,
}

impl TlsSources {
    /// Returns the settings of the listener at `address`.
    pub(super) fn at(
        &mut self,
        address: SocketAddr,
        alpn: Alpn,
        config: &Config,
    ) -> Result<TlsSource, TlsError> {
        let files = TlsConfig::from(&config.tls_at(&address.to_string()));
        let known = self.sources.iter().find(|known| known.0 == files && known.1 == alpn);
        if let Some((.., source)) = known {
            return Ok(source.clone());
        }
        let source = TlsSource::open(&files, alpn)?;
        self.sources.push((files, alpn, source.clone()));
        Ok(source)
    }

    /// Reads all files again. Files that are wrong change nothing.
    pub(super) fn reload(&self) {
        for (files, _, source) in &self.sources {
            let certificate = files.certificate.display();
            match source.reload() {
                Ok(()) => tracing::info!(%certificate, "TLS files read again"),
                Err(error) => {
                    tracing::error!(%certificate, "TLS settings stay as they were: {error}");
                }
            }
        }
    }
}
