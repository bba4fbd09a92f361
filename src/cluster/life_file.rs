//! The file with the numbers that a node remembers over its lives: that of its store, and its incarnation.
//!
//! Does not know what an incarnation is for. The driver of a node begins each life with it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::PathBuf,
};

use super::names::Incarnation;

/// The name of the file, in the directory of the data.
pub const LIFE_FILE_NAME: &str = "cluster-node";

/// The file of a node. Its content is a line with two numbers in decimal.
#[derive(Clone, Debug)]
pub struct LifeFile {
    directory: PathBuf,
}

impl LifeFile {
    /// Names the file in a directory, which no other process uses.
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the number of the store and the next incarnation, which is higher than `above`. Both survive
    /// a power cut when it returns.
    ///
    /// # Errors
    /// If the file cannot be read or written, or this function did not write it.
    pub fn begin_life(&self, above: Incarnation) -> io::Result<(u64, Incarnation)> {
        let path = self.directory.join(LIFE_FILE_NAME);
        // A file that cannot be read must not begin a new life: numbers could come twice.
        let (store, last) = match fs::read_to_string(&path) {
            Ok(text) => parsed(&text).ok_or_else(|| {
                let what = format!("{} is damaged", path.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (random()?, Incarnation(0)),
            Err(error) => return Err(error),
        };
        // Higher than any other life of this name, also one that another node has seen.
        let Some(next) = last.max(above).0.checked_add(1).map(Incarnation) else {
            return Err(io::Error::other("there is no higher incarnation"));
        };
        // Written beside its place, so that a crash leaves the old file or the new one.
        let draft = self.directory.join(format!("{LIFE_FILE_NAME}.new"));
        let mut file = File::create(&draft)?;
        writeln!(file, "{store} {}", next.0)?;
        file.sync_all()?;
        fs::rename(draft, path)?;
        // The new name itself must survive a power cut.
        File::open(&self.directory)?.sync_all()?;
        Ok((store, next))
    }
}

fn parsed(text: &str) -> Option<(u64, Incarnation)> {
    let (store, incarnation) = text.trim_end().split_once(' ')?;
    Some((store.parse().ok()?, Incarnation(incarnation.parse().ok()?)))
}

fn random() -> io::Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_is_higher_than_all_before_and_the_store_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = LifeFile::new(directory.path().to_owned());
        let (store, first) = file.begin_life(Incarnation(0)).unwrap();
        assert_eq!(first, Incarnation(1));
        assert_eq!(file.begin_life(Incarnation(0)).unwrap(), (store, Incarnation(2)));
        assert_eq!(file.begin_life(Incarnation(7)).unwrap(), (store, Incarnation(8)));
        assert_eq!(file.begin_life(Incarnation(3)).unwrap(), (store, Incarnation(9)));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = LifeFile::new(directory.path().to_owned());
        for text in ["", "1", "1 x", "1 2 3", "-1 2", "1 18446744073709551615"] {
            fs::write(directory.path().join(LIFE_FILE_NAME), text).unwrap();
            file.begin_life(Incarnation(0)).unwrap_err();
            let left = fs::read_to_string(directory.path().join(LIFE_FILE_NAME)).unwrap();
            assert_eq!(left, text);
        }
    }
}
