//! Runs command lines. A run belongs to the agent; streams come and go on it. Admission, the journal and the start are here,
//! the list of runs, and who ends all of them at once. Watching one is `supervise`, serving a stream `attend`.

mod attend;
mod input;
mod output;
mod pump;
mod session;
mod supervise;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::{
    code::Code,
    exec::{ExecAttach, ExecSpec, FromExec, Program},
    failpoint,
    id::RequestId,
    net::stream::FrameStream,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    session::{Pool, Session},
    supervise::{Bounds, Run},
};
use super::{
    answer,
    launch::{Launch, LaunchError, launch},
    once::{Begun, Once},
    starting::{Start, Starting},
};
use crate::{
    logbook::{self, Running},
    policy::Policy,
};

/// What a run holds until it is over.
type Held = (OwnedSemaphorePermit, Begun);

/// Execs that run at once; the next is refused as busy.
const EXECS_MAX: usize = 256;
/// Execs that ended and are kept; beyond it the one that ended first is forgotten.
const ENDED_MAX: usize = 256;

/// How long an exec is waited for, apart from its own timeout.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Pipes left unread for this long, because nobody takes the output, end the run.
    pub unread: Duration,
    /// Between the polite signal and the one that cannot be refused.
    pub grace: Duration,
    /// How long outcome and output of an ended run are kept.
    pub keep_ended: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let ten_minutes = Duration::from_secs(600);
        Self { unread: ten_minutes, grace: Duration::from_secs(2), keep_ended: ten_minutes }
    }
}

/// The execs of this agent. They belong to it, not to a line. Clones share them.
#[derive(Debug, Clone)]
pub struct Execs {
    policy: Arc<Policy>,
    once: Once,
    patience: Patience,
    starting: Starting,
    running: TaskTracker,
    permits: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
    pool: Arc<Pool>,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Kept {
    sessions: HashMap<RequestId, Arc<Session>>,
    /// In the order in which they ended.
    ended: VecDeque<RequestId>,
}

impl Execs {
    /// When `shutdown` is cancelled, everything that runs is killed.
    pub fn new(policy: Arc<Policy>, once: Once, patience: Patience, shutdown: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(EXECS_MAX));
        let (kept, pool, starting) = (Arc::default(), Arc::default(), Starting::default());
        Self { policy, once, patience, starting, running: TaskTracker::new(), permits, kept, pool, shutdown }
    }

    /// Resolves when nothing runs any more. To be called after the shutdown.
    pub async fn finished(&self) {
        self.running.close();
        self.running.wait().await;
    }

    /// Ends every run, because the master sent this agent away.
    pub fn end_all(&self, code: Code) {
        for session in self.lock().sessions.values() {
            session.kill(code);
        }
    }

    /// Ends every run, also one that is just being started, and resolves when nothing runs. For when no stream can start
    /// another.
    pub async fn end_for_good(&self, code: Code) {
        self.starting.all_settled().await;
        self.end_all(code);
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        for session in sessions {
            // The sender lives as long as the session.
            let _ = session.changes().wait_for(|state| state.outcome.is_some()).await;
        }
    }

