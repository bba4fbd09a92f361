//! Where a list goes on, as a text that callers pass back and do not read.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::super::ApiError;

/// The first byte of a cursor. Another form of cursor will begin with another byte.
const AFTER_KEY: u8 = 1;

/// Returns the cursor for the items behind the one with this key.
pub(super) fn after(key: &str) -> String {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(AFTER_KEY);
    bytes.extend_from_slice(key.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the key of the item behind which a list goes on.
pub(super) fn key_of(cursor: &str) -> Result<Arc<str>, ApiError> {
    let key = || {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (AFTER_KEY, key) = bytes.split_first().map(|(first, key)| (*first, key))? else {
            return None;
        };
        Some(Arc::from(std::str::from_utf8(key).ok()?))
    };
    key().ok_or_else(invalid)
}

/// Returns the error about a text that is not a cursor of the call.
pub(super) fn invalid() -> ApiError {
    ApiError::invalid_parameter("cursor", "must be the next of an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_has_any_key_and_fits_a_query() {
        for key in ["", "a", "a/b?&=+#%ü", "\u{1}"] {
            let cursor = after(key);
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            assert!(cursor.bytes().all(is_plain), "{cursor}");
            assert_eq!(key_of(&cursor).as_deref(), Ok(key));
        }
        for cursor in ["", "a", "*", "Ag", "Af8", "AWE="] {
            assert_eq!(key_of(cursor).map_err(|e| e.code()), Err("invalid_parameter"), "{cursor}");
        }
    }
}
