//! Puts files in place, each whole or not at all, and takes them away. Knows no init system.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use certs::state;

use super::{InstallError, users::Owner};

/// Where, and who will own what is the agent's own.
pub struct Placing<'a> {
    pub(super) root: &'a Path,
    pub(super) owner: Option<Owner>,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    move |source| InstallError::Io { action, path: path.to_owned(), source }
}

impl Placing<'_> {
    /// The program, under a new name first: one that runs goes on with its old file.
    pub(super) fn program(&self, from: &Path, to: &Path) -> Result<(), InstallError> {
        if fs::canonicalize(from).ok() == fs::canonicalize(to).ok() && to.exists() {
            return Ok(());
        }
        self.parents(to)?;
        let beside = to.with_extension("new");
        fs::copy(from, &beside).map_err(failed("copy the program to", &beside))?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of", &beside))?;
        fs::rename(&beside, to).map_err(failed("replace", to))
    }

    /// Root's file.
    pub(super) fn file(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), InstallError> {
        self.parents(path)?;
        let beside = path.with_extension("new");
        fs::write(&beside, bytes).map_err(failed("write", &beside))?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", &beside))?;
        fs::rename(&beside, path).map_err(failed("replace", path))
    }

    /// The agent's own file, closed to everybody else from its first byte.
    pub(super) fn secret(&self, path: &Path, bytes: &[u8]) -> Result<(), InstallError> {
        state::write_secret(path, bytes)?;
        self.give(path)
    }

    pub(super) fn dir(&self, path: &Path, mode: u32) -> Result<(), InstallError> {
        self.parents(&path.join("x"))?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("set the mode of", path))
    }

    /// The agent's own folder, with all that an earlier user of it left there.
    pub(super) fn own_dir(&self, path: &Path) -> Result<(), InstallError> {
        self.dir(path, 0o700)?;
        self.give(path)?;
        for entry in walk(path) {
            self.give(&entry)?;
        }
        Ok(())
    }

    pub(super) fn link(&self, path: &Path, to: &str) -> Result<(), InstallError> {
        self.parents(path)?;
        match std::os::unix::fs::symlink(to, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("link", path)(error)),
            _ => Ok(()),
        }
    }

    /// Folders above it that are missing, as a system has them. Umask or not.
    fn parents(&self, path: &Path) -> Result<(), InstallError> {
        let Some(parent) = path.parent().filter(|parent| !parent.exists() && parent.starts_with(self.root)) else {
            return Ok(());
        };
        self.parents(parent)?;
        fs::create_dir(parent).map_err(failed("create", parent))?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).map_err(failed("set the mode of", parent))
    }

    fn give(&self, path: &Path) -> Result<(), InstallError> {
        let Some(owner) = self.owner else { return Ok(()) };
        chown(path, Some(owner.uid), Some(owner.gid)).map_err(failed("give to the agent's user", path))
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        if is_dir {
            found.extend(walk(&entry.path()));
        }
        if !is_link {
            found.push(entry.path());
        }
    }
    found
}

/// Removes what is there of `paths`, folders with all in them, and notes it.
pub(super) fn remove(paths: &[PathBuf], gone: &mut Vec<PathBuf>) -> Result<(), InstallError> {
    for path in paths {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => continue,
        };
        removed.map_err(failed("remove", path))?;
        gone.push(path.clone());
    }
    Ok(())
}
