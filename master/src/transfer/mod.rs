//! Files on their way between a caller and an agent. Bytes pass through and are never spooled: a caller that does not read
//! holds back the agent, an agent that does not write holds back the caller. Starts and ends are on record.

mod download;
mod operation;
mod upload;

use std::{sync::Arc, time::Duration};

use proto::{
    code::Code,
    file::FilePath,
    id::{AgentId, RequestId},
    open::Operation,
    transfer::{ReadBegin, ReadSpec, WriteSpec},
};
use serde_json::{Value, json};

pub use self::{
    download::Download,
    operation::Operating,
    upload::{Stored, Upload},
};
use crate::{
    fleet::{Fleet, Line, OpenError, Reached, WorkStream},
    metrics::Metrics,
    store::{Store, StoreError, audit::AuditEntry},
};

/// Time for the agent to find the file and open it.
const OPENED_WITHIN: Duration = Duration::from_secs(15);

/// Why bytes did not get where they should.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the transfer could not be recorded, so none was begun")]
    Store(#[from] StoreError),
    /// The agent's own verdict. `offset` is how much it keeps for another attempt.
    #[error("{message}")]
    Failed { code: Code, message: String, offset: Option<u64> },
    #[error("the line was lost ({0}); what arrived is kept: go on from there")]
    Lost(Code),
    #[error("the body did not go on for {0:?}")]
    Stalled(Duration),
    #[error("the body was cut off")]
    Cut,
    #[error("the agent did not say within {0:?} what became of the file")]
    Unknown(Duration),
    #[error("the line was lost ({0}) while the agent worked on it: look before you repeat it")]
    OutcomeUnknown(Code),
    #[error("the request is larger than one message may be: name fewer sources")]
    TooLarge,
}

/// Carries files.
pub struct Transfers {
    fleet: Arc<Fleet>,
    store: Store,
    metrics: Arc<Metrics>,
}

/// Writes the end of a transfer into audit and metrics, whichever way it ends.
struct Record {
    begin: AuditEntry,
    action: &'static str,
    id: RequestId,
    direction: &'static str,
    detail: Value,
    bytes: u64,
    result: Code,
    store: Store,
    metrics: Arc<Metrics>,
}

impl Transfers {
    pub fn new(fleet: Arc<Fleet>, store: Store, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { fleet, store, metrics })
    }

    /// What a file is, without its bytes. Nothing is recorded.
    pub async fn look(&self, agent: &AgentId, path: FilePath) -> Result<ReadBegin, TransferError> {
        let operation = Operation::FileRead(ReadSpec { path, offset: 0, length: Some(0), whole: false });
        let (_, work) = self.open(agent, RequestId::random(), operation).await?;
        let (mut stream, _guard) = work.into_frames();
        stream.read_within(OPENED_WITHIN).await.map_err(|error| TransferError::Lost(error.code()))
    }

    /// Begins to read a file. `begin` is the caller's entry `file.read`.
    pub async fn read(&self, begin: AuditEntry, agent: &AgentId, spec: ReadSpec) -> Result<Download, TransferError> {
        let detail = json!({ "path": shown(&spec.path), "offset": spec.offset, "length": spec.length });
        let mut record = self.record(begin, "file.read.end", "out", detail, agent).await?;
        let result = async {
            let (line, work) = self.open(agent, record.id, Operation::FileRead(spec)).await?;
            Download::begin(line, work).await
        };
        match result.await {
            Ok(parts) => Ok(Download::new(parts, record)),
            Err(error) => {
                record.result = error.code();
                Err(error)
            }
        }
    }

    /// Begins to write a file. `begin` is the caller's entry `file.write`.
    pub async fn write(&self, begin: AuditEntry, agent: &AgentId, spec: WriteSpec) -> Result<Upload, TransferError> {
        let detail = json!({ "path": shown(&spec.path), "offset": spec.offset, "size": spec.size });
        let mut record = self.record(begin, "file.write.end", "in", detail, agent).await?;
        let result = async {
            let (_, work) = self.open(agent, record.id, Operation::FileWrite(spec)).await?;
            Upload::begin(work).await
        };
        match result.await {
            Ok(parts) => Ok(Upload::new(parts, record)),
            Err(error) => {
                record.result = error.code();
                Err(error)
            }
        }
    }

    /// How much of a content the agent holds from earlier attempts.
    pub async fn held(&self, agent: &AgentId, spec: WriteSpec) -> Result<u64, TransferError> {
        let operation = Operation::FileWrite(WriteSpec { ask: true, ..spec });
        let (_, work) = self.open(agent, RequestId::random(), operation).await?;
        Ok(Upload::begin(work).await?.offset())
    }

    async fn open(
        &self,
        agent: &AgentId,
        id: RequestId,
        operation: Operation,
    ) -> Result<(Arc<Line>, WorkStream), OpenError> {
        let Reached { line, demand: _demand } = self.fleet.reach(agent).await?;
        let mut work = line.open_as(id, operation).await?;
        work.opened(OPENED_WITHIN).await?;
        Ok((line, work))
    }

    /// The start is on record before the agent hears of it.
    async fn record(
        &self,
        begin: AuditEntry,
        action: &'static str,
        direction: &'static str,
        detail: Value,
        agent: &AgentId,
    ) -> Result<Record, TransferError> {
        // Nothing shall be recorded of an agent that is not there at all.
        self.fleet.reach(agent).await?;
        let id = RequestId::random();
        let begin = begin.agent(agent).object(id).detail(detail.clone());
        self.store.audit(&begin).await?;
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        Ok(Record { begin, action, id, direction, detail, bytes: 0, result: Code::ABANDONED, store, metrics })
    }
}

impl TransferError {
    /// The word for the records.
    pub fn code(&self) -> Code {
        match self {
            Self::Open(error) => error.code(),
            Self::Store(_) => Code::INTERNAL,
            Self::Failed { code, .. } | Self::Lost(code) => *code,
            Self::Stalled(_) => Code::TOO_SLOW,
            Self::Cut => Code::ABANDONED,
            Self::Unknown(_) | Self::OutcomeUnknown(_) => Code::OUTCOME_UNKNOWN,
            Self::TooLarge => Code::TOO_LARGE,
        }
    }
}

impl Record {
    fn carried(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.metrics.transfer_bytes(self.direction, bytes as u64);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.transfer(match self.result {
            Code::DONE => "ok",
            Code::ABANDONED | Code::LINE_LOST => "cut",
            _ => "failed",
        });
        let mut detail = std::mem::take(&mut self.detail);
        detail["bytes"] = self.bytes.into();
        let mut entry = self.begin.clone().detail(detail).result(self.result.to_string());
        entry.action = self.action.into();
        entry.at_ms = crate::clock::unix_ms();
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.audit(&entry).await {
                tracing::error!(%error, "the end of a transfer could not be recorded");
            }
        });
    }
}

/// A path for records: bytes that are no text are escaped.
fn shown(path: &FilePath) -> String {
    path.0.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        text
    })
}
