//! Trying again: taking up what runs on an agent whose line was lost, and writing what the database did not take.

use std::time::Duration;

use proto::{code::Code, id::AgentId, open::Operation};

use crate::fleet::{Fleet, LinkState, OpenError, WorkStream};

/// Time for the agent's answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Between attempts on a line that is there and does not do.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Between attempts to write the end of a session while the database is away, in ms. What ended together does not come back
/// together.
const WRITE_AGAIN_MS: std::ops::Range<u64> = 1_000..3_000;

/// Waits before an end is written again.
pub(super) async fn before_writing() {
    tokio::time::sleep(Duration::from_millis(rand::random_range(WRITE_AGAIN_MS))).await;
}

/// Waits for the agent, however long, and opens `operation` on its line. Fails with what another attempt would not change:
/// the agent was suspended, removed or locked down by its owner, does not have the session, or will not give it. Dropping
/// the future leaves nothing.
pub(super) async fn take_up(fleet: &Fleet, agent: &AgentId, operation: &Operation) -> Result<WorkStream, Code> {
    let _demand = fleet.demand(agent);
    let mut link = fleet.watch(agent);
    loop {
        if let LinkState::Down { code: code @ (Code::SUSPENDED | Code::REMOVED | Code::OWNER_LOCKDOWN), .. } =
            *link.borrow_and_update()
        {
            return Err(code);
        }
        match open(fleet, agent, operation.clone()).await {
            Ok(work) => return Ok(work),
            Err(OpenError::Refused(refused)) if is_final(refused.code) => return Err(refused.code),
            Err(OpenError::Offline) => {}
            Err(error) => tracing::debug!(%agent, %error, "a session could not be taken up again yet"),
        }
        if let Ok(Err(_)) = tokio::time::timeout(AGAIN_AFTER, link.changed()).await {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

/// One attempt.
pub(super) async fn open(fleet: &Fleet, agent: &AgentId, operation: Operation) -> Result<WorkStream, OpenError> {
    let reached = fleet.reach(agent).await?;
    let mut work = reached.line.open(operation).await?;
    work.opened(ANSWER_WITHIN).await?;
    Ok(work)
}

fn is_final(code: Code) -> bool {
    [Code::NO_SESSION, Code::OUTPUT_GONE, Code::POLICY, Code::UNKNOWN_OPERATION].contains(&code)
}
