//! What a running agent says of its line to its owner: kept in a watch channel, told as JSON to whoever opens the status
//! socket in the state folder.

use std::{io, path::Path};

use serde::Serialize;
use tokio::{io::AsyncWriteExt, net::UnixListener, sync::watch};

/// The line as its owner sees it.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub agent_id: String,
    pub master: String,
    pub version: &'static str,
    pub pid: u32,
    pub policy: String,
    /// Mistakes that make the policy deny everything.
    pub policy_mistakes: Vec<String>,
    #[serde(flatten)]
    pub line: LineStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum LineStatus {
    Connecting,
    Online {
        epoch: u64,
        carrier: &'static str,
        since: String,
        master_version: String,
    },
    Waiting {
        code: String,
        reason: String,
        next_attempt: String,
    },
    /// On-demand, and nothing needed it on the last visit.
    Away {
        last_visit: String,
        next_visit: String,
    },
    /// By the owner: no line, and nothing runs.
    Locked {
        since: String,
        reason: String,
    },
    Stopped,
}

pub type StatusSender = watch::Sender<Status>;

/// Answers on the socket until dropped. A connection gets the status and is closed; `look` is called before.
pub async fn answer(path: &Path, status: watch::Receiver<Status>, look: impl Fn()) -> io::Result<()> {
    // The folder is 0700 and locked, so what lies there is a dead agent's.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    loop {
        let (mut connection, _) = listener.accept().await?;
        look();
        let text = serde_json::to_vec(&*status.borrow()).unwrap_or_default();
        // Small enough for the socket's buffer: a reader that does not read holds up nobody.
        let _ = connection.write_all(&text).await;
    }
}
