//! Whole folders: what is in them on either side, what is there already, and what is left to be carried. What an agent
//! names stays beneath the folder it is copied into.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Job,
    folder::Folder,
    local::{Local, walk},
    plan::Fill,
    progress::Progress,
};
use crate::{
    api::dto::file::{FileCall, FileEntry, Kind, TreeLine},
    cli::{
        Context,
        client::{CallError, segment},
        end::Remote,
        fs::{ask, at},
        output::{plain, shown},
    },
};

/// Longest line of a tree, bytes: two names of 4 KiB in base64 and in escaped text.
const LINE_MAX: usize = 128 * 1024;

/// What a folder comes down to.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) jobs: Vec<Job>,
    /// Files that are there already, with the same size and time.
    pub(super) same: u64,
    /// What is neither a file nor a folder nor a link.
    pub(super) left_out: u64,
    /// What could not be looked at, and why.
    pub(super) unread: Vec<String>,
}

/// Makes the folders and links on the agent; the files are left as jobs.
pub(super) async fn up(
    context: &Context,
    from: &Path,
    to: &Remote,
    fill: Fill,
    progress: &Progress,
) -> anyhow::Result<Planned> {
    let top = from.to_owned();
    let (local, unread) = tokio::task::spawn_blocking(move || walk(&top)).await?;
    let there = match tree(context, to).await {
        Ok(tree) => tree.entries,
        Err(Listed::Call(CallError::Problem(problem))) if problem.code == "file_not_found" => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let there: HashMap<Vec<u8>, FileEntry> =
        there.into_iter().filter_map(|entry| Some((entry.name.bytes()?, entry))).collect();
    fill.refuse_strange(to, &tops(local.iter().map(|thing| &*thing.name)), &tops(there.keys().map(|name| path(name))))?;
    let mut planned = Planned { unread, ..Planned::default() };
    ask(context, to, "mkdir", &FileCall { parents: Some(true), ..at(to) }).await?;
    for thing in local {
        let name = thing.name.as_os_str().as_bytes();
        let (place, known) = (to.join(name), there.get(name));
        match thing.kind {
            Kind::Folder if known.is_some_and(|known| known.kind == Kind::Folder) => {}
            Kind::Folder => {
                let call = FileCall { parents: Some(true), ..at(&place) };
                ask(context, &place, "mkdir", &call).await.with_context(|| place.to_string())?;
            }
            Kind::Link => {
                let target = thing.target.unwrap_or_default().into_os_string().into_vec();
                link(context, &place, &target, known).await.with_context(|| place.to_string())?;
            }
            Kind::File if known.is_some_and(|known| is_same(known, &thing)) => planned.same += 1,
            Kind::File => {
                progress.expect(thing.size);
                planned.jobs.push(Job::Up { from: from.join(&thing.name), to: place });
            }
            Kind::Pipe | Kind::Socket | Kind::Device => planned.left_out += 1,
        }
    }
    Ok(planned)
}

fn is_same(known: &FileEntry, thing: &Local) -> bool {
    known.kind == Kind::File && known.size == thing.size && known.modified_ns == thing.modified_ns
}

async fn link(context: &Context, place: &Remote, target: &[u8], known: Option<&FileEntry>) -> Result<(), CallError> {
    if let Some(known) = known {
        if known.target.as_ref().and_then(|target| target.bytes()).as_deref() == Some(target) {
            return Ok(());
        }
        if known.kind == Kind::Link {
            ask(context, place, "remove", &at(place)).await?;
        }
    }
    let call = FileCall { target_base64: Some(STANDARD.encode(target)), ..at(place) };
    ask(context, place, "symlink", &call).await.map(drop)
}

/// The names right below a folder, of names at any depth.
fn tops<'a>(names: impl Iterator<Item = &'a Path>) -> HashSet<Vec<u8>> {
    names.filter_map(|name| Some(name.components().next()?.as_os_str().as_bytes().to_vec())).collect()
}

