//! One file from the master: `Ready`, the bytes up to the stream's finish, and what became of them.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    code::Code,
    net::{
        bulk::BulkReader,
        stream::{FrameStream, SendHalf, read_error_code},
    },
    transfer::{FromWrite, WriteSpec},
};
use tokio::sync::mpsc;

use super::{
    blocking,
    part::{self, Part},
    refuse,
};
use crate::service::{
    answer,
    files::{Access, FileError, Links, Place, Roots},
};

/// Batches of pieces, 90 KiB each, taken ahead of the disk.
const AHEAD: usize = 8;

/// What the thread that writes is given. Without an end the bytes only stopped.
enum Given {
    Pieces(Vec<Bytes>),
    End,
}

enum Begun {
    Asked(u64),
    Elsewhere(u64),
    Open(Box<Part>),
}

pub(super) async fn serve(roots: Arc<Roots>, spec: WriteSpec, mut stream: FrameStream) -> Code {
    let begun = match blocking(move || begin(&roots, spec)).await {
        Ok(begun) => begun,
        Err(error) => return refuse(stream, &error).await,
    };
    if answer::open(&mut stream, None).await.is_err() {
        return Code::ABANDONED;
    }
    let (mut send, recv) = stream.into_halves();
    let mut reader = BulkReader::new(recv);
    let last = match begun {
        Begun::Asked(offset) => FromWrite::Ready { offset },
        Begun::Elsewhere(offset) => {
            let message = format!("{offset} bytes of this file are here; go on from there");
            FromWrite::Failed { code: Code::BAD_OFFSET, message, offset }
        }
        Begun::Open(part) => {
            let ready = FromWrite::Ready { offset: part.held() };
            if send.write_frame(&ready).await.is_err() {
                return Code::ABANDONED;
            }
            match receive(*part, &mut reader, &send).await {
                Some(last) => last,
                None => return Code::ABANDONED,
            }
        }
    };
    if send.write_frame(&last).await.is_ok() {
        send.finish();
    }
    reader.stop(Code::DONE);
    match last {
        FromWrite::Failed { code, .. } => code,
        FromWrite::Ready { .. } | FromWrite::Done { .. } | FromWrite::Partial { .. } => Code::DONE,
    }
}

fn begin(roots: &Roots, spec: WriteSpec) -> Result<Begun, FileError> {
    let place = roots.locate(&spec.path, Access::Write, Links::Follow)?;
    let at = |error: FileError, place: &Place| error.at(place.path());
    if spec.ask {
        return part::held(&place, &spec).map(Begun::Asked).map_err(|error| at(error, &place));
    }
    let offset = spec.offset;
    let shown = place.clone();
    let part = Part::open(place, spec).map_err(|error| at(error, &shown))?;
    Ok(if part.held() == offset { Begun::Open(Box::new(part)) } else { Begun::Elsewhere(part.held()) })
}

/// Hands the bytes to a thread that writes them. `None` when the stream broke: what arrived is kept.
async fn receive(part: Part, reader: &mut BulkReader, send: &SendHalf) -> Option<FromWrite> {
    let (given, queue) = mpsc::channel(AHEAD);
    let writing = blocking(move || write(part, queue));
    let mut writing = std::pin::pin!(writing);
    let feed = async {
        loop {
            let next = match reader.pieces().await {
                Ok(Some(pieces)) => Given::Pieces(pieces),
                Ok(None) => Given::End,
                Err(error) => {
                    tracing::debug!(code = read_error_code(&error).word(), "a file ended early");
                    return;
                }
            };
            let last = matches!(next, Given::End);
            if given.send(next).await.is_err() || last {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        // Only a failure ends the thread before it is told to.
        early = &mut writing => return early,
        _ = send.stopped() => {}
        () = feed => {}
    }
    drop(given);
    // The thread's word counts, also where it failed and closed the queue before it was waited for.
    writing.await
}

/// The thread that writes. `None` if it was not told of an end.
fn write(mut part: Part, mut queue: mpsc::Receiver<Given>) -> Option<FromWrite> {
    while let Some(given) = queue.blocking_recv() {
        match given {
            Given::Pieces(pieces) => {
                if let Err(error) = part.take(&pieces) {
                    return Some(broken(part, error));
                }
            }
            Given::End if part.complete() => {
                return Some(match part.finish() {
                    Ok(done) => FromWrite::Done { created: done.created, blake3: done.blake3 },
                    Err(error) => failed(error, 0),
                });
            }
            Given::End => return Some(FromWrite::Partial { offset: part.kept() }),
        }
    }
    None
}

/// On a full disk what arrived would only keep it full; anything else is kept for another attempt.
fn broken(part: Part, error: FileError) -> FromWrite {
    let kept = if error.code == Code::NO_SPACE { 0 } else { part.kept() };
    if kept == 0 {
        part.discard();
    }
    failed(error, kept)
}

fn failed(error: FileError, offset: u64) -> FromWrite {
    FromWrite::Failed { code: error.code, message: answer::cut(&error.message), offset }
}
