//! The span of a caller, as W3C Trace Context writes it.
//!
//! Knows neither MQTT nor HTTP: both carry the same text under the same name.

/// Name of the user property of MQTT 5.0, and of the header of HTTP.
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Number of bytes of a `traceparent` of version 00.
const BYTES: usize = 55;
/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// A trace, and the span in it that called the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    /// Whether the caller records the trace.
    pub(crate) is_sampled: bool,
}

impl TraceParent {
    /// Parses a `traceparent`. A later version may append fields, which are left out.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let [version] = hex(text.get(..2)?)?;
        // Version 0 has exactly this length; later ones may append fields behind a dash, and 0xFF is invalid.
        let has_its_length = match version {
            0 => text.len() == BYTES,
            0xFF => false,
            _ => text.len() == BYTES || text.get(BYTES) == Some(&b'-'),
        };
        if !has_its_length || [2, 35, 52].iter().any(|at| text[*at] != b'-') {
            return None;
        }
        let (trace_id, span_id) = (hex(&text[3..35])?, hex(&text[36..52])?);
        let [flags] = hex(&text[53..BYTES])?;
        // W3C Trace Context: identifiers of zeros alone are invalid.
        let is_valid = trace_id != [0; 16] && span_id != [0; 8];
        is_valid.then_some(Self { trace_id, span_id, is_sampled: flags & SAMPLED != 0 })
    }

    /// Returns whether the trace is one of this share of all traces, in percent. The decision follows
    /// from the trace alone, so that all services with the same share record the same traces.
    pub(crate) fn is_within(&self, percent: u8) -> bool {
        // The last 56 bits of a trace are random.
        let random = self.trace_id[9..].iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let rejected = (1_u64 << 56) / 100 * u64::from(100 - percent.min(100));
        percent > 0 && random >= rejected
    }
}

/// Decodes lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_is_read() {
        let parent = TraceParent::parse(GOOD).expect("it is one");
        assert_eq!(parent.trace_id[..3], [0x0A, 0xF7, 0x65]);
        assert_eq!(parent.span_id, [0xB7, 0xAD, 0x6B, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(parent.is_sampled);
        let unsampled = TraceParent::parse(&GOOD.replace("-01", "-00")).expect("it is one");
        assert!(!unsampled.is_sampled);
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let later = GOOD.replacen("00", "cc", 1);
        for text in [later.clone(), format!("{later}-what-will-come")] {
            assert!(TraceParent::parse(&text).is_some(), "{text}");
        }
        assert!(TraceParent::parse(&format!("{later}x")).is_none());
    }

    #[test]
    fn malformed_ones_are_refused() {
        let (trace, span) = (&GOOD[3..35], &GOOD[36..52]);
        for text in [
            String::new(),
            "00".to_owned(),
            GOOD[..54].to_owned(),
            format!("{GOOD}-extra"),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace(trace, &"0".repeat(32)),
            GOOD.replace(span, &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("01", "0x"),
            "ä".repeat(30),
        ] {
            assert_eq!(TraceParent::parse(&text), None, "{text}");
        }
    }

    #[test]
    fn a_share_of_traces_is_chosen_by_their_random_bits() {
        let of = |last: [u8; 7]| {
            let mut trace_id = [9; 16];
            trace_id[9..].copy_from_slice(&last);
            TraceParent { trace_id, span_id: [1; 8], is_sampled: true }
        };
        let (lowest, middle, highest) = (of([0; 7]), of([0x80, 0, 0, 0, 0, 0, 0]), of([0xFF; 7]));
        assert!(lowest.is_within(100) && !lowest.is_within(99));
        assert!(middle.is_within(51) && !middle.is_within(49));
        assert!(highest.is_within(1) && !highest.is_within(0));
    }
}
