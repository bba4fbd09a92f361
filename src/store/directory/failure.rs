//! Maps errors of the operating system to errors of the store.

use std::{
    io::{self, ErrorKind},
    path::Path,
};

use crate::store::StoreError;

impl StoreError {
    /// Maps an error of the operating system to the variant with the right remedy.
    pub(in crate::store::directory) fn io(
        doing: &'static str,
        path: &Path,
        source: io::Error,
    ) -> Self {
        let path = path.display().to_string();
        let is_full = matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        let is_read_only =
            matches!(source.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied);
        // A full disk is over as soon as there is room; operators read another remedy for the others.
        if is_full {
            Self::Full { path }
        } else if is_read_only {
            Self::ReadOnly { doing, path }
        } else {
            Self::Io { doing, path, source }
        }
    }
}
