//! The text of one level of a Topic Filter, as stored in a node of the tree.

/// Chosen so that a node fills one cache line.
const SHORT_BYTES_MAX: usize = 22;

/// Nearly all levels are short; these are stored and compared without an allocation or a pointer.
#[derive(Debug)]
pub(super) enum Level {
    Short { len: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

impl Level {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text);
                Self::Short { len: text.len() as u8, bytes }
            }
            None => Self::Long(text.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text,
        }
    }
}
