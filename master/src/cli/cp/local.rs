//! What is below a local folder. Follows no link; what cannot be looked at is named and does not end the walk.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use walkdir::{DirEntry, WalkDir};

use super::upload::modified_ns;
use crate::{
    api::dto::file::Kind,
    cli::output::{plain, shown},
};

/// One thing in a local folder.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) name: PathBuf,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) modified_ns: i64,
    pub(super) target: Option<PathBuf>,
}

/// What is below a folder, and what could not be looked at.
pub(super) fn walk(top: &Path) -> (Vec<Local>, Vec<String>) {
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    for entry in WalkDir::new(top).min_depth(1).follow_links(false) {
        match entry.map_err(anyhow::Error::from).and_then(|entry| local(top, &entry)) {
            Ok(Some(thing)) => all.push(thing),
            Ok(None) => {}
            Err(error) => unread.push(plain(&format!("{error:#}"))),
        }
    }
    (all, unread)
}

fn local(top: &Path, entry: &DirEntry) -> anyhow::Result<Option<Local>> {
    // What an earlier copy left unfinished.
    if entry.file_name().to_str().is_some_and(|name| name.starts_with(".landline-") && name.ends_with(".part")) {
        return Ok(None);
    }
    let meta = entry.metadata()?;
    let kind = match () {
        () if meta.is_dir() => Kind::Folder,
        () if meta.is_symlink() => Kind::Link,
        () if meta.is_file() => Kind::File,
        () => Kind::Device,
    };
    let target = match kind {
        Kind::Link => Some(std::fs::read_link(entry.path()).with_context(|| shown(entry.path()))?),
        _ => None,
    };
    let name = entry.path().strip_prefix(top)?.to_owned();
    Ok(Some(Local { name, kind, size: meta.len(), modified_ns: modified_ns(&meta), target }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn one_thing_that_cannot_be_looked_at_does_not_end_the_walk() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::write(folder.path().join(".landline-0.part"), "x").unwrap();
        let (all, unread) = walk(folder.path());
        let mut names: Vec<_> = all.iter().map(|thing| thing.name.as_os_str().as_bytes()).collect();
        names.sort_unstable();
        assert_eq!((names, unread), (vec![&b"a"[..], b"b"], Vec::new()));
        let gone = folder.path().join("gone\x1b[2J");
        let (all, unread) = walk(&gone);
        assert!(all.is_empty() && unread.len() == 1 && !unread[0].contains('\x1b'), "{unread:?}");
    }
}
