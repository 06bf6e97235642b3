//! One connection to a target without a listener: for an operator who forwards a port at their own desk. Recorded like a
//! tunnel: the start is on record before the agent hears of it, the end with what was carried.

use std::{sync::Arc, time::Duration};

use proto::{
    code::Code,
    id::{AgentId, RequestId},
    net::{
        relay::{Meter, relay},
        socket::Socket,
    },
    open::{Operation, Target},
};
use serde_json::json;

use super::{By, path::reach};
use crate::{
    clock::unix_ms,
    fleet::{COMES_WITHIN, Fleet, Line, OpenError, WorkStream},
    metrics::{GaugeGuard, Metrics},
    store::{Store, StoreError, audit::AuditEntry},
};

/// Time for an agent that is away to come back.
const PARK: Duration = Duration::from_secs(10);
/// Time for the agent's answer: it gives the target ten seconds itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the connection could not be recorded, so none was made")]
    Store(#[from] StoreError),
}

/// Makes connections.
pub struct Direct {
    fleet: Arc<Fleet>,
    store: Store,
    metrics: Arc<Metrics>,
}

/// One connection to a target. Dropping it resets it; its end is recorded whichever way it ends.
pub struct DirectConnection {
    line: Arc<Line>,
    work: WorkStream,
    record: Record,
}

struct Record {
    id: RequestId,
    agent: AgentId,
    target: Target,
    by: By,
    meter: Arc<Meter>,
    result: Code,
    store: Store,
    metrics: Arc<Metrics>,
    _gauge: GaugeGuard,
}

impl Direct {
    pub fn new(fleet: Arc<Fleet>, store: Store, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { fleet, store, metrics })
    }

    /// Dials the target from the agent. When this returns, the target has answered.
    pub async fn connect(&self, by: By, agent: &AgentId, target: Target) -> Result<DirectConnection, ConnectError> {
        // Nobody shall be recorded as connected to an agent that is not there at all.
        let visits = self.fleet.visits(agent).is_some_and(|visits| visits.expected);
        let park = if visits { COMES_WITHIN } else { PARK };
        self.fleet.link(agent).map(drop).or(visits.then_some(())).ok_or(OpenError::Offline)?;
        let id = RequestId::random();
        self.store
            .audit(&entry(&by, "connect.start", agent, id).detail(json!({ "target": target.to_string() })))
            .await?;
        let mut record = Record {
            id,
            agent: agent.clone(),
            target: target.clone(),
            by,
            meter: Arc::default(),
            result: Code::ABANDONED,
            store: self.store.clone(),
            metrics: self.metrics.clone(),
            _gauge: self.metrics.tunnel_connection(),
        };
        let opened = async {
            let (line, mut work) = reach(&self.fleet, agent, park, || Operation::Forward(target.clone())).await?;
            work.opened(ANSWER_WITHIN).await?;
            Ok::<_, OpenError>((line, work))
        };
        let (line, work) = opened.await.inspect_err(|error| {
            record.result = error.code();
            self.metrics.tunnel_dial_failure(error.code());
        })?;
        Ok(DirectConnection { line, work, record })
    }
}

impl DirectConnection {
    /// Carries bytes between `socket` and the target until both directions ended.
    pub async fn carry(self, socket: impl Socket) -> Result<(), Code> {
        let Self { line, work, mut record } = self;
        let (send, recv, _guard) = work.into_halves();
        let meter = record.meter.clone();
        let result = relay(socket, send, recv, line.credit(), &meter).await;
        record.result = result.err().unwrap_or(Code::DONE);
        result
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (to_target, from_target) = (self.meter.to_stream(), self.meter.to_socket());
        self.metrics.tunnel_bytes(to_target, from_target);
        let detail = json!({ "target": self.target.to_string(), "bytes_in": to_target, "bytes_out": from_target });
        let entry = entry(&self.by, "connect.end", &self.agent, self.id).detail(detail).result(self.result.to_string());
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.audit(&entry).await {
                tracing::error!(%error, "the end of a connection could not be recorded");
            }
        });
    }
}

fn entry(by: &By, action: &'static str, agent: &AgentId, id: RequestId) -> AuditEntry {
    let entry = AuditEntry::new(unix_ms(), by.actor.clone(), action).agent(agent).object(id);
    match &by.source {
        Some(source) => entry.source(source),
        None => entry,
    }
}
