//! What `--allow` opens: the policy file that says so, and what the unit must loosen for it. Pure text.

use std::str::FromStr;

use super::layout::OURS;

/// One word of `--allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    Shell,
    Exec,
    Files,
}

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "shell" => Ok(Self::Shell),
            "exec" => Ok(Self::Exec),
            "files" => Ok(Self::Files),
            other => Err(format!("{other:?} is none of shell, exec, files")),
        }
    }
}

/// The policy file. Forwards and `system.*` stay as they are without one.
pub(super) fn policy(grants: &[Grant]) -> String {
    let mut text = format!(
        "{OURS}\n# What the master may do here; no message of it changes this file. deploy/policy.example.toml has every key.\n\n\
         [forward]\ntargets = [\"localhost:*\"]\n\n[commands]\nallow = [\"system.*\"]\n"
    );
    let sections = [
        (Grant::Exec, "\n[exec]\nallow = [\"*\"]\nshell = true\nenv = [\"*\"]\n"),
        (Grant::Shell, "\n[shell]\nenv = [\"*\"]\n"),
        (Grant::Files, "\n[files]\nroots = [\"/\"]\n"),
    ];
    for (grant, section) in sections {
        if grants.contains(&grant) {
            text.push_str(section);
        }
    }
    text
}

/// What people run and touch is where it always is, instead of behind the unit's walls.
const REAL_FILES: &str = "ProtectSystem=no\nProtectHome=no\nPrivateTmp=no\n";
/// Programs of people: interpreters that compile at run time, `sudo` and the like.
const PROGRAMS: &str = "NoNewPrivileges=no\nMemoryDenyWriteExecute=no\nRestrictSUIDSGID=no\nSystemCallFilter=\n\
    SystemCallFilter=~@reboot @swap @obsolete @cpu-emulation\n";
/// Setting owners, and the bits that `install -m` and `tar` set.
const FILES: &str = "RestrictSUIDSGID=no\n";
/// The machine's administrator: a hostile master is root here.
const ROOT: &str = include_str!("../../../deploy/systemd/administer.conf");

/// The systemd drop-in; `None` where the unit fits as it is.
pub(super) fn drop_in(grants: &[Grant], user: &str) -> Option<String> {
    if user == "root" {
        return Some(format!("{OURS}\n{ROOT}"));
    }
    let mut settings = String::new();
    if user != super::USER {
        settings.push_str(&format!("User={user}\nGroup=\n"));
    }
    if !grants.is_empty() {
        settings.push_str(REAL_FILES);
    }
    if grants.contains(&Grant::Shell) || grants.contains(&Grant::Exec) {
        settings.push_str(PROGRAMS);
    } else if grants.contains(&Grant::Files) {
        settings.push_str(FILES);
    }
    (!settings.is_empty()).then(|| format!("{OURS}\n[Service]\n{settings}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::PolicyFile, policy::Policy};

    #[test]
    fn each_grant_opens_its_own_operation_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.toml");
        for (grants, opened) in [
            (vec![Grant::Shell], vec!["forward", "command", "shell"]),
            (vec![Grant::Exec], vec!["forward", "exec", "command"]),
            (vec![Grant::Files], vec!["forward", "command", "files"]),
            (vec![Grant::Files, Grant::Shell, Grant::Exec], vec!["forward", "exec", "command", "shell", "files"]),
        ] {
            std::fs::write(&path, policy(&grants)).unwrap();
            let policy = Policy::load(&PolicyFile::Named(path.clone()));
            assert_eq!(policy.mistakes(), [""; 0]);
            assert_eq!(policy.operations(), opened, "{grants:?}");
        }
    }

    #[test]
    fn the_unit_loosens_only_what_is_granted() {
        assert_eq!(drop_in(&[], super::super::USER), None);
        let files = drop_in(&[Grant::Files], super::super::USER).unwrap();
        assert!(files.contains("ProtectSystem=no") && !files.contains("MemoryDenyWriteExecute"), "{files}");
        let shell = drop_in(&[Grant::Shell], super::super::USER).unwrap();
        assert!(shell.contains("NoNewPrivileges=no") && !shell.contains("CapabilityBoundingSet"), "{shell}");
        assert!(drop_in(&[], "root").unwrap().contains("User=root"));
        assert!(drop_in(&[], "admin").unwrap().contains("User=admin"));
    }
}
