//! What a copy comes down to: which file goes where. Folders are made on the way; files are left as jobs.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fmt::Display,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;

use super::{
    Job,
    folder::Folder,
    progress::Progress,
    tree::{self, Links, Planned},
};
use crate::{
    api::dto::file::Kind,
    cli::{
        Context, UsageError,
        client::CallError,
        end::{End, Remote},
        fs,
        output::shown,
    },
};

/// What there is to do.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) jobs: Vec<Job>,
    pub(super) links: Vec<Links>,
    pub(super) same: u64,
    pub(super) left_out: u64,
    /// What could not be looked at, and why.
    pub(super) unread: Vec<String>,
}

impl Plan {
    fn add(&mut self, planned: Planned) {
        self.jobs.extend(planned.jobs);
        self.same += planned.same;
        self.left_out += planned.left_out;
        self.unread.extend(planned.unread);
    }
}

/// Which files go where. Folders are made on the way.
pub(super) async fn plan(
    context: &Context,
    paths: Vec<OsString>,
    recursive: bool,
    progress: &Progress,
) -> anyhow::Result<Plan> {
    let mut ends = paths.iter().map(|path| End::parse(path)).collect::<Result<Vec<_>, _>>()?;
    let many = ends.len() > 2;
    let last = ends.pop().ok_or_else(|| UsageError("give a source and a destination".into()))?;
    let one_way = || UsageError("one side is on an agent (AGENT:/PATH), the other on this machine".into());
    let mut plan = Plan::default();
    match last {
        End::Remote(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Local(path) => Ok(path),
                End::Remote(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let inside = many || is_inside(&to.path);
            let folder = inside || kind(context, &to).await? == Some(Kind::Folder);
            for from in sources {
                let meta = std::fs::metadata(&from).with_context(|| shown(&from))?;
                let fill = Fill::of(from.as_os_str().as_bytes(), inside);
                let into = if meta.is_dir() { fill == Fill::Inside } else { folder };
                let to = if into { to.join(named(&from)?.as_encoded_bytes()) } else { to.clone() };
                if meta.is_dir() {
                    wanted(recursive, &shown(&from))?;
                    plan.add(tree::up(context, &from, &to, fill, progress).await?);
                } else {
                    progress.expect(meta.len());
                    plan.jobs.push(Job::Up { from, to });
                }
            }
        }
        End::Local(to) => {
            let sources = ends.into_iter().map(|end| match end {
                End::Remote(from) => Ok(from),
                End::Local(_) => Err(one_way()),
            });
            let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
            let inside = many || is_inside(to.as_os_str().as_bytes());
            for from in sources {
                if recursive && kind(context, &from).await? == Some(Kind::Folder) {
                    let fill = Fill::of(&from.path, inside);
                    let into = fill == Fill::Inside;
                    let to = if into { to.join(from.name().unwrap_or_default()) } else { to.clone() };
                    let (planned, links) = tree::down(context, &from, &to, fill).await?;
                    plan.add(planned);
                    plan.links.push(links);
                } else {
                    plan.jobs.push(down(from, &to, inside || to.is_dir())?);
                }
            }
        }
    }
    Ok(plan)
}

/// What a folder does with its destination. It hangs on how both are written, never on what is there, so that the same
/// command again goes on with the same copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// The destination is the copy.
    Copy,
    /// The copy lies in the destination, under its own name.
    Inside,
    /// `SOURCE/.`: what is in it goes beside what is there.
    Contents,
}

impl Fill {
    fn of(source: &[u8], inside: bool) -> Self {
        match source {
            [.., b'/', b'.'] => Self::Contents,
            _ if inside => Self::Inside,
            _ => Self::Copy,
        }
    }

    /// A destination that has nothing in common with the source is no earlier copy of it, and is left alone.
    pub(super) fn refuse_strange(
        self,
        place: &dyn Display,
        source: &HashSet<Vec<u8>>,
        there: &HashSet<Vec<u8>>,
    ) -> Result<(), UsageError> {
        if self != Self::Copy || there.is_empty() || source.is_empty() || !source.is_disjoint(there) {
            return Ok(());
        }
        Err(UsageError(format!(
            "{place} is there and holds other things: write {place}/ to copy into it, or SOURCE/. to add to it"
        )))
    }
}

/// Whether a destination is written as a folder to copy into.
fn is_inside(path: &[u8]) -> bool {
    matches!(path, b"." | b".." | [.., b'/'] | [.., b'/', b'.'] | [.., b'/', b'.', b'.'])
}

fn wanted(recursive: bool, folder: &dyn Display) -> Result<(), UsageError> {
    if recursive { Ok(()) } else { Err(UsageError(format!("{folder} is a folder; copy it with -r"))) }
}

/// The name that something is copied under into a folder.
fn named(from: &Path) -> anyhow::Result<OsString> {
    let whole = if from.file_name().is_none() { std::fs::canonicalize(from)? } else { from.to_owned() };
    let name = whole.file_name().map(OsStr::to_owned);
    Ok(name.ok_or_else(|| UsageError(format!("{} has no name to copy it under", shown(from))))?)
}

fn down(from: Remote, to: &Path, folder: bool) -> anyhow::Result<Job> {
    // A link at the destination is written through, as by any program.
    let to = if !folder && to.is_symlink() { std::fs::canonicalize(to)? } else { to.to_owned() };
    let (folder, name) = if folder {
        (to.as_path(), from.name())
    } else {
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
        (folder.unwrap_or(Path::new(".")), to.file_name().map(OsStr::to_owned))
    };
    let name = name.ok_or_else(|| UsageError(format!("{from} has no name to copy it under")))?;
    let folder = Folder::open(folder).with_context(|| shown(folder))?;
    Ok(Job::Down { from, folder: Arc::new(folder), parent: PathBuf::new(), name })
}

/// What there is on the agent; `None` for nothing.
async fn kind(context: &Context, at: &Remote) -> Result<Option<Kind>, CallError> {
    match fs::ask(context, at, "stat", &fs::at(at)).await {
        Ok(answer) => Ok(answer.entries.and_then(|entries| Some(entries.first()?.kind))),
        Err(CallError::Problem(problem)) if problem.code == "file_not_found" => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_folder_goes_hangs_on_how_it_is_written() {
        for inside in ["/srv/", ".", "..", "./.", "../.."] {
            assert_eq!(Fill::of(b"./site", is_inside(inside.as_bytes())), Fill::Inside, "{inside}");
        }
        for copy in ["/srv/www", "www", ".hidden", "a..", "/srv/..."] {
            assert_eq!(Fill::of(b"./site", is_inside(copy.as_bytes())), Fill::Copy, "{copy}");
        }
        assert_eq!(Fill::of(b"./site/.", true), Fill::Contents);
        assert_eq!(Fill::of(b"./site/..", false), Fill::Copy);
    }

    #[test]
    fn a_strange_folder_is_not_filled_by_mistake() {
        let names = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<HashSet<_>>();
        let source = names(&["index.html", "img"]);
        let strange = |fill: Fill, there: &[&str]| fill.refuse_strange(&"/srv", &source, &names(there)).is_err();
        assert!(strange(Fill::Copy, &["mysql"]));
        assert!(!strange(Fill::Copy, &["mysql", "img"]), "what an earlier attempt began");
        assert!(!strange(Fill::Copy, &[]));
        assert!(!strange(Fill::Contents, &["mysql"]) && !strange(Fill::Inside, &["mysql"]));
    }
}
