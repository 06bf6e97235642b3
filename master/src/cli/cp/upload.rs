//! One local file to an agent, going on where an earlier attempt ended.

use std::{
    fs::{File, Metadata},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::{Body, Method, header};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::progress::Meter;
use crate::{
    api::dto::content::{Held, UploadQuery, Uploaded},
    cli::{
        client::{CallError, Client, segment},
        end::Remote,
        patience::Patience,
    },
};

/// Up to here a file is sent from memory, and nobody asks what is there.
const SMALL: u64 = 1 << 20;
const PIECE: usize = 256 * 1024;
/// Attempts that move nothing although the agent answers: another writer is at the same file.
const FRUITLESS: u32 = 20;

/// A file as it was when it was hashed.
struct Source {
    path: PathBuf,
    size: u64,
    blake3: String,
    mode: String,
    modified_ns: i64,
    /// All of it, if it is small.
    content: Option<Bytes>,
}

/// Sends one file; its size when it stands in its place.
pub(super) async fn send(client: &Client, from: &Path, to: &Remote, meter: &Meter) -> anyhow::Result<u64> {
    let path = from.to_owned();
    let source = tokio::task::spawn_blocking(move || Source::read(path)).await??;
    let mut patience = Patience::new();
    let mut fruitless = 0;
    let mut offset = if source.content.is_some() { Some(0) } else { None };
    loop {
        let result = match offset.take() {
            Some(offset) => put(client, &source, to, offset, meter).await,
            None => match ask(client, &source, to).await {
                Ok(there) => {
                    offset = Some(there);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        if meter.at() > 0 {
            patience.moved_to(meter.at());
        }
        match result {
            Ok(stored) if stored.complete => {
                let same = stored.blake3.is_none_or(|stored| stored == source.blake3);
                ensure!(same, "what stands there is not what was sent: another program wrote it");
                return Ok(source.size);
            }
            Ok(_) => bail!("it became shorter while it was sent"),
            Err(Failed::Local(error)) => return Err(error),
            Err(Failed::Call(CallError::Problem(problem))) if problem.code == "bad_offset" && fruitless < FRUITLESS => {
                fruitless += 1;
                offset = problem.offset;
            }
            Err(Failed::Call(CallError::Problem(problem))) if problem.code == "wrong_hash" => {
                bail!("it changed while it was sent (wrong_hash); what was there before is still there");
            }
            Err(Failed::Call(error)) => patience.wait(error).await?,
        }
    }
}

/// Why an attempt ended.
enum Failed {
    Call(CallError),
    Local(anyhow::Error),
}

impl Source {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        // Opening a pipe would wait for whoever writes to it.
        let unwaiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(unwaiting).open(&path)?;
        let meta = file.metadata()?;
        ensure!(meta.is_file(), "it is a pipe, a socket or a device; only plain files are copied");
        let size = meta.len();
        let (blake3, content) = if size <= SMALL {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content)?;
            (blake3::hash(&content), Some(Bytes::from(content)))
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(std::io::Read::take(&file, size))?;
            (hasher.finalize(), None)
        };
        let size = content.as_ref().map_or(size, |content| content.len() as u64);
        let mode = format!("{:o}", meta.permissions().mode() & 0o777);
        Ok(Self { path, size, blake3: blake3.to_hex().to_string(), mode, modified_ns: modified_ns(&meta), content })
    }

    fn query(&self, to: &Remote, offset: Option<u64>) -> UploadQuery {
        let mut query = UploadQuery {
            blake3: Some(self.blake3.clone()),
            size: Some(self.size),
            offset,
            mode: Some(self.mode.clone()),
            modified_ns: Some(self.modified_ns),
            ..UploadQuery::default()
        };
        match to.query() {
            ("path", path) => query.path = Some(path),
            (_, encoded) => query.path_base64 = Some(encoded),
        }
        query
    }
}

pub(super) fn modified_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

async fn ask(client: &Client, source: &Source, to: &Remote) -> Result<u64, Failed> {
    let path = format!("/agents/{}/files/upload", segment(&to.agent));
    let held: Held = client.get(&path, &source.query(to, None)).await.map_err(Failed::Call)?;
    Ok(held.offset)
}

async fn put(client: &Client, source: &Source, to: &Remote, offset: u64, meter: &Meter) -> Result<Uploaded, Failed> {
    let local = |error: std::io::Error| Failed::Local(error.into());
    meter.stands_at(offset);
    let body = match &source.content {
        Some(content) => {
            meter.moved(content.len());
            Body::from(content.clone())
        }
        None => {
            let mut file = tokio::fs::File::open(&source.path).await.map_err(local)?;
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(local)?;
            let moved = meter.clone();
            let pieces = ReaderStream::with_capacity(file.take(source.size - offset), PIECE);
            Body::wrap_stream(pieces.inspect(move |piece| {
                if let Ok(piece) = piece {
                    moved.moved(piece.len());
                }
            }))
        }
    };
    let path = format!("/agents/{}/files/content", segment(&to.agent));
    let request = client.request(Method::PUT, &path).query(&source.query(to, Some(offset)));
    let request = request.header(header::CONTENT_LENGTH, source.size - offset).body(body);
    let response = client.send(request).await.map_err(Failed::Call)?;
    let answer = response.bytes().await.map_err(|error| Failed::Call(client.cut(&error)))?;
    serde_json::from_slice(&answer)
        .context("the master answered in a form that this version does not know")
        .map_err(Failed::Local)
}
