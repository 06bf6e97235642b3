//! What is said to people in each kind of trouble: what happened, and what to do about it. No markup here; whoever shows
//! it escapes it.

use proto::code::Code;

use super::trouble::Trouble;

/// One page's words.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) title: &'static str,
    pub(super) paragraphs: Vec<String>,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) command: Option<String>,
    /// Address and name.
    pub(super) link: Option<(String, String)>,
}

fn say(title: &'static str, paragraphs: &[&str]) -> Text {
    Text { title, paragraphs: paragraphs.iter().map(|text| (*text).to_owned()).collect(), ..Text::default() }
}

pub(super) fn text(trouble: &Trouble) -> Text {
    match trouble {
        Trouble::Misdirected => say("No such address here", &["This name belongs to no machine's page."]),
        Trouble::Sibling => say(
            "Refused: another page asked for this",
            &["A page of another machine or site tried to reach this one. Open it from the dashboard instead."],
        ),
        Trouble::Method => say("This method does not pass here", &["CONNECT and TRACE are not for pages."]),
        Trouble::NotOurs => say("There is nothing here", &["Paths that begin with /.landline/ are Landline's own."]),
        Trouble::NoVisit => say(
            "Open this page from the dashboard",
            &["Your browser is not admitted here, or not any more. Open the machine's page from the dashboard, or with:"],
        )
        .with_command("landline tunnel web ID"),
        Trouble::Ticket => say(
            "This link has been used or ran out",
            &["A link to a machine's page works once and within a minute. Ask for a new one in the dashboard, or with:"],
        )
        .with_command("landline tunnel web ID"),
        Trouble::Ours => say("The master failed", &["Its log says why. Try again."]),
        Trouble::Ended { reason } => ended(reason),
        Trouble::Reconnecting => say(
            "The agent is reconnecting",
            &[
                "The machine's line is down at the moment. It comes back by itself, and so does this page.",
                "What you sent has not arrived if this is the answer to a form: go back and send it again once the page is there.",
            ],
        ),
        Trouble::Dial(code) => dial(*code),
        Trouble::Busy => say("Too many connections", &["This tunnel carries as many connections as it may. Try again."]),
        Trouble::Loop => say(
            "The page sends your browser round in circles",
            &["The target answers with one redirect after the other. Deleting this page's cookies sometimes helps."],
        ),
        Trouble::OldTls { .. }
        | Trouble::Tls { .. }
        | Trouble::Certificate { .. }
        | Trouble::Silent { .. }
        | Trouble::Broken(_)
        | Trouble::HeaderTooLarge => of_target(trouble),
        Trouble::Beside { .. } | Trouble::Away { .. } => elsewhere(trouble),
    }
}

impl Text {
    fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = Some(command.into());
        self
    }
}

fn ended(reason: &str) -> Text {
    let why = match reason {
        "closed_by_user" => "Somebody closed it.",
        "window_closed" => "Its window was closed.",
        "heartbeat_lost" => "Whoever opened it has gone.",
        "agent_lost" => "The agent was away for too long.",
        "idle" => "It was not used for a while.",
        "suspended" => "The agent was suspended.",
        "removed" => "The agent was removed.",
        "locked_down_by_owner" => "The machine's owner locked it down.",
        "master_restarted" | "master_stopped" => "The master was restarted.",
        "expired" => "Its time ran out.",
        _ => "It could not be established.",
    };
    let mut told = say("This tunnel is closed", &[why, "Open the machine's page again from the dashboard."]);
    told.facts.push(("Reason", reason.to_owned()));
    told
}

fn dial(code: Code) -> Text {
    let title = match code {
        Code::TARGET_REFUSED => "The target refused the connection",
        Code::TARGET_UNREACHABLE => "The target cannot be reached",
        Code::TARGET_TIMEOUT | Code::TOO_SLOW => "The target does not answer",
        Code::NAME_NOT_FOUND => "The target's name is not known",
        Code::POLICY => "The machine's owner does not allow this target",
        _ => "The target was not reached",
    };
    let mut told = say(title, &[code.meaning().unwrap_or("The agent gave a reason that this master does not know.")]);
    told.facts.push(("Reason", code.to_string()));
    told
}

fn of_target(trouble: &Trouble) -> Text {
    match trouble {
        Trouble::OldTls { version } => say(
            "The target's encryption is too old",
            &[
                &format!(
                    "The target speaks {version} at best, which has been broken for years; this gateway begins at TLS 1.2."
                ),
                "Update its firmware, or turn on TLS 1.2 there. Until then, reach it with an old browser through the tunnel's own port on the master's host, or over SSH through the agent.",
            ],
        ),
        Trouble::Tls { detail } => {
            let mut told = say(
                "No encrypted connection to the target",
                &["The target and the gateway found no way to speak TLS."],
            );
            told.facts.push(("Detail", detail.clone()));
            told
        }
        Trouble::Certificate { tunnel, pinned, found } => {
            let mut told = say(
                "The target shows another certificate",
                &[
                    "This is expected after a firmware update or a renewed certificate. If there was neither, somebody may be standing between the agent and the target: do not log in.",
                    "If you know the new one to be right, trust it in the dashboard or with the command below, and load this page again.",
                ],
            );
            told.facts = vec![("Before (SHA-256)", colons(pinned)), ("Now (SHA-256)", colons(found))];
            told.with_command(format!("landline tunnel trust {tunnel} {}", hex::encode(found)))
        }
        Trouble::Silent { after } => say(
            "The target does not answer",
            &[
                &format!("It took the request and said nothing for {} s.", after.as_secs()),
                "Load the page again to try once more.",
            ],
        ),
        Trouble::HeaderTooLarge => say(
            "The target's answer cannot be read",
            &["The header of its answer is longer than the gateway takes (64 KiB)."],
        ),
        Trouble::Broken(detail) => {
            let mut told = say(
                "The target's answer cannot be read",
                &["What came back is not an HTTP answer, or not a whole one."],
            );
            told.facts.push(("Detail", detail.clone()));
            told
        }
        _ => Text::default(),
    }
}

fn elsewhere(trouble: &Trouble) -> Text {
    match trouble {
        Trouble::Beside { https, host, port, .. } => {
            let scheme = if *https { "https" } else { "http" };
            say(
                "The target sends you to another of its ports",
                &[
                    &format!("It wants your browser at {scheme}://{host}:{port}, which this tunnel does not lead to."),
                    "Open a tunnel to that port from the dashboard, or with:",
                ],
            )
            .with_command(format!("landline tunnel open AGENT {host}:{port} --scheme {scheme} --web"))
        }
        Trouble::Away { address } => {
            let mut told = say(
                "The target sends you to another site",
                &[
                    "If that site is on the internet, follow the link. If only the machine's own network knows it, open a tunnel to it instead.",
                ],
            );
            let web = address.starts_with("https://") || address.starts_with("http://") || address.starts_with("//");
            if web {
                told.link = Some((address.clone(), address.clone()));
            } else {
                told.facts.push(("Address", address.clone()));
            }
            told
        }
        _ => Text::default(),
    }
}

/// `AB:CD:…`, as browsers show fingerprints.
fn colons(sha256: &[u8; 32]) -> String {
    sha256.map(|byte| format!("{byte:02X}")).join(":")
}
