//! Enrolment with a key that stands for many machines: the machine proposes its name, the master makes the agent. One
//! answer for unknown, used up, expired and revoked keys; no name is taken over (SECURITY R1, R12).

use std::sync::Arc;

use certs::{authority::csr_key_sha256, join::secret_sha256};
use proto::{code::Code, control::Refusal, enrol::EnrolReply, id::AgentId};
use serde_json::json;
use tokio::time::Instant;

use super::{Fleet, entry, issue, issued, refusal};
use crate::{
    events::Draft,
    metrics::code_label,
    store::keys::{KeyAttempt, KeyError, KeyOutcome, WaitingAgent},
};

/// The one text for every key that is no good.
const NO_GOOD_KEY: &str =
    "Unknown, used up, expired or revoked enrolment key; ask an operator for a new one (`landline enrol create`).";
/// A fresh request is probably being looked at; an old one is not. Milliseconds.
const FRESH_MS: i64 = 300_000;
const SOON_MS: u32 = 2_000;
const LATER_MS: u32 = 15_000;

pub(super) async fn enrol(
    fleet: &Arc<Fleet>,
    connection: &quinn::Connection,
    name: AgentId,
    key: &str,
    csr_der: &[u8],
) -> EnrolReply {
    let address = connection.remote_address().ip();
    let Ok(key_sha256) = csr_key_sha256(csr_der) else { return EnrolReply::Refused(refusal(Code::BAD_CSR)) };
    let now_ms = fleet.clock.now_ms();
    let attempt = KeyAttempt {
        name: &name,
        secret_sha256: secret_sha256(key),
        key_sha256,
        address,
        now_ms,
        idempotent: fleet.enrol_again_within,
    };
    let (made, waits) = (entry(fleet, &name, "agent.enrol", address), entry(fleet, &name, "agent.ask", address));
    match fleet.store.keys().enrol(attempt, || issue(fleet, csr_der, &name), &made, &waits).await {
        Ok(KeyOutcome::Issued { certificate_der, repeated }) => {
            if !repeated {
                tracing::info!(agent = %name, %address, "agent enrolled with a key");
                fleet.events.publish(Draft::new("agent.enrolled").agent(&name));
            }
            EnrolReply::Issued(issued(fleet, certificate_der))
        }
        Ok(KeyOutcome::Waits { row, new }) => wait(fleet, &row, new, now_ms),
        Err(error) => {
            let refused = told(&error);
            tracing::info!(agent = %name, %address, code = %refused.code, error = &error as &dyn std::error::Error,
                "no certificate issued");
            fleet.metrics.auth_failure(code_label(refused.code));
            if matches!(error, KeyError::Refused) {
                tokio::time::sleep(fleet.limiter.failed(None, address, Instant::now())).await;
            }
            EnrolReply::Refused(refused)
        }
    }
}

fn wait(fleet: &Fleet, row: &WaitingAgent, new: bool, now_ms: i64) -> EnrolReply {
    if new {
        tracing::info!(agent = %row.agent_id, address = row.address, "a machine waits for approval");
        let detail = json!({ "enrolment_id": row.id, "address": row.address });
        fleet.events.publish(Draft::new("agent.waits").agent(&row.agent_id).detail(detail));
    }
    let fresh = now_ms.saturating_sub(row.created_at_ms) < FRESH_MS;
    EnrolReply::Waits {
        message: format!("an operator has to approve this machine: `landline enrol approve {}`", row.id),
        retry_after_ms: if fresh { SOON_MS } else { LATER_MS },
    }
}

fn told(error: &KeyError) -> Refusal {
    match error {
        KeyError::Refused => Refusal { message: NO_GOOD_KEY.to_owned(), ..refusal(Code::ENROL_REFUSED) },
        KeyError::NameTaken => refusal(Code::NAME_TAKEN),
        KeyError::Rejected => refusal(Code::ENROL_REJECTED),
        KeyError::Suspended => refusal(Code::SUSPENDED),
        KeyError::Issue(_) => refusal(Code::BAD_CSR),
        KeyError::Full | KeyError::Store(_) => refusal(Code::BUSY),
    }
}