    /// Starts one exec and serves its first stream. Dropping the future leaves it running. `logged` goes with the run.
    pub async fn serve(&self, id: RequestId, taken_ms: i64, spec: ExecSpec, mut stream: FrameStream, logged: Running) {
        let execs = self.clone();
        let start = self.starting.begin(id);
        // A line that is lost in the middle of a start must not leave half a run.
        let started = self.running.spawn(async move { execs.start(start, id, taken_ms, &spec, logged).await });
        match started.await {
            Ok(Ok(session)) => {
                let started = FromExec::Started { pid: session.pid };
                if answer::open(&mut stream, None).await.is_ok() && stream.send.write_frame(&started).await.is_ok() {
                    attend::attend(&session, stream, session.first(), 0).await;
                }
            }
            Ok(Err((code, message))) => answer::refuse(stream, code, &message).await,
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    // Counted where all panics of handlers are.
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Serves one more stream of an exec that runs or ended lately; one that is being started is waited for. Says how the
    /// stream ended.
    pub async fn attach(&self, attach: ExecAttach, mut stream: FrameStream) -> Code {
        self.starting.settled(RequestId(attach.exec.0)).await;
        let session = self.lock().sessions.get(&RequestId(attach.exec.0)).cloned();
        let Some(session) = session else {
            answer::refuse(stream, Code::NO_SESSION, Code::NO_SESSION.meaning().unwrap_or_default()).await;
            return Code::NO_SESSION;
        };
        let seat = match session.join(attach.offset) {
            Ok(seat) => seat,
            Err(refused) => {
                answer::refuse(stream, refused.code, &refused.message).await;
                return refused.code;
            }
        };
        let attached = FromExec::Attached(seat.attached.clone());
        if answer::open(&mut stream, None).await.is_ok() && stream.send.write_frame(&attached).await.is_ok() {
            attend::attend(&session, stream, seat, attach.offset.unwrap_or(0)).await;
        }
        Code::DONE
    }

    async fn start(
        &self,
        start: Start,
        id: RequestId,
        taken_ms: i64,
        spec: &ExecSpec,
        logged: Running,
    ) -> Result<Arc<Session>, (Code, String)> {
        match self.begin(start, id, taken_ms, spec).await {
            Ok((session, held, run)) => {
                let timeout = (spec.timeout_ms > 0).then(|| Duration::from_millis(spec.timeout_ms));
                let bounds = Bounds { timeout, output_max: spec.output_max, patience: self.patience };
                self.running.spawn(self.clone().keep((held, logged), session.clone(), run, bounds));
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
        spec: &ExecSpec,
    ) -> Result<(Arc<Session>, Held, Run), (Code, String)> {
        let permit = self
            .permits
            .clone()
            .try_acquire_owned()
            .map_err(|_| (Code::BUSY, "too many execs are running on this agent; try again later".to_owned()))?;
        let begun = self.once.begin(id, taken_ms).await.map_err(|error| {
            tracing::error!(%id, error = &error as &dyn std::error::Error, "an exec was not started");
            let message = "the agent's journal cannot be written, so nothing was started; is its disk full?";
            (Code::INTERNAL, message.to_owned())
        })?;
        failpoint::here("exec.before_launch");
        let run = self.launch(spec, &begun).map_err(|error| (Code::SPAWN_FAILED, error.to_string()))?;
        let pid = run.pid();
        failpoint::here("exec.launched");
        if let Err(error) = begun.started(pid).await {
            tracing::error!(%id, error = &error as &dyn std::error::Error, "the journal did not take a process group");
        }
        let session = Arc::new(Session::new(id, pid, spec.stdin, self.pool.clone()));
        self.lock().sessions.insert(id, session.clone());
        Ok((session, (permit, begun), run))
    }

    async fn keep(self, (held, logged): (Held, Running), session: Arc<Session>, run: Run, bounds: Bounds) {
        supervise::supervise(run, &session, bounds, &self.shutdown, || self.reclaim()).await;
        failpoint::here("exec.before_ended");
        drop(held);
        if let Some((result, detail)) = session.look(|state| state.outcome.as_ref().map(logbook::outcome)) {
            logged.ended(result, detail);
        }
        self.make_room(session.id);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {}
            () = session.gone.cancelled() => {}
            () = tokio::time::sleep(self.patience.keep_ended) => {}
        }
        let mut kept = self.lock();
        kept.sessions.remove(&session.id);
        kept.ended.retain(|id| *id != session.id);
        session.gone.cancel();
    }

    /// Notes that it ended, and forgets the one that ended first where there are too many.
    fn make_room(&self, ended: RequestId) {
        let mut kept = self.lock();
        kept.ended.push_back(ended);
        if kept.ended.len() > ENDED_MAX
            && let Some(oldest) = kept.ended.pop_front()
            && let Some(session) = kept.sessions.remove(&oldest)
        {
            session.gone.cancel();
        }
    }

    /// Makes everybody give up what was read.
    fn reclaim(&self) {
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        for session in sessions {
            session.shed();
        }
    }

    fn launch(&self, spec: &ExecSpec, begun: &Begun) -> Result<Run, LaunchError> {
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

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
