//! Files in chaos: each agent's machine has one that is replaced again and again. It is always one of those that it may be.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Method;
use tokio::task::JoinHandle;

use super::{model::AGENTS, world::name};
use crate::{api::Api, copying::content, master::Master};

/// In which an upload or a download has an answer, or is given up.
const ANSWERED_WITHIN: Duration = Duration::from_secs(90);

struct Place {
    path: PathBuf,
    /// Hashes of what it may be now; empty while it was never written.
    may: BTreeSet<String>,
    /// Whether there must be a file.
    written: bool,
    under_way: Option<(String, JoinHandle<bool>)>,
}

pub(super) struct Files {
    places: Vec<Place>,
    seed: u8,
    uploaded: usize,
    downloaded: usize,
    /// Agents whose file was replaced, and how often for sure.
    pub(super) replaced: [usize; AGENTS],
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl Files {
    pub(super) fn new(folder: &Path, seed: u64) -> Self {
        let place = |agent| Place {
            path: folder.join(format!("file-{agent}")),
            may: BTreeSet::new(),
            written: false,
            under_way: None,
        };
        Self {
            places: (0..AGENTS).map(place).collect(),
            seed: seed as u8,
            uploaded: 0,
            downloaded: 0,
            replaced: [0; AGENTS],
        }
    }

    pub(super) fn summary(&self) -> String {
        format!("{} uploads and {} downloads whole", self.uploaded, self.downloaded)
    }

    /// Begins to replace the agent's file. One at a time: the one before is waited for.
    pub(super) async fn upload(&mut self, master: &Master, agent: usize, bytes: usize) {
        self.finish(agent).await;
        self.seed = self.seed.wrapping_add(1);
        let new = content(bytes, self.seed);
        let place = &mut self.places[agent];
        let hash = hash(&new);
        place.may.insert(hash.clone());
        let path = content_path(agent, &place.path);
        place.under_way = Some((hash, tokio::spawn(put(master.api(), path, new))));
    }

    /// Takes the answers that have come.
    pub(super) async fn collect(&mut self) {
        for agent in 0..AGENTS {
            if self.places[agent].under_way.as_ref().is_some_and(|(_, task)| task.is_finished()) {
                self.finish(agent).await;
            }
        }
    }

    pub(super) async fn finish_all(&mut self) {
        for agent in 0..AGENTS {
            self.finish(agent).await;
        }
    }

    /// Waits for the agent's upload, where there is one.
    async fn finish(&mut self, agent: usize) {
        let place = &mut self.places[agent];
        let Some((hash, task)) = place.under_way.take() else { return };
        if task.await.expect("its task") {
            place.may = BTreeSet::from([hash]);
            place.written = true;
            self.uploaded += 1;
            self.replaced[agent] += 1;
        }
    }

    /// Reads the agent's file; a whole answer is one of those that it may be.
    pub(super) async fn download(&mut self, master: &Master, agent: usize) {
        let place = &self.places[agent];
        let get = async {
            let request = master.api().request(Method::GET, &content_path(agent, &place.path));
            let response = request.send().await.ok().filter(|response| response.status().is_success())?;
            response.bytes().await.ok()
        };
        let Ok(Some(bytes)) = tokio::time::timeout(ANSWERED_WITHIN, get).await else { return };
        let got = hash(&bytes);
        assert!(place.may.contains(&got), "the file of {} came as {got}, not one of {:?}", name(agent), place.may);
        self.downloaded += 1;
    }

    /// What is on the disk is what was there or what was sent, whole.
    pub(super) fn are_whole(&self) {
        for place in &self.places {
            match std::fs::read(&place.path) {
                Ok(bytes) => {
                    let got = hash(&bytes);
                    assert!(place.may.contains(&got), "{} is {got}, not one of {:?}", place.path.display(), place.may);
                }
                Err(error) => assert!(!place.written, "{} was written and is gone: {error}", place.path.display()),
            }
        }
    }
}

fn content_path(agent: usize, path: &Path) -> String {
    format!("/agents/{}/files/content?path={}", name(agent), path.display())
}

/// Whether the master said that it is done.
async fn put(api: Api, path: String, bytes: Vec<u8>) -> bool {
    let sent = api.request(Method::PUT, &path).body(bytes).send();
    let answer = tokio::time::timeout(ANSWERED_WITHIN, sent).await;
    answer.is_ok_and(|answer| answer.is_ok_and(|response| response.status().is_success()))
}
