//! Our standard input as the program's, live and of any size: what came is sent, and kept until the agent has it.

use std::io::Read;

use anyhow::{Context, ensure};
use base64::Engine;
use bytes::Bytes;
use reqwest::Method;
use tokio::{
    io::AsyncReadExt,
    sync::mpsc::{self, error::TryRecvError},
};
use tokio_util::task::AbortOnDropHandle;

use super::super::{
    client::{CallError, Client, segment},
    patience::Patience,
};
use crate::api::dto::exec::{Fed, InputQuery};

/// Most bytes of one call, but for the last piece.
const BATCH: usize = 1 << 20;
const PIECE: usize = 64 << 10;
/// Most bytes that go with a call.
const WHOLE_MAX: u64 = 2 << 20;
/// Pieces that are read ahead of a call.
const AHEAD: usize = BATCH / PIECE;

/// Why the program does not get its input.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("cannot read standard input")]
    Read(#[from] std::io::Error),
    #[error("the program's input cannot be sent on: {0}")]
    Call(#[from] CallError),
}

type Piece = std::io::Result<Vec<u8>>;

/// Carries standard input to the exec until its end, or until the program takes no more, which is no failure. Waits up to
/// five minutes for what is away. Dropping the future leaves what arrived.
pub(super) async fn feed(client: &Client, id: &str) -> Result<(), InputError> {
    let (pieces, mut waiting) = mpsc::channel(AHEAD);
    let _reading = AbortOnDropHandle::new(tokio::spawn(read(pieces)));
    let mut offset = 0;
    loop {
        let (batch, end) = next_batch(&mut waiting).await?;
        match send(client, id, offset, batch, end).await? {
            Some(taken) if !end => offset = taken,
            Some(_) | None => return Ok(()),
        }
    }
}

/// Standard input to its end, in base64, to go with the call.
pub(super) fn whole() -> anyhow::Result<String> {
    let mut input = Vec::new();
    std::io::stdin().lock().take(WHOLE_MAX + 1).read_to_end(&mut input).context("cannot read standard input")?;
    ensure!(input.len() as u64 <= WHOLE_MAX, "standard input is longer than {WHOLE_MAX} bytes; copy it there first");
    Ok(base64::engine::general_purpose::STANDARD.encode(input))
}

/// One batch, as often as it takes; where the next begins. `None` when the program takes no more.
async fn send(client: &Client, id: &str, offset: u64, batch: Bytes, end: bool) -> Result<Option<u64>, CallError> {
    let path = format!("/execs/{}/stdin", segment(id));
    let mut patience = Patience::begun();
    loop {
        let request = client.request(Method::PUT, &path).query(&InputQuery { offset, end }).body(batch.clone());
        let error = match client.send(request).await {
            Ok(response) => match response.json::<Fed>().await {
                Ok(fed) => return Ok(Some(fed.offset)),
                Err(error) => client.cut(&error),
            },
            Err(CallError::Problem(problem)) if problem.code == "session_over" => return Ok(None),
            Err(error) => error,
        };
        patience.wait(error).await?;
    }
}

/// Everything there is, as soon as there is something; and whether nothing follows.
async fn next_batch(waiting: &mut mpsc::Receiver<Piece>) -> std::io::Result<(Bytes, bool)> {
    let Some(first) = waiting.recv().await else { return Ok((Bytes::new(), true)) };
    let mut batch = first?;
    while batch.len() < BATCH {
        match waiting.try_recv() {
            Ok(piece) => batch.append(&mut piece?),
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Disconnected) => return Ok((batch.into(), true)),
        }
    }
    Ok((batch.into(), false))
}

async fn read(pieces: mpsc::Sender<Piece>) {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = stdin.read_buf(&mut piece).await;
        let over = !matches!(read, Ok(1..));
        if matches!(read, Ok(0)) || pieces.send(read.map(|_| piece)).await.is_err() || over {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_is_one_batch_and_its_end_is_told_with_it() {
        let (pieces, mut waiting) = mpsc::channel(AHEAD);
        for piece in ["one ", "two"] {
            pieces.send(Ok(piece.into())).await.unwrap();
        }
        assert_eq!(next_batch(&mut waiting).await.unwrap(), (Bytes::from("one two"), false));
        pieces.send(Ok(b"three".into())).await.unwrap();
        drop(pieces);
        assert_eq!(next_batch(&mut waiting).await.unwrap(), (Bytes::from("three"), true));
        assert_eq!(next_batch(&mut waiting).await.unwrap(), (Bytes::new(), true));
    }

    #[tokio::test]
    async fn a_batch_is_bounded() {
        let (pieces, mut waiting) = mpsc::channel(2 * AHEAD);
        for _ in 0..2 * AHEAD {
            pieces.send(Ok(vec![0; PIECE])).await.unwrap();
        }
        let (batch, end) = next_batch(&mut waiting).await.unwrap();
        assert_eq!((batch.len(), end), (BATCH, false));
    }
}
