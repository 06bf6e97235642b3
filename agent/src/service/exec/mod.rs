//! Runs one command line per stream. Admission, the journal and the start are here; watching it is `supervise`.
//!
//! For now an exec ends with its stream: nobody can come back for it.

mod input;
mod pump;
mod supervise;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use proto::{
    code::Code,
    exec::{ExecSpec, FromExec, Program},
    id::RequestId,
    net::stream::FrameStream,
};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::supervise::Run;
use super::{
    answer,
    launch::{Launch, LaunchError, launch},
    once::{Begun, Once},
};
use crate::policy::Policy;

/// Execs at once; the next is refused as busy.
const EXECS_MAX: usize = 256;

/// How long an exec is waited for, apart from its own timeout.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Output that nobody reads for this long ends the run.
    pub unread: Duration,
    /// Between the polite signal and the one that cannot be refused.
    pub grace: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { unread: Duration::from_secs(600), grace: Duration::from_secs(2) }
    }
}

/// Runs execs. They belong to the agent, not to a line: they clean up after the line that asked for them is gone.
#[derive(Debug, Clone)]
pub struct Execs {
    policy: Arc<Policy>,
    once: Once,
    patience: Patience,
    running: TaskTracker,
    permits: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Execs {
    /// When `shutdown` is cancelled, everything that runs is killed.
    pub fn new(policy: Arc<Policy>, once: Once, patience: Patience, shutdown: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(EXECS_MAX));
        Self { policy, once, patience, running: TaskTracker::new(), permits, shutdown }
    }

    /// Resolves when nothing runs any more. To be called after the shutdown.
    pub async fn finished(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Serves one exec until it ended. Dropping the future leaves it to end with its stream.
    pub async fn serve(&self, id: RequestId, taken_ms: i64, spec: ExecSpec, stream: FrameStream) {
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return answer::refuse(stream, Code::BUSY, "too many execs are running on this agent; try again later")
                .await;
        };
        let execs = self.clone();
        let task = self.running.spawn(async move {
            let _permit = permit;
            execs.run(id, taken_ms, spec, stream).await;
        });
        if let Err(error) = task.await
            && let Ok(panic) = error.try_into_panic()
        {
            // Counted where all panics of handlers are.
            std::panic::resume_unwind(panic);
        }
    }

    async fn run(&self, id: RequestId, taken_ms: i64, spec: ExecSpec, mut stream: FrameStream) {
        let begun = match self.once.begin(id, taken_ms).await {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!(%id, error = &error as &dyn std::error::Error, "an exec was not started");
                let message = "the agent's journal cannot be written, so nothing was started; is its disk full?";
                return answer::refuse(stream, Code::INTERNAL, message).await;
            }
        };
        let run = match self.start(&spec, &begun) {
            Ok(run) => run,
            Err(error) => return answer::refuse(stream, Code::SPAWN_FAILED, &error.to_string()).await,
        };
        let pid = run.pid();
        if let Err(error) = begun.started(pid).await {
            tracing::error!(%id, error = &error as &dyn std::error::Error, "the journal did not take a process group");
        }
        if answer::open(&mut stream, None).await.is_ok()
            && stream.send.write_frame(&FromExec::Started { pid }).await.is_ok()
        {
            supervise::supervise(run, stream, &spec, self.patience, &self.shutdown).await;
        }
    }

    fn start(&self, spec: &ExecSpec, begun: &Begun) -> Result<Run, LaunchError> {
        let shell;
        let argv = match &spec.program {
            Program::Argv(argv) => argv.as_slice(),
            Program::Shell(line) => {
                shell = ["/bin/sh".to_owned(), "-c".to_owned(), line.clone()];
                &shell
            }
        };
        let (child, group) = launch(&Launch {
            id: begun.id(),
            argv,
            cwd: spec.cwd.as_deref().map(Path::new).or(self.policy.exec_dir()),
            env: &spec.env,
            run_as: self.policy.run_as(),
            stdin: spec.stdin,
        })?;
        Ok(Run::new(child, group))
    }
}
