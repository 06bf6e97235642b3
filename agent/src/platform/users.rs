//! Users of this machine, from its passwd file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

const PASSWD: &str = "/etc/passwd";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub shell: String,
}

/// Where an account has none that lets anybody in.
pub const PLAIN_SHELL: &str = "/bin/sh";

impl User {
    /// What runs when this user opens a shell. Accounts of services name a program there that only refuses; whether there
    /// may be a shell all the same is the owner's to say, in the policy.
    pub fn login_shell(&self) -> &str {
        match Path::new(&self.shell).file_name().and_then(|name| name.to_str()) {
            None | Some("nologin" | "false") => PLAIN_SHELL,
            Some(_) => &self.shell,
        }
    }
}

/// A user by name or by number.
pub fn find(name: &str) -> Option<User> {
    find_in(Path::new(PASSWD), |user| user.name == name || user.uid.to_string() == name)
}

/// A user of the system whose files are below `root`.
pub fn find_below(root: &Path, name: &str) -> Option<User> {
    find_in(&root.join("etc/passwd"), |user| user.name == name)
}

/// The user this process runs as.
pub fn current() -> Option<User> {
    let uid = rustix::process::geteuid().as_raw();
    find_in(Path::new(PASSWD), |user| user.uid == uid)
}

/// The names of all users, by number.
pub fn names() -> BTreeMap<u32, String> {
    let text = std::fs::read_to_string(PASSWD).unwrap_or_default();
    text.lines().filter_map(read_line).map(|user| (user.uid, user.name)).collect()
}

fn find_in(passwd: &Path, wanted: impl Fn(&User) -> bool) -> Option<User> {
    std::fs::read_to_string(passwd).ok()?.lines().filter_map(read_line).find(wanted)
}

fn read_line(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        shell: shell.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_of_a_service_has_a_plain_shell() {
        for (shell, runs) in [
            ("/bin/zsh", "/bin/zsh"),
            ("", "/bin/sh"),
            ("/usr/sbin/nologin", "/bin/sh"),
            ("/sbin/nologin", "/bin/sh"),
            ("/bin/false", "/bin/sh"),
        ] {
            let user = read_line(&format!("agent:x:900:900::/:{shell}")).unwrap();
            assert_eq!(user.login_shell(), runs, "{shell}");
        }
    }

    #[test]
    fn root_is_found_by_name_and_number() {
        assert_eq!(find("root"), find("0"));
        assert_eq!(find("root").map(|user| user.uid), Some(0));
        assert_eq!(find("no such user"), None);
        assert_eq!(read_line("broken:line"), None);
    }
}
