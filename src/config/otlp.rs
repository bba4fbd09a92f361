//! `[otlp]`: where metrics and traces are exported, and which.
//!
//! The standard variables of OpenTelemetry fill in what the table leaves empty. Plain data, and the
//! [`Otlp`] that it describes; the command line reads the files.

use std::{fs, num::NonZeroU32, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::otlp::{Otlp, OtlpError, OtlpUrl, TraceOptions};

/// Variables of the specification of OpenTelemetry.
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const RESOURCE_ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// `[otlp]`: the export to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpConfig {
    /// The URL of the collector; empty = that of the environment, or none.
    pub endpoint: String,
    /// Whether `http` may lead to another machine.
    pub allow_http: bool,
    /// A PEM file of the certification authorities that are trusted for it; empty = those of the
    /// system.
    pub ca: PathBuf,
    /// A file with further headers, one `Name: value` in each line; empty = none.
    pub headers_file: PathBuf,
    /// Milliseconds that a request to the collector may take.
    pub timeout_ms: u32,
    /// The name of the service; empty = that of the environment, or `hearthmq`.
    pub service_name: String,
    /// Further attributes of the resource, `name=value`.
    pub resource_attributes: Vec<String>,
    /// Seconds between two exports of all metrics; 0 = they are not exported.
    pub metrics_interval_secs: u32,
    /// Whether messages and calls are traced.
    pub traces: bool,
    /// The share, in percent, of those traces that their callers record.
    pub traces_percent: u8,
    /// Maximum number of messages and calls that are traced in a second.
    pub traces_per_sec_max: u32,
    /// Whether spans have the topics of messages.
    pub trace_topics: bool,
    /// Whether spans have client identifiers.
    pub trace_client_ids: bool,
    /// Maximum number of spans for the deliveries of one message.
    pub trace_deliveries_max: u16,
    /// Maximum number of spans that wait to be exported.
    pub queue_spans_max: u32,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        let traces = TraceOptions::default();
        Self {
            endpoint: String::new(),
            allow_http: false,
            ca: PathBuf::new(),
            headers_file: PathBuf::new(),
            timeout_ms: 10_000,
            service_name: String::new(),
            resource_attributes: Vec::new(),
            metrics_interval_secs: 60,
            traces: true,
            traces_percent: traces.percent,
            traces_per_sec_max: traces.per_sec_max.get(),
            trace_topics: traces.shows_topics,
            trace_client_ids: traces.shows_client_ids,
            trace_deliveries_max: traces.deliveries_max,
            queue_spans_max: traces.queue_spans_max,
        }
    }
}

/// An option of `[otlp]`, or a variable of OpenTelemetry, is invalid.
#[derive(Debug, thiserror::Error)]
#[error("{option}: {why}")]
pub struct OtlpConfigError {
    /// The option, as `otlp.endpoint`, or the variable.
    pub option: &'static str,
    /// The fault, and its remedy.
    pub why: String,
}

impl OtlpConfigError {
    fn new(option: &'static str, why: impl ToString) -> Self {
        Self { option, why: why.to_string() }
    }
}

