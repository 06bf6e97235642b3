//! One file to the master: `ReadBegin`, the bytes, `ReadEnd`.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    code::Code,
    net::stream::FrameStream,
    transfer::{ReadBegin, ReadEnd, ReadSpec},
};
use tokio::sync::mpsc;

use super::{
    blocking, refuse,
    source::{self, Source},
};
use crate::service::{
    answer,
    files::{Access, FileError, Links, Roots},
};

/// One piece, bytes: what quinn's send buffer likes, and below the size at which an allocation is a system call.
const PIECE: usize = 64 * 1024;
/// Pieces read ahead of the stream.
const AHEAD: usize = 4;

pub(super) async fn serve(roots: Arc<Roots>, spec: ReadSpec, mut stream: FrameStream) -> Code {
    let (offset, length, whole) = (spec.offset, spec.length, spec.whole);
    let source = match blocking(move || open(&roots, &spec)).await {
        Ok(source) => source,
        Err(failure) => return refuse(stream, &failure).await,
    };
    let length = length.unwrap_or(u64::MAX).min(source.size().saturating_sub(offset));
    let begin = ReadBegin {
        size: source.size(),
        modified_ns: source::modified_ns(&source.stat),
        mode: source::permissions(&source.stat),
        version: source::version(&source.stat),
        length,
    };
    if answer::open(&mut stream, None).await.is_err() || stream.send.write_frame(&begin).await.is_err() {
        return Code::ABANDONED;
    }
    let (pieces, mut queue) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || pump(&source, offset, length, whole, &pieces));
    while let Some(piece) = queue.recv().await {
        if stream.send.write_chunk(piece).await.is_err() {
            return Code::ABANDONED;
        }
    }
    match reading.await {
        Ok(Ok(end)) => {
            if stream.send.write_frame(&end).await.is_ok() {
                stream.send.finish();
                stream.recv.source_mut().stop(Code::DONE);
            }
            if end.changed { Code::SOURCE_CHANGED } else { Code::DONE }
        }
        Ok(Err(failure)) => {
            tracing::info!(code = failure.code.word(), message = ?failure.message, "a file could not be read to its end");
            stream.abort(failure.code);
            failure.code
        }
        Err(_) => {
            stream.abort(Code::INTERNAL);
            Code::INTERNAL
        }
    }
}

fn open(roots: &Roots, spec: &ReadSpec) -> Result<Source, FileError> {
    let place = roots.locate(&spec.path, Access::Read, Links::Follow)?;
    Source::open(&place).and_then(Source::probed).map_err(|error| error.at(place.path()))
}

/// Reads `length` bytes from `offset` into `pieces`. Ends without an error when nobody takes them any more.
fn pump(
    source: &Source,
    offset: u64,
    length: u64,
    whole: bool,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<ReadEnd, FileError> {
    let mut hasher = blake3::Hasher::new();
    let end = offset + length;
    let mut at = if whole { 0 } else { offset };
    while at < end && !pieces.is_closed() {
        let until = if at < offset { offset } else { end };
        let piece = source.piece(at, usize::try_from(until - at).unwrap_or(PIECE).min(PIECE))?;
        hasher.update(&piece);
        let before = at < offset;
        at += piece.len() as u64;
        if !before && pieces.blocking_send(piece.into()).is_err() {
            break;
        }
    }
    Ok(ReadEnd { changed: source.changed()?, blake3: *hasher.finalize().as_bytes() })
}
