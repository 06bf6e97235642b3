//! The agent's own user: made where it is missing, taken away with the agent. On Linux the files of a root are edited, so
//! that an image needs none of its programs to run; on FreeBSD `pw` does it.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use super::InstallError;
use crate::platform::users::find_below;

/// Whose process the agent is unless another is named.
pub const USER: &str = "landline-agent";
const HOME: &str = "/var/lib/landline-agent";
/// Numbers of system users, tried from the top.
const NUMBERS: std::ops::Range<u32> = 500..990;

/// Who owns the agent's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The user, made if it is ours to make. `None` where files need no new owner: an image without users, or no root here.
pub(super) fn ensure(root: &Path, name: &str) -> Result<Option<Owner>, InstallError> {
    let found = |root: &Path| find_below(root, name).map(|user| Owner { uid: user.uid, gid: user.gid });
    let image = root != Path::new("/");
    if let Some(owner) = found(root) {
        return Ok(Some(owner).filter(|_| rustix::process::geteuid().is_root()));
    }
    match name {
        "root" => Ok(None),
        USER if image && !root.join("etc/passwd").exists() => Ok(None),
        USER if cfg!(target_os = "freebsd") && !image => {
            pw(&["useradd", USER, "-d", HOME, "-s", "/usr/sbin/nologin", "-c", "Landline agent"])?;
            Ok(found(root))
        }
        USER => {
            add(root)?;
            Ok(found(root).filter(|_| rustix::process::geteuid().is_root()))
        }
        other => Err(InstallError::NoUser(other.to_owned())),
    }
}

/// Takes our user away, and no other.
pub(super) fn remove(root: &Path) -> Result<(), InstallError> {
    if cfg!(target_os = "freebsd") && root == Path::new("/") {
        return if find_below(root, USER).is_some() { pw(&["userdel", USER]) } else { Ok(()) };
    }
    for file in ["etc/passwd", "etc/group", "etc/shadow", "etc/gshadow"] {
        edit(&root.join(file), |text| {
            let line_of = |line: &&str| !line.starts_with(&format!("{USER}:"));
            text.split_inclusive('\n').filter(line_of).collect()
        })?;
    }
    Ok(())
}

fn pw(arguments: &[&str]) -> Result<(), InstallError> {
    let failed = |source| InstallError::Io { action: "make or remove the user with", path: "pw".into(), source };
    let status = Command::new("pw").args(arguments).status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(io::Error::other(status.to_string()))) }
}

fn add(root: &Path) -> Result<(), InstallError> {
    let numbers = |file: &str| -> Vec<u32> {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
    };
    let (users, groups) = (numbers("etc/passwd"), numbers("etc/group"));
    let free = |number: &u32| !users.contains(number) && !groups.contains(number);
    let number = NUMBERS.rev().find(free).ok_or_else(|| InstallError::NoUser(USER.to_owned()))?;
    let lines = [
        ("etc/group", format!("{USER}:x:{number}:\n")),
        ("etc/gshadow", format!("{USER}:!::\n")),
        ("etc/shadow", format!("{USER}:!*:1::::::\n")),
        ("etc/passwd", format!("{USER}:x:{number}:{number}:Landline agent:{HOME}:/usr/sbin/nologin\n")),
    ];
    for (file, line) in lines {
        edit(&root.join(file), |text| format!("{}{line}", ended(text)))?;
    }
    Ok(())
}

/// With a line end behind the last line.
fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// Replaces a file's text, if it is there and differs; mode and owner stay.
fn edit(path: &Path, change: impl FnOnce(&str) -> String) -> Result<(), InstallError> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let failed = |source| InstallError::Io { action: "edit", path: path.to_owned(), source };
    let old = fs::read_to_string(path).map_err(failed)?;
    let new = change(&old);
    if new == old {
        return Ok(());
    }
    let beside = PathBuf::from(format!("{}.landline", path.display()));
    let write = || {
        fs::write(&beside, "")?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        let _ = chown(&beside, Some(metadata.uid()), Some(metadata.gid()));
        fs::write(&beside, new)?;
        fs::rename(&beside, path)
    };
    write().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_comes_and_goes_and_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("etc")).unwrap();
        let before = [
            ("passwd", "root:x:0:0::/root:/bin/sh\n"),
            ("group", "root:x:0:\nx:x:989:\n"),
            ("shadow", "root:*:1::::::\n"),
        ];
        for (name, text) in before {
            fs::write(root.join("etc").join(name), text).unwrap();
        }
        ensure(root, USER).unwrap();
        let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
        assert!(passwd.contains("landline-agent:x:988:988:"), "{passwd}");
        assert!(fs::read_to_string(root.join("etc/shadow")).unwrap().ends_with("landline-agent:!*:1::::::\n"));
        ensure(root, USER).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), passwd, "once is enough");
        assert!(matches!(ensure(root, "nobody-here"), Err(InstallError::NoUser(_))));
        remove(root).unwrap();
        for (name, text) in before {
            assert_eq!(fs::read_to_string(root.join("etc").join(name)).unwrap(), text);
        }
        assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 3);
    }
}
