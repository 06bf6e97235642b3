//! The hub of one session: has the one stream to the agent, puts what comes into the recording and then before the
//! viewers, and gets the stream back when a line was lost. It ends with the session, or with the master, and then leaves
//! the session running.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::{
    code::Code,
    net::stream::FrameStream,
    open::Operation,
    shell::{FromShell, ShellAttach, Size, ToShell},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Session, Shells,
    recording::{self, Recording},
    state::{AgentKnows, ForAgent},
};
use crate::{
    clock::unix_ms,
    events::Draft,
    fleet::{StreamGuard, WorkStream},
    session::{
        again::{self, ANSWER_WITHIN},
        ended::Ended,
    },
    store::audit::AuditEntry,
};

/// Recordings are made durable this often while they grow.
const SYNC_EVERY: Duration = Duration::from_secs(1);

/// Time for the agent to end a session that may not go on.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// An agent ends what nobody is attached to after ten minutes; one that stays away longer than this has no session left.
const AWAY_AT_MOST: Duration = Duration::from_secs(15 * 60);

/// Why a stream ended and the session did not.
#[derive(Debug)]
enum Broken {
    Line,
    /// The agent does not have the session, or will not give it.
    Refused(Code),
    /// Nothing may go unrecorded.
    Unrecorded,
}

pub(super) struct Hub {
    pub(super) shells: Arc<Shells>,
    pub(super) session: Arc<Session>,
    pub(super) recording: Option<Recording>,
    pub(super) synced: Instant,
    /// Of the terminal, as the recording has it.
    pub(super) size: Size,
}

