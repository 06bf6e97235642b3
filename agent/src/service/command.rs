//! Typed commands: finds who answers `service.action`, runs it within its time, and sends one reply. What has effects
//! runs under the journal; what only looks does not touch the disk.

use std::{path::PathBuf, sync::Arc, time::Duration};

use proto::{
    code::Code,
    command::{Command, Reply},
    id::RequestId,
    limits::COMMAND_JSON_MAX,
    net::stream::FrameStream,
};
use serde_json::Value;

use super::{
    answer,
    controller::{self, Controllers, Failure},
    once::Once,
    stats::Sampler,
};
use crate::policy::Policy;

/// Where the request sets no timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest one that is taken.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// Answers commands. Clones share it.
#[derive(Debug, Clone)]
pub struct Commands {
    controllers: Arc<Controllers>,
    once: Once,
}

impl Commands {
    pub fn new(policy: Arc<Policy>, once: Once, sampler: Sampler, actions_dir: PathBuf) -> Self {
        Self { controllers: Arc::new(Controllers::new(policy, sampler, actions_dir)), once }
    }

    /// Serves one command and says how it ended. Dropping the future kills what it started.
    pub async fn serve(&self, id: RequestId, taken_ms: i64, command: &Command, mut stream: FrameStream) -> Code {
        let begun = if only_looks(command) {
            None
        } else {
            match self.once.begin(id, taken_ms).await {
                Ok(begun) => Some(begun),
                Err(error) => {
                    tracing::error!(%id, error = &error as &dyn std::error::Error, "a command was not started");
                    let message = "the agent's journal cannot be written, so nothing was started; is its disk full?";
                    answer::refuse(stream, Code::INTERNAL, message).await;
                    return Code::INTERNAL;
                }
            }
        };
        if answer::open(&mut stream, None).await.is_err() {
            return Code::ABANDONED;
        }
        let stopped = stream.send.stopped();
        let reply = tokio::select! {
            biased;
            // Whoever asked is gone; what runs is killed by being dropped.
            _ = stopped => return Code::ABANDONED,
            reply = self.reply(id, command) => reply,
        };
        drop(begun);
        let ended = match &reply {
            Reply::Success { .. } => Code::DONE,
            Reply::Failure { code, .. } => *code,
        };
        // If it cannot be written, the asker is gone.
        if stream.send.write_frame(&reply).await.is_ok() {
            stream.send.finish();
        }
        stream.recv.source_mut().stop(Code::DONE);
        ended
    }

    async fn reply(&self, id: RequestId, command: &Command) -> Reply {
        let timeout = timeout(command.timeout_ms);
        let running = self.controllers.run(id, command);
        let result = match tokio::time::timeout(timeout, running).await {
            Ok(result) => result.and_then(|value| encode(&value)),
            Err(_) => Err(Failure::new(Code::TIMED_OUT, format!("it took longer than {timeout:?} and was ended"))),
        };
        match result {
            Ok(data) => Reply::Success { data },
            Err(Failure { code, message }) => Reply::Failure { code, message: answer::cut(&message) },
        }
    }
}

/// Whether it changes nothing, so that it needs no journal.
pub fn only_looks(command: &Command) -> bool {
    controller::only_looks(&command.service, &command.action)
}

fn timeout(asked_ms: u32) -> Duration {
    match asked_ms {
        0 => DEFAULT_TIMEOUT,
        asked => Duration::from_millis(asked.into()).min(LONGEST_TIMEOUT),
    }
}

fn encode(value: &Value) -> Result<String, Failure> {
    let data = value.to_string();
    if data.len() <= COMMAND_JSON_MAX {
        return Ok(data);
    }
    let message = format!("the result is {} bytes long, {COMMAND_JSON_MAX} fit; ask for less", data.len());
    Err(Failure::new(Code::TOO_LARGE, message))
}
