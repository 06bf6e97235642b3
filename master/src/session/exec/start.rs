//! Starting an exec: row and audit entry first, then the agent, and somebody who sees to its end whoever leaves meanwhile.

use std::{sync::Arc, time::Duration};

use proto::{
    exec::ExecSpec,
    failpoint,
    id::{AgentId, ExecId, RequestId},
    open::Operation,
};
use serde_json::json;

use super::{About, ExecError, ExecRun, Execs, Stdin, stream::Stream};
use crate::{
    clock::unix_ms,
    events::Draft,
    fleet::{OpenError, Reached},
    session,
    store::audit::AuditEntry,
};

/// Time the agent has to start the program.
const STARTED_WITHIN: Duration = Duration::from_secs(15);

impl Execs {
    /// Starts one command line. Row and audit entry are written before the agent hears of it. `stdin` goes in as fast as
    /// the program takes it. Dropping the future in the middle starts it all the same, and somebody sees to its end.
    pub async fn start(
        self: &Arc<Self>,
        begin: AuditEntry,
        agent: &AgentId,
        mut spec: ExecSpec,
        stdin: Stdin,
    ) -> Result<ExecRun, ExecError> {
        let reached = self.fleet.reach(agent).await?;
        spec.stdin = !stdin.ends || !stdin.bytes.is_empty();
        let opened = json!({ "program": spec.program });
        let operation = Operation::Exec(spec);
        if !session::fits(&operation) {
            return Err(ExecError::TooLarge);
        }
        let (id, agent, owner) = (ExecId::random(), agent.clone(), begin.actor.clone());
        let about = About { id, agent, owner, created_ms: unix_ms(), opened };
        let entry = begin.object(id).detail(about.opened.clone());
        let started = self.tasks.spawn(self.clone().begin(reached, operation, about, entry, stdin));
        started.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(OpenError::Lost.into()),
        })
    }

    async fn begin(
        self: Arc<Self>,
        reached: Reached,
        operation: Operation,
        about: About,
        entry: AuditEntry,
        stdin: Stdin,
    ) -> Result<ExecRun, ExecError> {
        self.store.sessions().begin(&about.row(), &entry).await?;
        let started = async {
            failpoint::here("exec.before_sent");
            let mut work = reached.line.open_as(RequestId(about.id.0), operation).await?;
            failpoint::here("exec.sent");
            work.opened(STARTED_WITHIN).await?;
            failpoint::here("exec.opened");
            Ok(work)
        };
        match started.await {
            Ok(work) => {
                let told = json!({ "exec_id": about.id, "by": about.owner });
                self.events.publish(Draft::new("exec.started").agent(&about.agent).detail(told));
                let stream = Stream::new(work, &stdin, None);
                Ok(ExecRun::new(self, about, 0, Some(stream), stdin))
            }
            // It may have started all the same: somebody must see to its end.
            Err(error @ (OpenError::Lost | OpenError::TooSlow(_))) => {
                self.keep(about, stdin);
                Err(error.into())
            }
            Err(error) => {
                self.over(&about, &error.code().into(), None).await;
                Err(error.into())
            }
        }
    }
}
