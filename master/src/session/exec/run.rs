//! An exec as one caller follows it, over however many lines.

use std::sync::Arc;

use proto::{
    code::Code,
    exec::{FromExec, Outcome},
    id::ExecId,
    net::{frame::FrameError, stream::reset_code},
};

use super::{About, Execs, Stdin, stream::Stream};
use crate::session::again;

/// What the caller was handed may still be on its way to it. So many bytes stay unacknowledged behind it, and the agent
/// keeps as many again: a caller that comes back finds what it lacks.
const ACK_LAG: u64 = 1 << 20;
/// Acknowledgements come at this distance.
const ACK_EVERY: u64 = 128 << 10;

/// What happens in an exec, in order: one `Started`, output, and one end.
#[derive(Debug)]
pub enum ExecEvent {
    Started {
        pid: u32,
    },
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    /// The agent's line was lost, or is back. The run goes on, and so does the output.
    Line {
        up: bool,
    },
    Ended(Outcome),
    /// It cannot be followed to its end.
    Lost(Code),
}

/// Dropping it leaves the program running; somebody sees to its end all the same.
pub struct ExecRun {
    pub id: ExecId,
    execs: Arc<Execs>,
    about: About,
    stream: Option<Stream>,
    stdin: Stdin,
    /// The next byte of output.
    offset: u64,
    acked: u64,
    /// What the row said of it was found to be over.
    over: bool,
}

impl ExecRun {
    pub(super) fn new(execs: Arc<Execs>, about: About, offset: u64, stream: Option<Stream>, stdin: Stdin) -> Self {
        Self { id: about.id, execs, about, stream, stdin, offset, acked: offset, over: false }
    }

    /// The next event; after an end there is none. Not cancel-safe.
    pub async fn next(&mut self) -> Option<ExecEvent> {
        loop {
            if self.over {
                return None;
            }
            let Some(stream) = &mut self.stream else { return Some(self.take_up().await) };
            // What was handed out before is with the caller now.
            if self.offset.saturating_sub(ACK_LAG) >= self.acked + ACK_EVERY {
                self.acked = self.offset - ACK_LAG;
                stream.ack(self.acked);
            }
            let bytes = match stream.recv.next::<FromExec>().await {
                Ok(FromExec::Started { pid }) => return Some(ExecEvent::Started { pid }),
                Ok(FromExec::Attached(attached)) => {
                    let pid = attached.pid;
                    return Some(ExecEvent::Started { pid });
                }
                Ok(FromExec::StdinTaken { offset }) => {
                    stream.taken(offset);
                    continue;
                }
                Ok(FromExec::Stdout(bytes)) => ExecEvent::Stdout(bytes),
                Ok(FromExec::Stderr(bytes)) => ExecEvent::Stderr(bytes),
                Ok(FromExec::Ended(outcome)) => {
                    self.over = true;
                    self.execs.ended(&self.about, &outcome).await;
                    return Some(ExecEvent::Ended(outcome));
                }
                Err(FrameError::Io(error)) if reset_code(&error) == Some(Code::SUPERSEDED) => {
                    self.stream = None;
                    return Some(self.lost(Code::SUPERSEDED));
                }
                Err(_) => {
                    self.stream = None;
                    return Some(ExecEvent::Line { up: false });
                }
            };
            if let ExecEvent::Stdout(piece) | ExecEvent::Stderr(piece) = &bytes {
                self.offset += piece.len() as u64;
            }
            return Some(bytes);
        }
    }

    /// Waits for the agent and goes on at the next byte.
    async fn take_up(&mut self) -> ExecEvent {
        let operation = self.about.attach(Some(self.offset));
        let taking = again::take_up(&self.execs.fleet, &self.about.agent, &operation);
        let work = match self.execs.stop.run_until_cancelled(taking).await {
            None => return self.lost(Code::SHUTDOWN),
            Some(Err(code)) => return self.lost(code),
            Some(Ok(work)) => work,
        };
        let mut work = work;
        match work.stream.recv.next_within::<FromExec>(again::ANSWER_WITHIN).await {
            Ok(FromExec::Attached(attached)) => {
                self.acked = self.offset;
                self.stream = Some(Stream::new(work, &self.stdin, Some(&attached)));
                ExecEvent::Line { up: true }
            }
            _ => ExecEvent::Line { up: false },
        }
    }

    /// The keeper that follows finds out what the row should say.
    fn lost(&mut self, code: Code) -> ExecEvent {
        self.keep();
        ExecEvent::Lost(code)
    }

    fn keep(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.execs.keep(self.about.clone(), std::mem::take(&mut self.stdin));
        }
    }
}

impl Drop for ExecRun {
    fn drop(&mut self) {
        self.stream = None;
        self.keep();
    }
}
