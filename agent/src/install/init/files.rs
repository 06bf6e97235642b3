//! The files of each init system, from the templates that deploy/ shows to people.

use std::path::PathBuf;

use super::{
    super::{InstallError, Layout, grant, grant::Grant, place::Placing},
    Kind,
};

const SYSTEMD: &str = include_str!("../../../../deploy/systemd/landline-agent.service");
const RCD: &str = include_str!("../../../../deploy/rc.d/landline_agent");
const PROCD: &str = include_str!("../../../../deploy/procd/landline-agent");

/// The files of one installation.
pub(super) struct Files {
    pub(super) layout: Layout,
    pub(super) user: String,
}

impl Files {
    fn at(&self, path: &str) -> PathBuf {
        self.layout.root.join(path)
    }

    /// The one file without which it is not installed.
    pub(super) fn main(&self, kind: Kind) -> PathBuf {
        self.at(match kind {
            Kind::Systemd => "etc/systemd/system/landline-agent.service",
            Kind::Rcd => "usr/local/etc/rc.d/landline_agent",
            Kind::Procd => "etc/init.d/landline-agent",
            Kind::None => "nonexistent",
        })
    }

    pub(super) fn all(&self, kind: Kind) -> Vec<PathBuf> {
        let beside: &[&str] = match kind {
            Kind::Systemd => &[
                "etc/systemd/system/landline-agent.service.d",
                "etc/systemd/system/multi-user.target.wants/landline-agent.service",
            ],
            Kind::Rcd => &["etc/rc.conf.d/landline_agent"],
            Kind::Procd => &["etc/rc.d/S95landline-agent", "etc/rc.d/K10landline-agent"],
            Kind::None => &[],
        };
        beside.iter().map(|path| self.at(path)).chain([self.main(kind)]).collect()
    }

    pub(super) fn write(&self, kind: Kind, placing: &Placing<'_>, grants: &[Grant]) -> Result<(), InstallError> {
        let main = self.main(kind);
        match kind {
            Kind::Systemd => {
                placing.file(&main, SYSTEMD.as_bytes(), 0o644)?;
                if let Some(text) = grant::drop_in(grants, &self.user) {
                    let path = self.at("etc/systemd/system/landline-agent.service.d/install.conf");
                    placing.file(&path, text.as_bytes(), 0o644)?;
                }
                let wants = self.at("etc/systemd/system/multi-user.target.wants/landline-agent.service");
                placing.link(&wants, "../landline-agent.service")
            }
            Kind::Rcd => {
                placing.file(&main, RCD.as_bytes(), 0o755)?;
                let settings = format!("landline_agent_enable=\"YES\"\nlandline_agent_runas=\"{}\"\n", self.user);
                placing.file(&self.at("etc/rc.conf.d/landline_agent"), settings.as_bytes(), 0o644)
            }
            Kind::Procd => {
                let text = PROCD.replace("AGENT_USER=landline-agent", &format!("AGENT_USER={}", self.user));
                placing.file(&main, text.as_bytes(), 0o755)?;
                placing.link(&self.at("etc/rc.d/S95landline-agent"), "../init.d/landline-agent")?;
                placing.link(&self.at("etc/rc.d/K10landline-agent"), "../init.d/landline-agent")
            }
            Kind::None => Ok(()),
        }
    }
}
