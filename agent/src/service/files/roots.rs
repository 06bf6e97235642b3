//! From a path to an open folder and a name in it (SECURITY R47). The folders of the policy are opened by their path and
//! everything else beneath them, one name at a time, following nothing: a link is read as text and its target walked in
//! the same way, so that it counts where it leads, never where it lies. A link swapped in between two steps is either
//! read as what it now is or refused by the system; it is never followed by it.
//!
//! Which root a place belongs to is decided by its path without links: the deepest one that holds it. A folder of
//! `read_only` inside one of `roots` stays read-only through every link.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use proto::{code::Code, file::FilePath};
use rustix::{
    fs::{CWD, Mode, OFlags, openat, readlinkat},
    io::Errno,
};

use super::{
    error::FileError,
    place::{Beneath, Place},
    sealed::Sealed,
};
use crate::policy::FileRules;

/// Links on one path, as the system itself has it.
const LINKS_MAX: u32 = 40;
/// Names stepped through for one path, all its links included: a bound against links made to be long.
const STEPS_MAX: u32 = 10_000;

/// What the caller will do at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// What a link at the very end of a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The place it leads to.
    Follow,
    /// The link itself.
    Keep,
}

/// The folders that the owner's policy opens.
#[derive(Debug, Clone)]
pub struct Roots {
    list: Vec<(PathBuf, Access)>,
    sealed: Sealed,
}

/// One root as it is at this moment.
#[derive(Debug)]
struct Root {
    named: PathBuf,
    /// Without links.
    real: PathBuf,
    access: Access,
}

impl Roots {
    pub fn new(rules: &FileRules) -> Self {
        // Read-only later in the list, so that it wins where a folder is given as both.
        let writable = rules.roots.iter().map(|path| (path.clone(), Access::Write));
        let readable = rules.read_only.iter().map(|path| (path.clone(), Access::Read));
        Self { list: writable.chain(readable).collect(), sealed: Sealed::default() }
    }

    /// Except one folder and all that is in it.
    #[must_use]
    pub fn sealing(self, sealed: Sealed) -> Self {
        Self { sealed, ..self }
    }

    /// Finds the folder that holds `path` and opens it. The last name need not exist. Blocks on the file system.
    pub fn locate(&self, path: &FilePath, access: Access, links: Links) -> Result<Place, FileError> {
        let roots = self.present();
        let walk = Walk { roots: &roots, sealed: &self.sealed, links_left: LINKS_MAX, steps_left: STEPS_MAX };
        let place = walk.run(spelled(path)?, links).map_err(|error| error.at(shown(path)))?;
        if let Ok(stat) = place.stat() {
            self.sealed.check_stat(&stat).map_err(|error| error.at(shown(path)))?;
        }
        if access == Access::Write && place.access() == Access::Read {
            let error = FileError::new(Code::READ_ONLY, "the owner's policy lets this folder only be read");
            return Err(error.at(shown(path)));
        }
        Ok(place)
    }

    fn present(&self) -> Vec<Root> {
        let present = self.list.iter().map(|(named, access)| Root {
            named: named.clone(),
            // A root that does not exist (yet) holds nothing; opening it will say so.
            real: std::fs::canonicalize(named).unwrap_or_else(|_| named.clone()),
            access: *access,
        });
        present.collect()
    }
}

/// The names of a path as a caller spelled it. `..` is refused rather than resolved: what it means depends on links.
fn spelled(path: &FilePath) -> Result<VecDeque<OsString>, FileError> {
    let invalid = |what: &str| Err(FileError::new(Code::INVALID, what));
    if path.0.first() != Some(&b'/') {
        return invalid("a path begins with /");
    }
    if path.0.contains(&0) {
        return invalid("a path holds no NUL byte");
    }
    if path.0.len() > proto::limits::PATH_MAX {
        return invalid("the path is too long");
    }
    if path.0.split(|byte| *byte == b'/').any(|name| name == b"..") {
        return Err(FileError::new(Code::OUTSIDE_ROOTS, "a path with .. in it is not taken; name the place itself"));
    }
    Ok(names(OsStr::from_bytes(&path.0)))
}

fn shown(path: &FilePath) -> &Path {
    Path::new(OsStr::from_bytes(&path.0))
}

fn names(path: &OsStr) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    Path::new(path).components().filter_map(name).collect()
}

struct Walk<'a> {
    roots: &'a [Root],
    sealed: &'a Sealed,
    links_left: u32,
    steps_left: u32,
}

/// An open folder and its path without links.
struct Here {
    dir: OwnedFd,
    path: PathBuf,
}

