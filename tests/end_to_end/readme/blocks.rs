//! Splits the documents into blocks of code.
//!
//! Knows the form of the documents; does not know how a block is tested.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::{Path, PathBuf},
};

/// Returns the directory of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document of the repository.
pub(crate) struct Document {
    /// Its path from the root, as in links.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Returns the documents whose examples and links are tested.
pub(crate) fn documents() -> Vec<Document> {
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(PathBuf::from).into();
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        paths.push(Path::new("docs").join(entry.unwrap().file_name()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let read = |path: PathBuf| Document {
        text: fs::read_to_string(root().join(&path)).unwrap(),
        name: path.to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

/// A fenced block of code.
pub(crate) struct Block {
    pub(crate) document: String,
    line: usize,
    /// The text after the opening fence.
    pub(crate) language: String,
    /// The comment on the line before, without its marks.
    marker: String,
    pub(crate) text: String,
}

impl Block {
    /// How to run the block, if a marker says so.
    pub(crate) fn example(&self) -> Option<&str> {
        self.marker.strip_prefix("example: ")
    }

    /// Why the block is not run, if a marker says so.
    pub(crate) fn not_run(&self) -> Option<&str> {
        self.marker.strip_prefix("not run: ")
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.document, self.line)
    }
}

/// Returns all blocks of all documents, in order.
pub(crate) fn blocks() -> Vec<Block> {
    documents().iter().flat_map(blocks_of).collect()
}

fn blocks_of(document: &Document) -> Vec<Block> {
    let mut blocks = Vec::new();
    let (mut open, mut before): (Option<(Block, &str)>, &str) = (None, "");
    for (at, line) in document.text.lines().enumerate() {
        let place = format!("{}:{}", document.name, at + 1);
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        open = match (open, rest.strip_prefix("```")) {
            (Some((block, _)), Some("")) => {
                blocks.push(block);
                None
            }
            (Some((mut block, indent)), _) => {
                block.text += line.strip_prefix(indent).unwrap_or(line);
                block.text.push('\n');
                Some((block, indent))
            }
            (None, Some(language)) => {
                assert!(!language.is_empty(), "{place}: a block without a language");
                let block = Block {
                    document: document.name.clone(),
                    line: at + 1,
                    language: language.to_owned(),
                    marker: marker(before).to_owned(),
                    text: String::new(),
                };
                Some((block, indent))
            }
            (None, None) => {
                assert!(indent.len() < 4, "{place}: a block by indentation; write a fence");
                None
            }
        };
        before = line;
    }
    assert!(open.is_none(), "{}: a block does not end", document.name);
    blocks
}

fn marker(line: &str) -> &str {
    let inner = line.trim().strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
    inner.unwrap_or_default()
}
