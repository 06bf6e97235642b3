//! Folders and files that hold secrets: created closed, refused when somebody opened them, replaced so that a crash
//! leaves the old content or the new (SECURITY R11). Knows nothing of what the files mean.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use proto::failpoint;
use ring::rand::{SecureRandom, SystemRandom};

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Largest secret file read, bytes. Ours are below 4 KiB.
const SECRET_MAX: u64 = 1 << 20;

/// Why a state folder or a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{} may be read by others (mode {mode:04o}); run: chmod {wanted:04o} {}", path.display(), path.display())]
    LaxMode { path: PathBuf, mode: u32, wanted: u32 },
    #[error("{} is not {wanted}", path.display())]
    WrongKind { path: PathBuf, wanted: &'static str },
    #[error("{} holds {found} bytes where {wanted} are expected; move it away to have it made anew", path.display())]
    Length { path: PathBuf, found: usize, wanted: usize },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("the system gives no random bytes")]
    Random,
}

/// Makes sure that `dir` exists and that only its owner may enter it. Missing parents are created closed as well.
pub fn open_dir(dir: &Path) -> Result<(), StateError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(failed("create", dir))?;
    let metadata = fs::metadata(dir).map_err(failed("look at", dir))?;
    if !metadata.is_dir() {
        return Err(StateError::WrongKind { path: dir.into(), wanted: "a folder" });
    }
    closed(dir, metadata.mode(), DIR_MODE)
}

/// The content of a secret file, or `None` if there is none. The mode is checked on the file that is read.
pub fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let metadata = file.metadata().map_err(failed("look at", path))?;
    if !metadata.is_file() {
        return Err(StateError::WrongKind { path: path.into(), wanted: "a file" });
    }
    closed(path, metadata.mode(), FILE_MODE)?;
    let mut bytes = Vec::new();
    file.take(SECRET_MAX).read_to_end(&mut bytes).map_err(failed("read", path))?;
    Ok(Some(bytes))
}

/// Puts `bytes` in place of the file: a reader, also after a crash, finds the old content or the new, never a part.
/// The folder must exist.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(StateError::WrongKind { path: path.into(), wanted: "the name of a file" });
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}", hex::encode(random(8)?)));
    let temporary = dir.join(temporary_name);
    let operation = name.to_string_lossy();
    failpoint::at(&operation, "before_write");
    let written = write_new(&temporary, bytes).map_err(failed("write", &temporary)).and_then(|()| {
        failpoint::at(&operation, "before_rename");
        fs::rename(&temporary, path).map_err(failed("replace", path))
    });
    if written.is_err() {
        // What could not be written is of no use to anybody; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    failpoint::at(&operation, "renamed");
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
    failpoint::at(&operation, "written");
    Ok(())
}

/// The file's random bytes, made on first use. A file of another length is refused, not replaced: it is not ours.
pub fn load_or_create_random(path: &Path, length: usize) -> Result<Vec<u8>, StateError> {
    match read_secret(path)? {
        Some(bytes) if bytes.len() == length => Ok(bytes),
        Some(bytes) => Err(StateError::Length { path: path.into(), found: bytes.len(), wanted: length }),
        None => {
            let bytes = random(length)?;
            write_secret(path, &bytes)?;
            Ok(bytes)
        }
    }
}

/// Bytes from the system's generator.
pub(crate) fn random(length: usize) -> Result<Vec<u8>, StateError> {
    let mut bytes = vec![0; length];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StateError::Random)?;
    Ok(bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn closed(path: &Path, mode: u32, wanted: u32) -> Result<(), StateError> {
    match mode & OTHERS {
        0 => Ok(()),
        _ => Err(StateError::LaxMode { path: path.into(), mode: mode & 0o7777, wanted }),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |source| StateError::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn folders_and_files_are_made_closed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        open_dir(&dir).unwrap();
        open_dir(&dir).unwrap();
        assert_eq!((mode(&dir), mode(&root.path().join("a"))), (0o700, 0o700));
        let file = dir.join("key");
        assert_eq!(read_secret(&file).unwrap(), None);
        write_secret(&file, b"one").unwrap();
        write_secret(&file, b"two").unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(read_secret(&file).unwrap().unwrap(), b"two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file was left behind");
    }

    #[test]
    fn lax_modes_are_refused_with_the_chmod_that_fixes_them() {
        let root = tempfile::tempdir().unwrap();
        let (dir, file) = (root.path().join("state"), root.path().join("state/key"));
        open_dir(&dir).unwrap();
        write_secret(&file, b"secret").unwrap();
        for lax in [0o750, 0o701, 0o777] {
            fs::set_permissions(&dir, Permissions::from_mode(lax)).unwrap();
            let told = open_dir(&dir).unwrap_err().to_string();
            assert!(told.contains(&format!("chmod 0700 {}", dir.display())), "{told}");
        }
        for lax in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, Permissions::from_mode(lax)).unwrap();
            let told = read_secret(&file).unwrap_err().to_string();
            assert!(told.contains(&format!("chmod 0600 {}", file.display())), "{told}");
        }
        fs::set_permissions(&file, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_secret(&file).unwrap().unwrap(), b"secret");
    }

    #[test]
    fn random_files_stay_what_they_were_and_foreign_ones_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("keys");
        let first = load_or_create_random(&file, 128).unwrap();
        assert_eq!(first.len(), 128);
        assert_eq!(load_or_create_random(&file, 128).unwrap(), first);
        assert!(matches!(load_or_create_random(&file, 64), Err(StateError::Length { found: 128, wanted: 64, .. })));
        assert_eq!(read_secret(&file).unwrap().unwrap(), first);
    }

    #[test]
    fn a_folder_where_a_file_should_be_is_told_plainly() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(read_secret(root.path()), Err(StateError::WrongKind { .. })));
        let file = root.path().join("file");
        write_secret(&file, b"").unwrap();
        assert!(open_dir(&file).is_err());
        assert!(write_secret(&root.path().join("missing/key"), b"").is_err());
    }
}
