//! Shell sessions: a program on a terminal of its own. A session belongs to the agent; streams come and go on it.
//! Admission, the journal and the start are here, the list of sessions, and who ends all of them at once. The terminal
//! is `keeper`'s.

mod keeper;
mod output;
mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    code::Code,
    exec::Program,
    failpoint,
    id::{RequestId, ShellId},
    net::stream::FrameStream,
    shell::{ShellAttach, ShellSpec},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    keeper::{Limits, Terminal},
    session::Session,
};
use super::{
    answer,
    launch::{Launch, LaunchError, OnTerminal, launch_on_terminal},
    leftovers,
    once::{Begun, Once},
    starting::{Start, Starting},
};
use crate::{
    journal::Leftover,
    logbook::{self, Running},
    policy::Policy,
};

/// What a session holds until it is over.
type Held = (Begun, OwnedSemaphorePermit);

/// Sessions that run at once; the next is refused as busy. Each may hold a ring of output.
const SESSIONS_MAX: usize = 64;

/// How long a session is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a stream for this long it is ended.
    pub unattached: Duration,
    /// Between hanging up and the signal that cannot be refused.
    pub grace: Duration,
    /// How long the end and the last output of an ended session are kept.
    pub keep_ended: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let ten_minutes = Duration::from_secs(600);
        Self { unattached: ten_minutes, grace: Duration::from_secs(2), keep_ended: ten_minutes }
    }
}

/// The sessions of this agent. Clones share them.
#[derive(Debug, Clone)]
pub struct Shells {
    policy: Arc<Policy>,
    once: Once,
    patience: Patience,
    sessions: Arc<Mutex<HashMap<ShellId, Arc<Session>>>>,
    /// One for each session that starts or runs.
    places: Arc<Semaphore>,
    starting: Starting,
    running: TaskTracker,
    shutdown: CancellationToken,
}

