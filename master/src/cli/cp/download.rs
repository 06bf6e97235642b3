//! One file from an agent, going on where an earlier attempt ended.

use std::{
    ffi::OsStr,
    io::{self, ErrorKind},
    path::Path,
    str::FromStr,
};

use anyhow::{Context as _, bail};
use http_body_util::BodyExt;
use reqwest::{
    Method, Response,
    header::{self, HeaderMap, HeaderName},
};

use super::{
    folder::{Folder, Part},
    progress::{Meter, Progress},
};
use crate::{
    api::content::{BLAKE3, MODE, MODIFIED, SIZE},
    cli::{
        client::{CallError, Client, segment},
        end::Remote,
        output::shown,
        patience::Patience,
    },
};

/// A file that is another one at each look is never had whole.
const STATES: u32 = 3;

/// One state of a file on an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    etag: String,
    size: u64,
    mode: Option<u32>,
    modified_ns: Option<i64>,
}

/// Why an attempt ended.
enum Failed {
    Call(CallError),
    Local(anyhow::Error),
    /// This disk is full, or the quota used up.
    NoRoom(io::Error),
    /// Not the bytes that were sent: begin again.
    Spoilt,
}

/// A copy of one file.
struct Fetch<'a> {
    client: &'a Client,
    from: &'a Remote,
    folder: &'a Folder,
    name: &'a OsStr,
    progress: &'a Progress,
    meter: Meter,
    state: Option<State>,
    states: u32,
}

/// Fetches one file into a folder; its size when it stands in its place.
pub(super) async fn fetch(
    client: &Client,
    from: &Remote,
    folder: &Folder,
    name: &OsStr,
    progress: &Progress,
) -> anyhow::Result<u64> {
    let meter = progress.file(shown(Path::new(name)));
    let mut fetch = Fetch { client, from, folder, name, progress, meter, state: None, states: 0 };
    let mut patience = Patience::new();
    let mut spoilt = false;
    loop {
        let result = fetch.attempt().await;
        if fetch.meter.at() > 0 {
            patience.moved_to(fetch.meter.at());
        }
        match result {
            Ok(size) => return Ok(size),
            Err(Failed::Local(error)) => return Err(error),
            Err(Failed::NoRoom(error)) => return Err(error.into()),
            Err(Failed::Spoilt) if spoilt => bail!("what arrived is not what was sent, twice (wrong_hash)"),
            Err(Failed::Spoilt) => spoilt = true,
            Err(Failed::Call(CallError::Problem(problem))) if problem.code == "precondition_failed" => {}
            Err(Failed::Call(error)) => patience.wait(error).await?,
        }
        if fetch.states > STATES {
            bail!("it changes while it is read (source_changed)");
        }
    }
}

impl Fetch<'_> {
    async fn attempt(&mut self) -> Result<u64, Failed> {
        let mut response = self.get(None).await?;
        let state = State::of(response.headers()).map_err(Failed::Local)?;
        self.learn(&state);
        let key = format!("{}\0{}", self.from, self.name.display());
        let local = |error: io::Error| Failed::Local(error.into());
        let mut part = self.folder.part(&key, &state.etag, state.size).map_err(local)?;
        let there = part.len().map_err(local)?;
        self.meter.stands_at(there);
        let missing = there < state.size || state.size == 0;
        if there > 0 {
            // Of a file that is all there, the last byte is asked for the hash behind it.
            response = self.get(Some((there.min(state.size - 1), &state.etag))).await?;
        }
        let mut hasher = blake3::Hasher::new();
        part.hash(&mut hasher).map_err(local)?;
        let told = match self.receive(response, missing.then_some(&mut part), &mut hasher).await {
            Err(Failed::NoRoom(error)) => {
                // On a full disk what arrived would only keep it full.
                part.discard();
                return Err(local(error));
            }
            received => received?,
        };
        if told.is_none() || part.len().map_err(local)? != state.size {
            return Err(Failed::Call(self.cut()));
        }
        if told.as_deref() != Some(hasher.finalize().to_hex().as_str()) {
            part.discard();
            return Err(Failed::Spoilt);
        }
        part.finish(self.name, state.mode, state.modified_ns).map_err(local)?;
        Ok(state.size)
    }

    fn learn(&mut self, state: &State) {
        if self.state.as_ref().is_some_and(|known| known.etag == state.etag) {
            return;
        }
        let known = self.state.as_ref().map_or(0, |known| known.size);
        self.progress.expect_change(known, state.size);
        self.meter.stands_at(0);
        self.states += 1;
        self.state = Some(state.clone());
    }

    async fn get(&self, from: Option<(u64, &str)>) -> Result<Response, Failed> {
        let path = format!("/agents/{}/files/content", segment(&self.from.agent));
        let mut request =
            self.client.request(Method::GET, &path).query(&[self.from.query()]).header(header::TE, "trailers");
        if let Some((offset, etag)) = from {
            request = request.query(&[("whole", "true")]).header(header::RANGE, format!("bytes={offset}-"));
            request = request.header(header::IF_MATCH, etag);
        }
        self.client.send(request).await.map_err(Failed::Call)
    }

    /// Takes a body; the hash that follows it, if it came to its end.
    async fn receive(
        &self,
        response: Response,
        mut part: Option<&mut Part<'_>>,
        hasher: &mut blake3::Hasher,
    ) -> Result<Option<String>, Failed> {
        let mut body = reqwest::Body::from(response);
        let mut told = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failed::Call(self.client.cut(&error)))?;
            match frame.into_data() {
                Ok(piece) => {
                    if let Some(part) = &mut part {
                        hasher.update(&piece);
                        part.write(&piece).map_err(unwritten)?;
                        self.meter.moved(piece.len());
                    }
                }
                Err(frame) => told = frame.trailers_ref().and_then(|trailers| text(trailers, &BLAKE3)),
            }
        }
        Ok(told)
    }

    fn cut(&self) -> CallError {
        CallError::Cut { url: self.client.url.clone(), cause: "the file was not sent to its end".into() }
    }
}

impl State {
    fn of(headers: &HeaderMap) -> anyhow::Result<Self> {
        let foreign = "the master answered in a form that this version does not know";
        Ok(Self {
            etag: text(headers, &header::ETAG).context(foreign)?,
            size: number(headers, &SIZE).context(foreign)?,
            mode: text(headers, &MODE).and_then(|mode| u32::from_str_radix(&mode, 8).ok()),
            modified_ns: number(headers, &MODIFIED),
        })
    }
}

fn unwritten(error: io::Error) -> Failed {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Failed::NoRoom(error),
        _ => Failed::Local(error.into()),
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn number<T: FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    text(headers, name)?.parse().ok()
}
