//! Puts the agent onto a machine, or into the folder of an image, and takes all of it away again. What differs between
//! init systems is behind one trait in [`init`]. Talks to no master: the agent enrols itself when it starts.

pub mod grant;
pub mod init;
mod layout;
mod place;
mod users;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use certs::{join::Pasted, state};
use proto::id::AgentId;
use secrecy::{ExposeSecret, SecretString};

use self::{
    grant::Grant,
    init::{InitError, Kind},
    place::Placing,
};
pub use self::{layout::Layout, users::USER};
use crate::{
    config::JOIN_FILE,
    state::{FolderError, read_enrolment},
};

/// What is wanted.
#[derive(Debug)]
pub struct Options {
    /// `/`, or the folder of an image: nothing is started, and nothing outside it is touched.
    pub root: PathBuf,
    /// `None` looks for it.
    pub init: Option<Kind>,
    /// Whose process it will be. [`USER`] is made where it is missing.
    pub user: String,
    /// `None` leaves the policy as it is: without a file, forwards to localhost and `system.*`.
    pub grants: Option<Vec<Grant>>,
    /// The name it proposes; without one its hostname.
    pub name: Option<AgentId>,
    /// A join token or an enrolment key; needed unless it is enrolled already.
    pub pasted: Option<SecretString>,
    pub binary: PathBuf,
}

/// What was done.
#[derive(Debug)]
pub struct Installed {
    pub layout: Layout,
    pub kind: Kind,
    /// As which agent it was enrolled before.
    pub enrolled: Option<AgentId>,
    /// There was an agent already.
    pub upgraded: bool,
    /// The owner wrote the policy, so `grants` did not replace it.
    pub policy_kept: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("this takes root: put `sudo` before it, or give --root DIR to fill the folder of an image")]
    NotRoot,
    #[error("no init system was recognised in {}; say which: --init systemd, rcd, procd or none", .0.display())]
    NoInit(PathBuf),
    #[error("there is no user {0}; make it first, or leave --as out")]
    NoUser(String),
    #[error("what was pasted cannot be used: {0}")]
    Pasted(#[from] certs::join::BadToken),
    #[error("nothing to enrol with: paste the whole command of `landline enrol create`, or give --token-file")]
    NothingPasted,
    #[error("this machine is {enrolled} already; uninstall first (`landline-agent uninstall`) to make it {wanted}")]
    OtherName { enrolled: AgentId, wanted: AgentId },
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] state::StateError),
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Init(#[from] InitError),
}

/// Writes everything and starts it. Run again, it replaces the program, keeps what the owner wrote, and restarts.
pub fn install(options: &Options) -> Result<Installed, InstallError> {
    let image = is_image(&options.root);
    if !image && !rustix::process::geteuid().is_root() {
        return Err(InstallError::NotRoot);
    }
    let kind =
        options.init.or_else(|| init::detect(&options.root)).ok_or(InstallError::NoInit(options.root.clone()))?;
    let layout = Layout::new(&options.root, kind);
    let init = init::of(kind, &layout, &options.user, image);
    let enrolled = read_enrolment(&layout.state_dir)?;
    let pasted = options.pasted.as_ref().map(|text| text.expose_secret().trim().parse::<Pasted>()).transpose()?;
    if enrolled.is_none() && pasted.is_none() {
        return Err(InstallError::NothingPasted);
    }
    let enrolled = enrolled.filter(|enrolled| pasted.as_ref().is_none_or(|pasted| pin_of(pasted) == enrolled.pin));
    if let (Some(enrolled), Some(wanted)) = (&enrolled, &options.name)
        && enrolled.agent_id != *wanted
    {
        return Err(InstallError::OtherName { enrolled: enrolled.agent_id.clone(), wanted: wanted.clone() });
    }
    let upgraded = layout.program.exists();
    let owner = users::ensure(&options.root, &options.user)?;
    let placing = Placing { root: &options.root, owner };
    placing.program(&options.binary, &layout.program)?;
    placing.dir(&layout.config_dir, 0o755)?;
    placing.own_dir(&layout.state_dir)?;
    config(&placing, &layout, options.name.as_ref())?;
    let policy_kept = policy(&placing, &layout, options.grants.as_deref())?;
    if let (None, Some(text)) = (&enrolled, &options.pasted) {
        let line = format!("{}\n", text.expose_secret().trim());
        placing.secret(&layout.state_dir.join(JOIN_FILE), line.as_bytes())?;
    }
    let grants = options.grants.as_deref().unwrap_or_default();
    init.write(&placing, grants)?;
    if !image {
        init.start()?;
    }
    Ok(Installed { enrolled: enrolled.map(|enrolled| enrolled.agent_id), layout, kind, upgraded, policy_kept })
}

