//! The commands that are pasted into a new machine: how they know the master, and what they hand to the script. Builds
//! text; serves and fetches nothing. What the public port has at the moment is told by whoever runs it.

use std::sync::Arc;

use super::{
    dto::enrol::{Commands, Grant, Platform},
    problem::{Kind, Problem},
    state::Api,
};

/// What the public port is and has right now.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `https://host[:port]` of the public TCP port.
    pub url: String,
    /// `sha256//…` of the key that answers there; `None` where the system's own authorities know the certificate.
    pub pin: Option<String>,
    /// Of the install script.
    pub script_sha256: String,
    /// Of the list of all binaries' hashes.
    pub sums_sha256: String,
    pub platforms: Vec<Platform>,
}

/// Tells the facts; reads files.
pub type Ask = Arc<dyn Fn() -> std::io::Result<Facts> + Send + Sync>;

pub(super) async fn facts(api: &Api) -> Result<Facts, Problem> {
    let ask = api.settings.install.clone();
    match tokio::task::spawn_blocking(move || ask()).await {
        Ok(Ok(facts)) => Ok(facts),
        Ok(Err(error)) => {
            tracing::error!(%error, "the agents' binaries cannot be read");
            Err(Kind::Internal.problem("the agents' binaries below the data folder cannot be read; the log says why"))
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// The word of a grant on the command line and in the store.
pub(super) fn word(grant: Grant) -> &'static str {
    match grant {
        Grant::Shell => "shell",
        Grant::Exec => "exec",
        Grant::Files => "files",
    }
}

/// `printf` is part of every shell: the key is in no process's arguments, no environment and no URL.
pub(super) fn commands(facts: &Facts, key: &str, allow: &[Grant], as_root: bool) -> Commands {
    let mut options = String::new();
    if !allow.is_empty() {
        options.push_str(" --allow ");
        options.push_str(&allow.iter().map(|grant| word(*grant)).collect::<Vec<_>>().join(","));
    }
    if as_root {
        options.push_str(" --as root");
    }
    let url = &facts.url;
    let (fetch, known) = match &facts.pin {
        Some(pin) => (format!("curl -fsSk --pinnedpubkey '{pin}'"), format!("--pin '{pin}'")),
        None => ("curl -fsS".to_owned(), "--verified".to_owned()),
    };
    // As root wherever there is a way; the file is gone when the shell in brackets ends.
    let run = format!("printf '%s\\n' '{key}' | $(command -v sudo) sh \"$f\" --url {url}");
    let begin = "(f=$(mktemp) && trap 'rm -f \"$f\"' EXIT && ";
    let curl = format!("{begin}{fetch} -o \"$f\" {url}/install.sh && {run} {known}{options})");
    let (wget, bsd) = match &facts.pin {
        Some(_) => ("wget -q --no-check-certificate", "fetch -q --no-verify-peer --no-verify-hostname"),
        None => ("wget -q", "fetch -q"),
    };
    let known = if facts.pin.is_some() { format!("--sums {}", facts.sums_sha256) } else { "--verified".to_owned() };
    let plain = format!(
        "{begin}if command -v wget >/dev/null; then {wget} -O \"$f\" {url}/install.sh; else {bsd} -o \"$f\" {url}/install.sh; fi; \
         [ \"$({{ sha256sum <\"$f\" || sha256 -q \"$f\" || openssl dgst -sha256 -r \"$f\"; }} 2>/dev/null | cut -c1-64)\" \
         = {sum} ] || {{ echo \"landline: the script could not be fetched, or is not the master's; nothing was run\" >&2; exit 1; }}; {run} {known}{options})",
        sum = facts.script_sha256,
    );
    Commands { curl, plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pin: Option<&str>) -> Facts {
        Facts {
            url: "https://master.example".into(),
            pin: pin.map(str::to_owned),
            script_sha256: "5c".repeat(32),
            sums_sha256: "5d".repeat(32),
            platforms: Vec::new(),
        }
    }

    #[test]
    fn the_commands_are_one_line_each_and_verify_before_they_run() {
        let both = commands(&facts(Some("sha256//abc=")), "llk1_key", &[Grant::Shell, Grant::Files], true);
        for command in [&both.curl, &both.plain] {
            assert!(!command.contains('\n') && command.ends_with("--allow shell,files --as root)"), "{command}");
            assert_eq!(command.matches("llk1_key").count(), 1, "{command}");
            assert!(command.contains("printf '%s\\n' 'llk1_key' | "), "{command}");
        }
        assert!(
            both.curl.contains("curl -fsSk --pinnedpubkey 'sha256//abc='")
                && both.curl.contains("--pin 'sha256//abc='")
        );
        let (check, run) = (both.plain.find(&"5c".repeat(32)), both.plain.find("printf"));
        assert!(check < run && both.plain.contains(&format!("--sums {}", "5d".repeat(32))), "{}", both.plain);
        let known = commands(&facts(None), "llk1_key", &[], false);
        assert!(known.curl.contains("curl -fsS -o") && known.curl.ends_with("--verified)"), "{}", known.curl);
        assert!(!known.plain.contains("no-check") && known.plain.ends_with("--verified)"), "{}", known.plain);
    }
}
