//! `landline-agent install` and `uninstall`: from the pasted line to an agent that is online, and back to nothing.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use landline_agent::{
    config::Mistakes,
    install::{self, InstallError, Installed, Options, USER, grant::Grant, init::Kind},
    state::status_socket,
};
use proto::id::AgentId;
use serde_json::Value;

use super::enrol;

/// Time for a first line. A master that answers needs a second; slow names and fallbacks need more.
const ONLINE_WITHIN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

const EXAMPLES: &str = "\
Examples:
  The line that `landline enrol create` prints on the master does all of this. By hand:
    landline-agent install --token-file key.txt --allow shell,files
  Into the folder of an image; it enrols at its first start, under its own hostname:
    landline-agent install --token-file key.txt --root /mnt/image --init systemd";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// A file that holds a join token or an enrolment key, or `-` for stdin.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What the master may do here beyond forwards to localhost and system.*: shell, exec, files.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    allow: Option<Vec<Grant>>,
    /// Whose process it is; root to administer the whole machine, which then a hostile master can as well.
    #[arg(long = "as", value_name = "USER", default_value = USER)]
    user: String,
    /// The name to enrol under; the hostname when absent.
    #[arg(long)]
    name: Option<AgentId>,
    /// systemd, rcd, procd, or none: a supervised background process.
    #[arg(long, value_name = "SYSTEM")]
    init: Option<Kind>,
    /// Fill the folder of an image instead of this machine; nothing is started, nothing outside it is touched.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// The program to install, where it is not this one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  landline-agent uninstall")]
pub(super) struct Uninstall {
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Only that of one init system.
    #[arg(long, value_name = "SYSTEM")]
    init: Option<Kind>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pasted = arguments.token_file.as_deref().map(enrol::from_file).transpose()?;
    let binary = match arguments.binary {
        Some(binary) => binary,
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    let options = Options {
        root: arguments.root,
        init: arguments.init,
        user: arguments.user,
        grants: arguments.allow,
        name: arguments.name,
        pasted: pasted.filter(|text| !text.trim().is_empty()).map(Into::into),
        binary,
    };
    let begun = Instant::now();
    let installed = match install::install(&options) {
        Ok(installed) => installed,
        Err(error @ (InstallError::NotRoot | InstallError::NoInit(_) | InstallError::NothingPasted)) => {
            return Err(Mistakes(vec![error.to_string()]).into());
        }
        Err(error) => return Err(error.into()),
    };
    if installed.policy_kept {
        println!("the policy is yours and was kept: {}", installed.layout.config_dir.join("policy.toml").display());
    }
    if options.root != std::path::Path::new("/") {
        let root = options.root.display();
        println!("installed into {root} ({}); it enrols at its first start", installed.kind.word());
        return Ok(ExitCode::SUCCESS);
    }
    wait_until_online(&installed, begun)
}

pub(super) fn uninstall(arguments: &Uninstall) -> anyhow::Result<ExitCode> {
    let gone = install::uninstall(&arguments.root, arguments.init)?;
    if gone.is_empty() {
        println!("there is no agent here");
    }
    for path in gone {
        println!("removed {}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Online, or why not. A machine that an operator has to approve is installed and waits.
fn wait_until_online(installed: &Installed, begun: Instant) -> anyhow::Result<ExitCode> {
    let verb = if installed.upgraded { "upgraded" } else { "installed" };
    let mut last = Value::Null;
    while begun.elapsed() < ONLINE_WITHIN {
        if let Some(status) = ask(installed) {
            let agent = status["agent_id"].as_str().unwrap_or_default().to_owned();
            match (status["line"].as_str(), status["code"].as_str()) {
                (Some("online" | "away"), _) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    println!("{verb} ({}); {agent} is online in {seconds:.1} s", installed.kind.word());
                    if installed.kind == Kind::None {
                        println!("no init system: after a reboot, start `landline-agent supervise` (cron: @reboot)");
                    }
                    return Ok(ExitCode::SUCCESS);
                }
                (Some("locked"), _) => {
                    let since = status["since"].as_str().unwrap_or_default();
                    println!("{verb}; {agent} is locked down by its owner since {since} and stays offline until");
                    println!("`landline-agent lockdown --off` lifts that");
                    return Ok(ExitCode::SUCCESS);
                }
                (_, Some("enrol_waits")) => {
                    let reason = status["reason"].as_str().unwrap_or_default();
                    println!("{verb}; {agent} comes online by itself as soon as it is approved.\n{reason}");
                    return Ok(ExitCode::SUCCESS);
                }
                (_, Some("enrol_refused" | "name_taken" | "enrol_rejected" | "suspended")) => {
                    let reason = status["reason"].as_str().unwrap_or_default().to_owned();
                    // Trying on would only cost the master; what was installed stays for the next try.
                    install::stop(installed)?;
                    bail!(
                        "the master refuses {agent}: {reason} The agent is installed and stopped; paste a good line again"
                    );
                }
                _ => last = status,
            }
        }
        std::thread::sleep(LOOK);
    }
    let reason = last["reason"].as_str().unwrap_or("the agent does not answer; its log says why");
    bail!(
        "{verb}, but not online after {} s: {reason}. It keeps trying; `landline-agent status` tells",
        ONLINE_WITHIN.as_secs()
    )
}

fn ask(installed: &Installed) -> Option<Value> {
    let mut socket = UnixStream::connect(status_socket(&installed.layout.state_dir)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}