impl Hub {
    /// Follows the session from `first`, or from a stream of its own, to its end or until `stop`.
    pub(super) async fn run(mut self, mut first: Option<WorkStream>, stop: CancellationToken) {
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            ended = async {
                loop {
                    let work = match first.take() {
                        Some(work) => Ok(work),
                        None => self.reattach().await,
                    };
                    let broken = match work {
                        Ok(work) => match self.follow(work).await {
                            Ok(ended) => return ended,
                            Err(broken) => broken,
                        },
                        Err(broken) => broken,
                    };
                    match broken {
                        Broken::Line => self.session.state.line(false),
                        Broken::Refused(code) => return code.into(),
                        Broken::Unrecorded => return Code::RECORDING_FAILED.into(),
                    }
                }
            } => ended,
        };
        if let Some(recording) = self.recording.take() {
            let _ = recording::on_disk(move || recording.finish(unix_ms())).await;
        }
        // The row first, so that who is told finds it; a database that is away keeps nobody waiting.
        let recorded = self.record_end(&ended).await;
        self.session.state.over(ended.clone());
        let told = json!({
            "shell_id": self.session.id, "reason": ended.reason, "code": ended.code, "signal": ended.signal,
        });
        self.shells.events.publish(Draft::new("shell.ended").agent(&self.session.agent).detail(told));
        if !recorded {
            stop.run_until_cancelled(async {
                while !self.record_end(&ended).await {
                    again::before_writing().await;
                }
            })
            .await;
        }
        self.shells.forget(&self.session).await;
    }

    /// Waits for the agent and takes the session up again. One that does not come back has ended it.
    async fn reattach(&mut self) -> Result<WorkStream, Broken> {
        let session = &self.session;
        let offset = self.recording.as_ref().map_or_else(|| session.state.offset(), Recording::offset);
        let attach = Operation::ShellAttach(ShellAttach { session: session.id, offset });
        let taken = again::take_up(&self.shells.fleet, &session.agent, &attach);
        match tokio::time::timeout(AWAY_AT_MOST, taken).await {
            Ok(taken) => taken.map_err(Broken::Refused),
            Err(_) => Err(Broken::Refused(Code::UNATTACHED)),
        }
    }

    async fn follow(&mut self, work: WorkStream) -> Result<Ended, Broken> {
        let (mut stream, _guard): (FrameStream, StreamGuard) = work.into_frames();
        let first = stream.read_within::<FromShell>(ANSWER_WITHIN).await.map_err(|_| Broken::Line)?;
        let FromShell::Attached { offset, lost, input, size, .. } = first else { return Err(Broken::Line) };
        let state = self.session.state.clone();
        if let Some(recording) = &mut self.recording {
            recording.forget_held();
        }
        // Output that was shown and is not on record comes again for the recording alone.
        let shown = state.offset().saturating_sub(offset);
        if lost > 0 {
            self.lost(lost)?;
        }
        state.line(true);
        let mut knows = AgentKnows { input: state.attached(input), size, acked: offset, close: false };
        let FrameStream { mut send, mut recv } = stream;
        let session = self.session.clone();
        let tell = async {
            let mut changes = session.state.changes();
            loop {
                changes.borrow_and_update();
                let Some(message) = session.state.for_agent(&mut knows) else {
                    let _ = changes.changed().await;
                    continue;
                };
                if send.write_frame(&frame(message)).await.is_err() {
                    return Broken::Line;
                }
            }
        };
        let hear = async {
            let mut repeated = shown;
            let mut changes = state.changes();
            loop {
                changes.borrow_and_update();
                if let Some(until) = state.held_until(Instant::now()) {
                    tokio::select! {
                        _ = changes.changed() => {}
                        () = tokio::time::sleep_until(until.into()) => {}
                    }
                    continue;
                }
                match recv.next::<FromShell>().await.map_err(|_| Broken::Line)? {
                    FromShell::Output(bytes) => self.output(&bytes, &mut repeated)?,
                    FromShell::Lost { bytes } => self.lost(bytes)?,
                    FromShell::Taken { input } => state.taken(input),
                    FromShell::Ended(end) => return Ok((&end).into()),
                    FromShell::Attached { .. } => return Err(Broken::Line),
                }
            }
        };
        let over = tokio::select! {
            biased;
            heard = hear => heard,
            broken = tell => Err(broken),
        };
        if matches!(over, Err(Broken::Unrecorded)) {
            // What goes on unseen is ended; a line that is lost meanwhile leaves it to the agent, which waits ten minutes.
            if send.write_frame(&ToShell::Close).await.is_ok() {
                let gone = async { while !matches!(recv.next().await, Ok(FromShell::Ended(_)) | Err(_)) {} };
                let _ = tokio::time::timeout(CLOSED_WITHIN, gone).await;
            }
        }
        over
    }

    /// On record first, then shown.
    fn output(&mut self, bytes: &[u8], repeated: &mut u64) -> Result<(), Broken> {
        let size = self.session.state.size();
        if size != std::mem::replace(&mut self.size, size) {
            self.write(|recording, now_ms| recording.resized(size, now_ms))?;
        }
        self.write(|recording, now_ms| recording.output(bytes, now_ms))?;
        let skip = usize::try_from(*repeated).unwrap_or(usize::MAX).min(bytes.len());
        *repeated -= skip as u64;
        if skip < bytes.len() {
            self.session.state.printed(&bytes[skip..], Instant::now());
        }
        Ok(())
    }

    fn lost(&mut self, bytes: u64) -> Result<(), Broken> {
        self.write(|recording, now_ms| recording.lost(bytes, now_ms))?;
        self.session.state.skipped(bytes);
        Ok(())
    }

    fn write(&mut self, write: impl FnOnce(&mut Recording, i64) -> std::io::Result<()>) -> Result<(), Broken> {
        let unrecorded = if self.shells.settings.strict { Err(Broken::Unrecorded) } else { Ok(()) };
        let Some(recording) = &mut self.recording else { return unrecorded };
        if let Err(error) = write(recording, unix_ms()) {
            tracing::error!(id = %self.session.id, %error, "a recording could not be written");
            self.session.incomplete();
            self.recording = None;
            return unrecorded;
        }
        if self.synced.elapsed() >= SYNC_EVERY {
            self.synced = Instant::now();
            if let Ok(file) = recording.handle() {
                // Nobody waits for it; the file is closed when it is done.
                tokio::task::spawn_blocking(move || file.sync_data());
            }
        }
        Ok(())
    }

    /// Writes the end of the session; false while the database is away. What is not written at all, the next start finds
    /// as an open row, and asks the agent.
    pub(super) async fn record_end(&self, ended: &Ended) -> bool {
        let session = &self.session;
        let detail = session.detail(Some(ended));
        let entry = AuditEntry::new(unix_ms(), session.ended_by(), "shell.end")
            .agent(&session.agent)
            .object(session.id)
            .result(ended.reason.clone())
            .detail(detail.clone());
        let sessions = self.shells.store.sessions();
        match sessions.end(session.id.0, unix_ms(), &ended.reason, &detail, &entry).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(id = %session.id, %error, "the end of a shell could not be recorded");
                false
            }
        }
    }
}

fn frame(message: ForAgent) -> ToShell {
    match message {
        ForAgent::Input(bytes) => ToShell::Input(bytes),
        ForAgent::Resize(size) => ToShell::Resize(size),
        ForAgent::Ack(offset) => ToShell::Ack { offset },
        ForAgent::Close => ToShell::Close,
    }
}
