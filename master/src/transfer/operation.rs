//! One operation on files, from the request to its last word. What changes something is on record before the agent hears
//! of it, and again when its outcome is known.

use std::time::Duration;

use proto::{
    code::Code,
    file::{FileRequest, FromFile},
    id::{AgentId, RequestId},
    limits::FRAME_MAX,
    net::{frame::encode_frame, stream::FrameStream},
    open::{Open, Operation},
};
use serde_json::json;

use super::{TransferError, Transfers, shown};
use crate::{
    fleet::StreamGuard,
    store::{Store, audit::AuditEntry},
};

/// An agent at work says something every ten seconds.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// An operation under way. Dropping it ends it at its next step; what it did until then stays.
pub struct Operating {
    stream: FrameStream,
    _guard: StreamGuard,
    record: Option<Changing>,
    over: bool,
}

/// Writes down how a change ended, whichever way its caller leaves it.
struct Changing {
    entry: Option<AuditEntry>,
    result: Code,
    store: Store,
}

impl Transfers {
    /// Begins one operation. `begin` is the caller's entry `file.change`, used where something changes.
    pub async fn operate(
        &self,
        begin: AuditEntry,
        id: RequestId,
        agent: &AgentId,
        request: FileRequest,
    ) -> Result<Operating, TransferError> {
        let _reached = self.fleet.reach(agent).await?;
        let changes = request.changes();
        let detail = json!({ "request": described(&request) });
        let operation = Operation::File(request);
        let open = Open { request_id: id, issued_at_ms: 0, trace_id: [0; 16], operation };
        if encode_frame(&open).len() + 16 > FRAME_MAX {
            return Err(TransferError::TooLarge);
        }
        let mut record = None;
        if changes {
            let entry = begin.agent(agent).object(id).detail(detail);
            self.store.audit(&entry).await?;
            record = Some(Changing { entry: Some(entry), result: Code::OUTCOME_UNKNOWN, store: self.store.clone() });
        }
        let (_, work) = self.open(agent, id, open.operation).await.inspect_err(|error| {
            if let Some(record) = &mut record {
                record.result = error.code();
            }
        })?;
        let (stream, _guard) = work.into_frames();
        Ok(Operating { stream, _guard, record, over: false })
    }
}

impl Operating {
    /// The next thing it says; `None` after `Done`. A failure is an error.
    pub async fn next(&mut self) -> Result<Option<FromFile>, TransferError> {
        if self.over {
            return Ok(None);
        }
        let frame = self.stream.read_within(SILENT_FOR).await;
        let frame = frame.map_err(|error| TransferError::OutcomeUnknown(error.code()))?;
        let result = match &frame {
            FromFile::Done(_) => Code::DONE,
            FromFile::Failed { code, .. } => *code,
            _ => return Ok(Some(frame)),
        };
        self.over = true;
        if let Some(record) = &mut self.record {
            record.result = result;
        }
        match frame {
            FromFile::Failed { code, message } => Err(TransferError::Failed { code, message, offset: None }),
            frame => Ok(Some(frame)),
        }
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.action = "file.change.end".into();
        entry.at_ms = crate::clock::unix_ms();
        let (entry, store) = (entry.result(self.result.to_string()), self.store.clone());
        tokio::spawn(async move {
            if let Err(error) = store.audit(&entry).await {
                tracing::error!(%error, "the end of an operation on files could not be recorded");
            }
        });
    }
}

/// What was asked, for records.
fn described(request: &FileRequest) -> serde_json::Value {
    match request {
        FileRequest::Mkdir { path, .. } => json!({ "mkdir": shown(path) }),
        FileRequest::Remove { path, recursive } => json!({ "remove": shown(path), "recursive": recursive }),
        FileRequest::Rename { from, to, .. } => json!({ "rename": shown(from), "to": shown(to) }),
        FileRequest::Copy { from, to, .. } => json!({ "copy": shown(from), "to": shown(to) }),
        FileRequest::Chmod { path, mode } => json!({ "chmod": shown(path), "mode": format!("{mode:o}") }),
        FileRequest::Chown { path, user, group, .. } => json!({ "chown": shown(path), "user": user, "group": group }),
        FileRequest::Symlink { path, target } => {
            json!({ "symlink": shown(path), "target": String::from_utf8_lossy(&target.0) })
        }
        FileRequest::Touch { path, .. } => json!({ "touch": shown(path) }),
        FileRequest::Pack { from, to, .. } => {
            json!({ "pack": from.iter().map(shown).collect::<Vec<_>>(), "to": shown(to) })
        }
        FileRequest::Unpack { from, to, .. } => json!({ "unpack": shown(from), "to": shown(to) }),
        // They change nothing and are not recorded.
        FileRequest::Stat { .. }
        | FileRequest::List { .. }
        | FileRequest::Walk { .. }
        | FileRequest::Type { .. }
        | FileRequest::ReadLink { .. }
        | FileRequest::Checksum { .. }
        | FileRequest::DiskUse { .. }
        | FileRequest::Search { .. }
        | FileRequest::Grep { .. } => serde_json::Value::Null,
    }
}