fn path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// Makes the folders here; files are left as jobs, and links for the end, so that nothing is written through them.
pub(super) async fn down(context: &Context, from: &Remote, to: &Path, fill: Fill) -> anyhow::Result<(Planned, Links)> {
    let Tree { entries, unread } = tree(context, from).await?;
    let names: Vec<_> = entries.iter().map(|entry| entry.name.bytes().unwrap_or_default()).collect();
    std::fs::create_dir_all(to).with_context(|| shown(to))?;
    let there = std::fs::read_dir(to).with_context(|| shown(to))?;
    let there = there.filter_map(|entry| Some(entry.ok()?.file_name().into_vec())).collect();
    fill.refuse_strange(&shown(to), &tops(names.iter().map(|name| path(name))), &there)?;
    let folder = Arc::new(Folder::open(to)?);
    let (mut planned, mut links) = (Planned::default(), Links { folder: folder.clone(), list: Vec::new() });
    if unread > 0 {
        planned.unread.push(format!("{from}: {unread} folders below it cannot be read by the agent's user"));
    }
    for entry in entries {
        let name = beneath(&entry)?;
        match entry.kind {
            Kind::Folder => folder.make(&name).with_context(|| shown(&to.join(&name)))?,
            Kind::Link => {
                let target = entry.target.as_ref().and_then(|target| target.bytes()).unwrap_or_default();
                links.list.push((name, OsString::from_vec(target)));
            }
            Kind::File if folder.has(&name, entry.size, entry.modified_ns) => planned.same += 1,
            Kind::File => {
                let place = from.join(name.as_os_str().as_bytes());
                let parent = name.parent().unwrap_or(Path::new("")).to_owned();
                let name = name.file_name().unwrap_or_default().to_owned();
                planned.jobs.push(Job::Down { from: place, folder: folder.clone(), parent, name });
            }
            Kind::Pipe | Kind::Socket | Kind::Device => planned.left_out += 1,
        }
    }
    Ok((planned, links))
}

/// Links to be made when the files are there.
pub(super) struct Links {
    folder: Arc<Folder>,
    list: Vec<(PathBuf, OsString)>,
}

impl Links {
    pub(super) fn make(&self) -> anyhow::Result<()> {
        for (name, target) in &self.list {
            self.folder.link(name, target).with_context(|| shown(name))?;
        }
        Ok(())
    }
}

/// An agent's name for something below the folder asked for.
fn beneath(entry: &FileEntry) -> anyhow::Result<PathBuf> {
    let bytes = entry.name.bytes().unwrap_or_default();
    let path = Path::new(OsStr::from_bytes(&bytes));
    let good = path.components().all(|part| matches!(part, Component::Normal(_))) && !bytes.contains(&0);
    if !good || bytes.is_empty() {
        bail!("the agent names {:?}, which is not below the folder", plain(&entry.name.name));
    }
    Ok(path.to_owned())
}

/// Why a tree could not be listed.
#[derive(Debug, thiserror::Error)]
enum Listed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{message} ({code})")]
    Failed { code: String, message: String },
    #[error("the master sent a line that this version does not know")]
    Foreign,
}

/// A folder on an agent.
struct Tree {
    entries: Vec<FileEntry>,
    /// Folders in it that could not be read.
    unread: u64,
}

async fn tree(context: &Context, at: &Remote) -> Result<Tree, Listed> {
    let path = format!("/agents/{}/files/tree", segment(&at.agent));
    let request = context.client.request(reqwest::Method::GET, &path).query(&[at.query()]);
    let mut response = context.client.send(request).await?;
    let (mut entries, mut held) = (Vec::new(), Vec::new());
    while let Some(piece) = response.chunk().await.map_err(|error| context.client.cut(&error))? {
        held.extend_from_slice(&piece);
        let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else {
            if held.len() > LINE_MAX {
                return Err(Listed::Foreign);
            }
            continue;
        };
        let rest = held.split_off(end + 1);
        for line in held.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line).map_err(|_| Listed::Foreign)? {
                TreeLine::Entry(entry) => entries.push(entry),
                TreeLine::Done(done) => return Ok(Tree { entries, unread: done.skipped }),
                TreeLine::Failed { code, message } if code == "file_not_found" || code == "not_a_folder" => {
                    let kind = if code == "file_not_found" {
                        crate::api::problem::Kind::FileNotFound
                    } else {
                        crate::api::problem::Kind::NotAFolder
                    };
                    return Err(CallError::Problem(Box::new(kind.problem(message))).into());
                }
                TreeLine::Failed { code, message } => return Err(Listed::Failed { code, message }),
            }
        }
        held = rest;
    }
    Err(CallError::Cut { url: context.client.url.clone(), cause: "the tree was not told to its end".into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_names_stays_below() {
        let named = |name: &str| {
            let entry = serde_json::json!({"name": name, "kind": "file", "size": 1, "mode": "644", "uid": 0, "gid": 0,
                "modified_ns": 5});
            beneath(&serde_json::from_value(entry).unwrap())
        };
        assert_eq!(named("a/b").unwrap(), Path::new("a/b"));
        for bad in ["", "/etc/x", "../x", "a/../../x", "a\0b"] {
            assert!(named(bad).is_err(), "{bad:?}");
        }
    }
}