/// Ends the agent and takes everything away: program, configuration, policy, identity, unit and user. Returns what was
/// there to be taken.
pub fn uninstall(root: &Path, kind: Option<Kind>) -> Result<Vec<PathBuf>, InstallError> {
    let image = is_image(root);
    if !image && !rustix::process::geteuid().is_root() {
        return Err(InstallError::NotRoot);
    }
    let kinds: Vec<_> = kind.map_or_else(|| Kind::ALL.to_vec(), |kind| vec![kind]);
    let all: Vec<_> = kinds.into_iter().map(|kind| Layout::new(root, kind)).collect();
    let inits: Vec<_> = all.iter().map(|layout| init::of(layout.kind, layout, USER, image)).collect();
    // All of them end before anything goes that one of them needs to be found by.
    for init in inits.iter().filter(|init| init.is_installed() && !image) {
        init.stop()?;
    }
    let mut gone = Vec::new();
    for (layout, init) in all.iter().zip(&inits) {
        let before = gone.len();
        place::remove(&init.files(), &mut gone)?;
        if !image && gone.len() > before {
            init.removed();
        }
        place::remove(&layout.everything(), &mut gone)?;
    }
    users::remove(root)?;
    Ok(gone)
}

/// Ends a running agent, and starts nothing: after a refusal that only a person can put right.
pub fn stop(installed: &Installed) -> Result<(), InstallError> {
    Ok(init::of(installed.kind, &installed.layout, USER, false).stop()?)
}

fn is_image(root: &Path) -> bool {
    root != Path::new("/")
}

fn pin_of(pasted: &Pasted) -> certs::join::Pin {
    match pasted {
        Pasted::Token(token) => token.pin,
        Pasted::Key(key) => key.pin,
    }
}

/// An owner's configuration is kept; a name goes into it only where there is none yet.
fn config(placing: &Placing<'_>, layout: &Layout, name: Option<&AgentId>) -> Result<(), InstallError> {
    let path = layout.config_dir.join("config.toml");
    let old = fs::read_to_string(&path).ok();
    let mut settings = name.map(|name| format!("agent_id = \"{name}\"\n")).unwrap_or_default();
    match old {
        Some(text) if !text.starts_with(layout::OURS) => Ok(()),
        Some(_) if settings.is_empty() => Ok(()),
        _ => {
            if layout.keeps_state_elsewhere() {
                settings.push_str(&format!("state_dir = {:?}\n", layout.inside(&layout.state_dir)));
            }
            let text = format!("{}\n# Every key is described in deploy/agent.example.toml.\n{settings}", layout::OURS);
            placing.secret(&path, text.as_bytes())
        }
    }
}

/// True where the owner's own was kept.
fn policy(placing: &Placing<'_>, layout: &Layout, grants: Option<&[Grant]>) -> Result<bool, InstallError> {
    let Some(grants) = grants.filter(|grants| !grants.is_empty()) else { return Ok(false) };
    let path = layout.config_dir.join("policy.toml");
    match fs::read_to_string(&path) {
        Ok(text) if !text.starts_with(layout::OURS) => Ok(true),
        // Root's, not the agent's: no bug in the agent writes its own policy.
        _ => placing.file(&path, grant::policy(grants).as_bytes(), 0o644).map(|()| false),
    }
}