impl Walk<'_> {
    fn run(mut self, mut ahead: VecDeque<OsString>, links: Links) -> Result<Place, FileError> {
        let mut here = self.enter(&mut ahead)?;
        loop {
            self.steps_left = self.steps_left.checked_sub(1).ok_or_else(too_many_links)?;
            let Some(name) = ahead.pop_front() else {
                if self.is_root(&here.path) {
                    return Ok(self.place(here, None));
                }
                // A link led to this folder itself: begin again, to hold the folder above it.
                ahead = names(here.path.as_os_str());
                here = self.enter(&mut ahead)?;
                continue;
            };
            if name == ".." {
                // `here` has no links in its path, so that its parent is what stands there.
                let parent = here.path.parent().unwrap_or(Path::new("/"));
                ahead = names(parent.as_os_str()).into_iter().chain(ahead).collect();
                here = self.enter(&mut ahead)?;
                continue;
            }
            let last = ahead.is_empty();
            if last && links == Links::Keep {
                return Ok(self.place(here, Some(name)));
            }
            if last {
                match readlinkat(&here.dir, &name, Vec::new()) {
                    Ok(target) => here = self.follow(here, target.into_bytes(), &mut ahead)?,
                    // No link, or nothing yet.
                    Err(Errno::INVAL | Errno::NOENT) => return Ok(self.place(here, Some(name))),
                    Err(errno) => return Err(errno.into()),
                }
                continue;
            }
            match openat(&here.dir, &name, step_flags(), Mode::empty()) {
                Ok(dir) => {
                    self.sealed.check(&dir)?;
                    here = Here { dir, path: here.path.join(&name) };
                }
                Err(Errno::NOTDIR | Errno::LOOP | Errno::MLINK) => match readlinkat(&here.dir, &name, Vec::new()) {
                    Ok(target) => here = self.follow(here, target.into_bytes(), &mut ahead)?,
                    Err(Errno::INVAL) => return Err(Errno::NOTDIR.into()),
                    Err(errno) => return Err(errno.into()),
                },
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Opens the deepest root that holds the names ahead, seen as an absolute path, and takes its names off them.
    fn enter(&self, ahead: &mut VecDeque<OsString>) -> Result<Here, FileError> {
        let mut deepest: Option<(usize, &Root)> = None;
        for root in self.roots {
            for path in [&root.named, &root.real] {
                let own = names(path.as_os_str());
                let holds = own.len() <= ahead.len() && own.iter().eq(ahead.iter().take(own.len()));
                if holds && deepest.is_none_or(|(depth, _)| own.len() >= depth) {
                    deepest = Some((own.len(), root));
                }
            }
        }
        let (depth, root) = deepest.ok_or_else(outside)?;
        ahead.drain(..depth);
        let dir = openat(CWD, &root.real, step_flags(), Mode::empty())?;
        self.sealed.check(&dir)?;
        Ok(Here { dir, path: root.real.clone() })
    }

    fn follow(&mut self, here: Here, target: Vec<u8>, ahead: &mut VecDeque<OsString>) -> Result<Here, FileError> {
        self.links_left = self.links_left.checked_sub(1).ok_or_else(too_many_links)?;
        let target = OsString::from_vec(target);
        *ahead = names(&target).into_iter().chain(ahead.drain(..)).collect();
        if !Path::new(&target).is_absolute() {
            return Ok(here);
        }
        // Names in front of a `..` are matched with the roots as they stand: what leaves every root is not taken back in.
        self.enter(ahead)
    }

    fn is_root(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| root.real == path)
    }

    fn place(&self, here: Here, name: Option<OsString>) -> Place {
        let path = name.as_ref().map_or_else(|| here.path.clone(), |name| here.path.join(name));
        let holding = self.roots.iter().filter(|root| path.starts_with(&root.real));
        // Of equals the last wins: read-only.
        let deepest = holding.max_by_key(|root| root.real.components().count());
        let access = deepest.map_or(Access::Read, |root| root.access);
        let mut beneath = Beneath::default();
        for root in self.roots.iter().filter(|root| root.real.starts_with(&path)) {
            beneath.root = true;
            beneath.read_only |= root.access == Access::Read && root.real != path;
        }
        beneath.sealed = self.sealed.is_below(&path);
        Place::new(Arc::new(here.dir), name, path, access, beneath).sealing(self.sealed.clone())
    }
}

fn outside() -> FileError {
    FileError::new(Code::OUTSIDE_ROOTS, "this is in none of the folders that the owner's policy opens")
}

fn too_many_links() -> FileError {
    FileError::new(Code::NOT_FOUND, "too many links, or links that lead in a circle")
}

/// Opens a folder for walking on, never a link. Where the system can, without asking to read it.
fn step_flags() -> OFlags {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    #[cfg(target_os = "linux")]
    return flags | OFlags::PATH;
    #[cfg(not(target_os = "linux"))]
    flags
}

#[cfg(test)]
#[path = "roots_tests.rs"]
mod tests;
