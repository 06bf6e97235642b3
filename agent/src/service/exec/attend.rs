//! One stream at an exec: what the master sends, and what it is sent. The run does not notice when the stream is lost.

use std::sync::atomic::{AtomicBool, Ordering};

use proto::{
    code::Code,
    exec::{FromExec, ToExec},
    limits::EXEC_PIECE_MAX,
    net::{
        frame::{FrameError, FrameReader},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
};

use super::{
    output::Kind,
    session::{Seat, Session, State},
};

/// Where the sending side of one stream stands.
struct Place {
    /// The next byte of output; `None` takes none.
    output: Option<u64>,
    taken: u64,
}

enum Step {
    Send(FromExec),
    Last(FromExec),
    Leave(Code),
    Wait,
}

/// Serves the stream until the run is over and told, the master leaves, or a newer reader comes. Output begins at
/// `offset`. Dropping the future resets the stream.
pub(super) async fn attend(session: &Session, stream: FrameStream, seat: Seat, offset: u64) {
    let FrameStream { mut send, mut recv } = stream;
    let fed = AtomicBool::new(false);
    let place = Place { output: seat.reader.map(|_| offset), taken: seat.attached.stdin_taken };
    let left = tokio::select! {
        biased;
        code = sent_off(session, seat.reader) => Err(code),
        heard = listen(session, &mut recv, &seat, &fed) => heard,
        told = tell(session, &mut send, place, &fed) => told,
    };
    match left {
        Ok(()) => {
            send.finish();
            recv.source_mut().stop(Code::DONE);
        }
        Err(code) => {
            send.reset(code);
            recv.source_mut().stop(code);
        }
    }
}

/// Resolves when this stream has no place here any more.
async fn sent_off(session: &Session, reader: Option<u64>) -> Code {
    let mut changes = session.changes();
    let superseded = changes.wait_for(|state| reader.is_some_and(|reader| reader != state.reader));
    tokio::select! {
        biased;
        () = session.gone.cancelled() => Code::NO_SESSION,
        _ = superseded => Code::SUPERSEDED,
    }
}

/// Until the master ends the direction of a stream that takes no output, or breaks the rules. The end of it says nothing
/// to one that reads.
async fn listen(
    session: &Session,
    recv: &mut FrameReader<RecvHalf>,
    seat: &Seat,
    fed: &AtomicBool,
) -> Result<(), Code> {
    let mut at = seat.attached.stdin;
    loop {
        match recv.next::<ToExec>().await {
            Ok(ToExec::Stdin(piece)) => {
                fed.store(true, Ordering::Relaxed);
                changed(session, |state| state.input.push(at, &piece))?;
                at += piece.len() as u64;
            }
            Ok(ToExec::StdinEnd) => changed(session, |state| state.input.end(at))?,
            Ok(ToExec::Ack { offset }) => session.update(|state| state.output.ack(offset)),
            Ok(ToExec::Cancel) => session.kill(Code::CANCELLED),
            Err(FrameError::Ended) if seat.reader.is_none() => return Ok(()),
            Err(FrameError::Ended) => std::future::pending::<()>().await,
            Err(error) => return Err(error.code()),
        }
    }
}

fn changed(session: &Session, change: impl FnOnce(&mut State) -> Result<(), Code>) -> Result<(), Code> {
    let mut result = Ok(());
    session.update(|state| result = change(state));
    result
}

/// Until the end of the run was told.
async fn tell(session: &Session, send: &mut SendHalf, mut place: Place, fed: &AtomicBool) -> Result<(), Code> {
    let mut changes = session.changes();
    loop {
        changes.mark_unchanged();
        let (frame, last) = match session.look(|state| place.next(state, fed.load(Ordering::Relaxed))) {
            Step::Send(frame) => (frame, false),
            Step::Last(frame) => (frame, true),
            Step::Leave(code) => return Err(code),
            Step::Wait => {
                changes.changed().await.map_err(|_| Code::NO_SESSION)?;
                continue;
            }
        };
        send.write_frame(&frame).await.map_err(|_| Code::LINE_LOST)?;
        if last {
            return Ok(());
        }
    }
}

impl Place {
    fn next(&mut self, state: &State, fed: bool) -> Step {
        let taken = state.input.taken();
        if fed && taken > self.taken {
            self.taken = taken;
            return Step::Send(FromExec::StdinTaken { offset: taken });
        }
        if let Some(at) = &mut self.output {
            if *at < state.output.kept_from() {
                return Step::Leave(Code::OUTPUT_GONE);
            }
            if let Some((kind, piece)) = state.output.read(*at, EXEC_PIECE_MAX) {
                *at += piece.len() as u64;
                return Step::Send(match kind {
                    Kind::Stdout => FromExec::Stdout(piece),
                    Kind::Stderr => FromExec::Stderr(piece),
                });
            }
        }
        match &state.outcome {
            Some(outcome) => Step::Last(FromExec::Ended(outcome.clone())),
            None => Step::Wait,
        }
    }
}