impl OtlpConfig {
    /// Returns the export, with what the environment adds; `None` if there is no endpoint. Reads the
    /// files that it names.
    ///
    /// # Errors
    /// The first option or variable that is invalid, or a file that cannot be read.
    pub fn export(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Otlp>, OtlpConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_disabled = variable(DISABLED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let (option, endpoint) = match &*self.endpoint {
            // The environment may be that of a whole machine;
            // an endpoint in the file is an explicit wish.
            "" => (ENDPOINT, variable(ENDPOINT).filter(|_| !is_disabled)),
            endpoint => ("otlp.endpoint", Some(endpoint.to_owned())),
        };
        let Some(endpoint) = endpoint else { return Ok(None) };
        let mut otlp = self.without_files(option, &endpoint)?;
        for (name, value) in pairs(&variable(HEADERS).unwrap_or_default(), HEADERS)? {
            otlp = otlp.header(&name, &value).map_err(|why| OtlpConfigError::new(HEADERS, why))?;
        }
        // After the environment, so that the file replaces headers of the same name.
        for (name, value) in self.headers_of_file()? {
            let added = otlp.header(&name, &value);
            otlp = added.map_err(|why| OtlpConfigError::new("otlp.headers_file", why))?;
        }
        let given = variable(RESOURCE_ATTRIBUTES).unwrap_or_default();
        let given = pairs(&given, RESOURCE_ATTRIBUTES)?;
        let named = given.iter().find(|(name, _)| name == "service.name");
        let service_name = Some(self.service_name.clone()).filter(|name| !name.is_empty());
        // The order of the specification: the variable of its own, then the attribute.
        let service_name = service_name
            .or_else(|| variable(SERVICE_NAME))
            .or_else(|| named.map(|(_, value)| value.clone()));
        if let Some(name) = service_name {
            otlp = otlp.service_name(&name);
        }
        for (name, value) in given {
            let added = otlp.resource(&name, &value);
            otlp = added.map_err(|why| OtlpConfigError::new(RESOURCE_ATTRIBUTES, why))?;
        }
        // After those of the environment, which they replace.
        otlp = self.with_resource(otlp)?;
        match self.ca.as_os_str().is_empty() {
            true => Ok(Some(otlp)),
            false => otlp
                .trusting(&self.ca)
                .map(Some)
                .map_err(|error| OtlpConfigError::new("otlp.ca", error)),
        }
    }

    /// Checks the options, without files and environment.
    pub(super) fn check(&self) -> Result<(), OtlpConfigError> {
        let endpoint = match &*self.endpoint {
            "" => "http://localhost:4318",
            endpoint => endpoint,
        };
        self.with_resource(self.without_files("otlp.endpoint", endpoint)?).map(drop)
    }

    fn without_files(&self, option: &'static str, endpoint: &str) -> Result<Otlp, OtlpConfigError> {
        let url = match self.allow_http {
            true => OtlpUrl::unencrypted(endpoint),
            false => OtlpUrl::new(endpoint),
        };
        let url = url.map_err(|error| {
            let may_be_allowed = matches!(error, OtlpError::NotEncrypted(_));
            // The error is of the library, which does not know the name of the option.
            let hint = if may_be_allowed { " (otlp.allow_http)" } else { "" };
            OtlpConfigError::new(option, format!("{error}{hint}"))
        })?;
        let seconds = u64::from(self.metrics_interval_secs);
        let traces = TraceOptions {
            percent: self.traces_percent,
            // 0 was refused with the other options that must be at least 1.
            per_sec_max: NonZeroU32::new(self.traces_per_sec_max).unwrap_or(NonZeroU32::MIN),
            shows_topics: self.trace_topics,
            shows_client_ids: self.trace_client_ids,
            deliveries_max: self.trace_deliveries_max,
            queue_spans_max: self.queue_spans_max,
        };
        Ok(Otlp::new(url)
            .timeout(Duration::from_millis(self.timeout_ms.into()))
            // 0 turns the export of metrics off.
            .metrics_interval((seconds > 0).then(|| Duration::from_secs(seconds)))
            .traces(Some(traces).filter(|_| self.traces)))
    }

    fn with_resource(&self, mut otlp: Otlp) -> Result<Otlp, OtlpConfigError> {
        const OPTION: &str = "otlp.resource_attributes";
        for text in &self.resource_attributes {
            let fault = || OtlpConfigError::new(OPTION, format!("{text:?} is not name=value"));
            let (name, value) = text.split_once('=').ok_or_else(fault)?;
            let added = otlp.resource(name.trim(), value.trim());
            otlp = added.map_err(|error| OtlpConfigError::new(OPTION, error))?;
        }
        Ok(otlp)
    }

    /// Reads the headers of the file.
    fn headers_of_file(&self) -> Result<Vec<(String, String)>, OtlpConfigError> {
        const OPTION: &str = "otlp.headers_file";
        if self.headers_file.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        let path = self.headers_file.display();
        let text = fs::read_to_string(&self.headers_file)
            .map_err(|error| OtlpConfigError::new(OPTION, format!("{path}: {error}")))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.trim().to_owned(), value.trim().to_owned()))
        };
        // The line may be a secret, so it is not shown.
        let fault =
            || OtlpConfigError::new(OPTION, format!("{path}: a line is not \"Name: value\""));
        lines.map(|line| header(line).ok_or_else(fault)).collect()
    }
}

