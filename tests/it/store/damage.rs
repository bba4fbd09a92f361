//! Files that a power cut or a failing disk has changed: either everything made durable before
//! exists, or the store reports damage. It never panics.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use hearthmq::store::{DirectoryStore, Durability, MemoryStore, StoreError};

use super::{
    subject::{Directory, Subject as _},
    vocabulary::*,
};

/// Returns the position after the last nonzero byte of a file, as journals end with unused room.
fn used_bytes(path: &Path) -> u64 {
    let mut file = File::open(path).unwrap();
    let mut end = file.metadata().unwrap().len();
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let block = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start)).unwrap();
        file.read_exact(block).unwrap();
        if let Some(last) = block.iter().rposition(|byte| *byte != 0) {
            return start + last as u64 + 1;
        }
        end = start;
    }
    0
}

/// Returns a closed store with ten groups, and the end of its journal after each of them.
fn ten_groups() -> (Directory, Vec<u64>) {
    let mut subject = Directory::new();
    apply(subject.store(), &[put(100)]);
    let journal = subject.last_journal();
    let ends = (1..=10).map(|number| {
        let message = numbered(number, &[7; 100]);
        let group = [put(number), enqueue(number, 1, &message), enqueue(100, number, &message)];
        let durability = if number <= 5 { Durability::Synced } else { Durability::Written };
        subject.store().apply(&group, durability).unwrap();
        used_bytes(&journal)
    });
    let ends = ends.collect();
    subject.close();
    (subject, ends)
}

/// Returns whether the store has the first `groups` of [`ten_groups`], each complete, and nothing
/// else.
fn has_groups(store: &DirectoryStore, groups: u64) -> bool {
    let model = MemoryStore::default();
    apply(&model, &[put(100)]);
    for number in 1..=groups {
        let message = numbered(number, &[7; 100]);
        apply(&model, &[put(number), enqueue(number, 1, &message), enqueue(100, number, &message)]);
    }
    contents(store) == contents(&model)
}

#[test]
fn a_journal_that_is_cut_off_keeps_each_group_whole_or_not_at_all() {
    let (subject, ends) = ten_groups();
    let journal = subject.last_journal();
    let whole = fs::read(&journal).unwrap();
    for (groups, reached) in (1..).zip(&ends) {
        // In the middle of the next group, shortly after this one, exactly at its end.
        let next = ends.get(groups as usize).copied().unwrap_or(*reached);
        for cut in [next.midpoint(*reached), *reached + 1, *reached] {
            fs::write(&journal, &whole[..(cut.min(next)) as usize]).unwrap();
            let store = DirectoryStore::open(subject.dir.path()).unwrap();
            let expected = if cut >= next { groups + u64::from(next > *reached) } else { groups };
            assert!(has_groups(&store, expected), "{cut}");
            assert_eq!(store.examine().unwrap().faults, [""; 0]);
            // It continues from there.
            apply(&store, &[put(50)]);
            drop(store);
            let store = DirectoryStore::open(subject.dir.path()).unwrap();
            apply(&store, &[end(50)]);
            assert!(has_groups(&store, expected), "{cut}");
        }
    }
}

/// Checks the possible outcomes for a store with a changed byte: it is refused, or it has complete
/// groups from the first one on.
fn is_refused_or_has_whole_groups(dir: &Path) -> Result<(), String> {
    let store = match DirectoryStore::open(dir) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. } | StoreError::Io { .. } | StoreError::Newer { .. }) => {
            return Ok(());
        }
        Err(other) => return Err(other.to_string()),
    };
    let examined = store.examine().unwrap();
    if examined.faults_in_all > 0 || (0..=10).any(|groups| has_groups(&store, groups)) {
        return Ok(());
    }
    Err("it has something else".into())
}

#[test]
fn a_journal_with_a_changed_byte_is_refused_or_ends_there() {
    let (subject, ends) = ten_groups();
    let journal = subject.last_journal();
    let whole = fs::read(&journal).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut refused, mut opened) = (0, 0);
    for _ in 0..60 {
        let at = random.u64(..*ends.last().unwrap()) as usize;
        let mut changed = whole.clone();
        changed[at] ^= 1 << random.u32(..8);
        fs::write(&journal, changed).unwrap();
        match DirectoryStore::open(subject.dir.path()) {
            Err(error) => {
                assert!(matches!(error, StoreError::Damaged { .. }), "{at}: {error:?}");
                assert!(error.to_string().contains("restore it from a backup"), "{error}");
                refused += 1;
            }
            Ok(store) => {
                // It may end before the first change of all.
                let is_empty = contents(&store) == contents(&MemoryStore::default());
                assert!(is_empty || (0..=10).any(|groups| has_groups(&store, groups)), "{at}");
                opened += 1;
            }
        }
    }
    assert!(refused > 0 && opened > 0, "{refused} refused, {opened} opened");
}

/// Returns all files except journals, which have tests of their own.
fn data_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(data_files(&path));
        } else if path.extension().is_none_or(|end| end != "jnl") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn a_data_file_with_a_changed_byte_is_noticed() {
    let (mut subject, _) = ten_groups();
    subject.reopen();
    subject.directory_store().compact().unwrap();
    assert!(has_groups(subject.directory_store(), 10));
    subject.close();
    let copy = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for file in data_files(&subject.dir.path().join("store")) {
        let bytes = fs::read(&file).unwrap();
        for _ in 0..bytes.len().min(3) {
            let place = copy.path().join("data");
            let changed = place.join(file.strip_prefix(subject.dir.path()).unwrap());
            let at = random.usize(..bytes.len());
            if is_length_that_is_believed(&bytes, at) {
                continue;
            }
            copy_dir(subject.dir.path(), &place);
            change_byte(&changed, at, 1 << random.u32(..8));
            is_refused_or_has_whole_groups(&place)
                .unwrap_or_else(|what| panic!("{}: {what}", file.display()));
            fs::remove_dir_all(&place).unwrap();
        }
    }
}

/// Returns whether `at` is the number of a file's sections, after this mark. The database uses it
/// before it checks the checksum: a wrong one asks for up to 170 GB of memory, which no process
/// survives.
fn is_length_that_is_believed(bytes: &[u8], at: usize) -> bool {
    let mark = b"TOC!";
    let behind = bytes.windows(mark.len()).rposition(|window| window == mark);
    behind.is_some_and(|mark_at| (mark_at + 4..mark_at + 8).contains(&at))
}

fn change_byte(path: &Path, at: usize, bits: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= bits;
    fs::write(path, bytes).unwrap();
}

/// Copies files, of journals only the used part.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            let is_journal = path.extension().is_some_and(|end| end == "jnl");
            let length = if is_journal { used_bytes(&path) } else { u64::MAX };
            let mut bytes = Vec::new();
            File::open(&path).unwrap().take(length).read_to_end(&mut bytes).unwrap();
            fs::write(target, bytes).unwrap();
        }
    }
}