impl Shells {
    /// When `shutdown` is cancelled, every session ends.
    pub fn new(policy: Arc<Policy>, once: Once, patience: Patience, shutdown: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(SESSIONS_MAX));
        let (sessions, starting) = (Arc::default(), Starting::default());
        Self { policy, once, patience, sessions, places, starting, running: TaskTracker::new(), shutdown }
    }

    /// Resolves when nothing runs any more. To be called after the shutdown.
    pub async fn finished(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Ends every session, because the master sent this agent away.
    pub fn end_all(&self, code: Code) {
        for session in self.lock().values() {
            session.end(code);
        }
    }

    /// Ends every session, also one that is just being started, with all that they started and that still carries their
    /// mark, and resolves when nothing of it runs. For when no stream can start another.
    pub async fn end_for_good(&self, code: Code) {
        self.starting.all_settled().await;
        self.end_all(code);
        let sessions: Vec<_> = self.lock().values().cloned().collect();
        let ending = sessions.into_iter().map(|session| async move {
            let _ = session.changes().wait_for(|()| session.ended_at().is_some()).await;
            let fled = Leftover { id: RequestId(session.id.0), process: None };
            let _ = tokio::task::spawn_blocking(move || leftovers::end(&fled)).await;
        });
        futures_util::future::join_all(ending).await;
    }

    /// Opens a session and serves its first stream. Dropping the future leaves the session running. `logged` goes with it.
    pub async fn open(&self, id: RequestId, taken_ms: i64, spec: ShellSpec, stream: FrameStream, logged: Running) {
        let shells = self.clone();
        let start = self.starting.begin(id);
        // A line that is lost in the middle of a start must not leave half a session.
        let started = self.running.spawn(async move { shells.start(start, id, taken_ms, &spec, logged).await });
        match started.await {
            Ok(Ok(session)) => _ = stream::follow(&session, stream, 0).await,
            Ok(Err((code, message))) => answer::refuse(stream, code, &message).await,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    // Counted where all panics of handlers are.
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Serves one more stream of a session that runs or ended lately; one that is being started is waited for. Says how
    /// the stream ended.
    pub async fn attach(&self, attach: ShellAttach, stream: FrameStream) -> Code {
        self.starting.settled(RequestId(attach.session.0)).await;
        let session = self.lock().get(&attach.session).cloned();
        match session {
            Some(session) => stream::follow(&session, stream, attach.offset).await,
            None => {
                answer::refuse(stream, Code::NO_SESSION, Code::NO_SESSION.meaning().unwrap_or_default()).await;
                Code::NO_SESSION
            }
        }
    }

    async fn start(
        &self,
        start: Start,
        id: RequestId,
        taken_ms: i64,
        spec: &ShellSpec,
        logged: Running,
    ) -> Result<Arc<Session>, (Code, String)> {
        match self.begin(start, id, taken_ms, spec).await {
            Ok((session, held, terminal)) => {
                let idle = (spec.idle_ms > 0).then(|| Duration::from_millis(spec.idle_ms));
                let limits = Limits { idle, patience: self.patience };
                self.running.spawn(self.clone().keep((held, logged), session.clone(), terminal, limits));
                Ok(session)
            }
            Err((code, message)) => {
                logged.ended(code, &message);
                Err((code, message))
            }
        }
    }

    /// `_start` is dropped when the session is in the list, or nowhere.
    async fn begin(
        &self,
        _start: Start,
        id: RequestId,
        taken_ms: i64,
        spec: &ShellSpec,
    ) -> Result<(Arc<Session>, Held, Terminal), (Code, String)> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err((Code::BUSY, format!("{SESSIONS_MAX} sessions run on this agent; end one first")));
        };
        self.forget_the_oldest();
        let begun = self.once.begin(id, taken_ms).await.map_err(|error| {
            tracing::error!(%id, error = &error as &dyn std::error::Error, "a shell was not started");
            let message = "the agent's journal cannot be written, so nothing was started; is its disk full?";
            (Code::INTERNAL, message.to_owned())
        })?;
        failpoint::here("shell.before_launch");
        let terminal = self.launch(id, spec).map_err(|error| (Code::SPAWN_FAILED, error.to_string()))?;
        let pid = terminal.leader.unsigned_abs();
        failpoint::here("shell.launched");
        if let Err(error) = begun.started(pid).await {
            tracing::error!(%id, error = &error as &dyn std::error::Error, "the journal did not take a process group");
        }
        let session = Arc::new(Session::new(ShellId(id.0), pid, spec.size));
        self.lock().insert(session.id, session.clone());
        tracing::info!(%id, pid, "a shell was opened");
        Ok((session, (begun, place), terminal))
    }

    async fn keep(self, (held, logged): (Held, Running), session: Arc<Session>, terminal: Terminal, limits: Limits) {
        let end = keeper::keep(session.clone(), terminal, limits, self.shutdown.clone()).await;
        failpoint::here("shell.before_ended");
        drop(held);
        logged.ended(logbook::end(&end), "");
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(self.patience.keep_ended) => {}
        }
        self.lock().remove(&session.id);
    }

    /// Bounds what is kept of ended sessions: the one that ended first goes.
    fn forget_the_oldest(&self) {
        let mut sessions = self.lock();
        if sessions.len() >= 2 * SESSIONS_MAX {
            let ended = |session: &Arc<Session>| Some((session.ended_at()?, session.id));
            let oldest: Option<(Instant, ShellId)> = sessions.values().filter_map(ended).min();
            oldest.and_then(|(_, id)| sessions.remove(&id));
        }
    }

    fn launch(&self, id: RequestId, spec: &ShellSpec) -> Result<Terminal, LaunchError> {
        let argv = match &spec.program {
            None => Vec::new(),
            Some(Program::Argv(argv)) => argv.clone(),
            Some(Program::Shell(line)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        };
        // A program on a terminal runs as any exec does.
        let (run_as, folder) = match &spec.program {
            None => (self.policy.shell_as(), None),
            Some(_) => (self.policy.run_as(), self.policy.exec_dir()),
        };
        let launch = Launch {
            id,
            argv: &argv,
            cwd: spec.cwd.as_deref().map(Path::new).or(folder),
            env: &spec.env,
            run_as,
            stdin: true,
        };
        let (child, pty) = launch_on_terminal(&launch, &OnTerminal { term: &spec.term, size: spec.size })?;
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        Ok(Terminal { child, pty, leader })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShellId, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