/// Parses a list of the environment: `key=value,key=value`, percent-encoded as in W3C Baggage.
fn pairs(text: &str, variable: &'static str) -> Result<Vec<(String, String)>, OtlpConfigError> {
    let fault = || OtlpConfigError::new(variable, "write name=value,name=value");
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let (name, value) = item.split_once('=').ok_or_else(fault)?;
            let decoded = |text: &str| {
                percent_decoded(text.trim()).filter(|text| !text.is_empty()).ok_or_else(fault)
            };
            Ok((decoded(name)?, percent_decoded(value.trim()).ok_or_else(fault)?))
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            // Bytes first, text at the end: a character may take several encoded bytes.
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported(
        config: &OtlpConfig,
        variables: &[(&str, &str)],
    ) -> Result<Option<Otlp>, OtlpConfigError> {
        let found = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        config.export(found)
    }

    #[test]
    fn nothing_is_exported_without_an_endpoint() {
        let config = OtlpConfig::default();
        assert!(exported(&config, &[]).expect("valid").is_none());
        assert!(exported(&config, &[(ENDPOINT, "")]).expect("valid").is_none());
        let local = (ENDPOINT, "http://localhost:4318");
        assert!(exported(&config, &[local]).expect("valid").is_some());
        assert!(exported(&config, &[local, (DISABLED, "TRUE")]).expect("valid").is_none());
    }

    #[test]
    fn the_table_comes_before_the_environment() {
        let config = OtlpConfig {
            endpoint: "https://a.example".to_owned(),
            resource_attributes: vec!["team=south".to_owned()],
            ..OtlpConfig::default()
        };
        let variables = [
            (ENDPOINT, "http://elsewhere:4318"),
            (SERVICE_NAME, "fleet"),
            (RESOURCE_ATTRIBUTES, "service.name=other,team=north,site=Gro%C3%9F"),
            (HEADERS, "api-key=s%3Dcret"),
        ];
        let otlp = exported(&config, &variables).expect("valid").expect("an endpoint");
        let shown = format!("{otlp:?}");
        assert!(shown.contains("a.example") && shown.contains("fleet"), "{shown}");
        assert!(!shown.contains("cret"), "{shown}");
        let named = OtlpConfig { service_name: "mine".to_owned(), ..config };
        let otlp = exported(&named, &variables).expect("valid").expect("an endpoint");
        assert!(format!("{otlp:?}").contains("mine"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let config = OtlpConfig::default();
        for (variables, option) in [
            ([(ENDPOINT, "http://collector:4318"), (HEADERS, "")], ENDPOINT),
            ([(ENDPOINT, "http://localhost"), (HEADERS, "api-key")], HEADERS),
            ([(ENDPOINT, "http://localhost"), (HEADERS, "a=%zz")], HEADERS),
            ([(ENDPOINT, "http://localhost"), (RESOURCE_ATTRIBUTES, "=x")], RESOURCE_ATTRIBUTES),
        ] {
            let error = exported(&config, &variables).expect_err("invalid");
            assert_eq!(error.option, option, "{error}");
        }
        let unencrypted = OtlpConfig { endpoint: "http://collector:4318".to_owned(), ..config };
        let error = unencrypted.check().expect_err("invalid").to_string();
        assert!(error.contains("otlp.allow_http"), "{error}");
        assert!(OtlpConfig { allow_http: true, ..unencrypted }.check().is_ok());
        let attributes =
            OtlpConfig { resource_attributes: vec!["team".to_owned()], ..OtlpConfig::default() };
        assert_eq!(attributes.check().expect_err("invalid").option, "otlp.resource_attributes");
    }
}
