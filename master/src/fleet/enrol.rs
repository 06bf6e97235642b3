//! Enrolment and renewal: a secret and a certificate request in, a certificate out. One error for an unknown id and a
//! wrong secret; failed attempts cost time by identity and by address (SECURITY R1, R2, R12).

mod key;

use std::{error::Error, net::IpAddr, sync::Arc};

use certs::{authority::csr_key_sha256, identity::peer_identity, join::secret_sha256};
use proto::{
    code::Code,
    control::Refusal,
    enrol::{EnrolReply, EnrolRequest, Issued},
    id::AgentId,
    limits::{AUTHENTICATE_WITHIN, FRAME_MAX_UNAUTHENTICATED},
    net::stream::{FrameStream, RecvHalf, SendHalf},
};
use serde_json::json;
use tokio::time::Instant;

use super::{Fleet, accept::peer_certificate};
use crate::{
    events::Draft,
    metrics::code_label,
    store::{
        audit::AuditEntry,
        enrolments::{Certificate, EnrolAttempt, EnrolError, IssueFailure, RenewError, RenewedKeys},
    },
};

/// Reads one request, writes one reply, and says with which code to close.
pub(super) async fn answer(fleet: &Arc<Fleet>, connection: &quinn::Connection) -> Code {
    let Ok((send, recv)) = connection.accept_bi().await else { return Code::LINE_LOST };
    let mut stream = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX_UNAUTHENTICATED);
    let request = match stream.read_within::<EnrolRequest>(AUTHENTICATE_WITHIN).await {
        Ok(request) => request,
        Err(error) => return error.code(),
    };
    let outcome = match request {
        EnrolRequest::Enrol { agent_id, secret, csr_der } => {
            enrol(fleet, connection, agent_id, &secret, &csr_der).await
        }
        EnrolRequest::Renew { csr_der } => renew(fleet, connection, &csr_der).await,
        EnrolRequest::EnrolWithKey { name, key, csr_der } => {
            let reply = key::enrol(fleet, connection, name, &key, &csr_der).await;
            return reply_with(&mut stream, connection, reply).await;
        }
    };
    let reply = match outcome {
        Ok(issued) => EnrolReply::Issued(issued),
        Err(code) => EnrolReply::Refused(refusal(code)),
    };
    reply_with(&mut stream, connection, reply).await
}

/// Writes the reply, and says with which code to close.
async fn reply_with(stream: &mut FrameStream, connection: &quinn::Connection, reply: EnrolReply) -> Code {
    let code = match &reply {
        EnrolReply::Issued(_) => Code::DONE,
        EnrolReply::Refused(refusal) => refusal.code,
        EnrolReply::Waits { .. } => Code::ENROL_WAITS,
    };
    if stream.send.write_frame(&reply).await.is_ok() {
        stream.send.finish();
        // The agent closes once it has read; closing first could overtake the reply.
        connection.closed().await;
    }
    code
}

fn refusal(code: Code) -> Refusal {
    Refusal { code, message: code.meaning().unwrap_or_default().to_owned(), retry_after_ms: 0 }
}

async fn enrol(
    fleet: &Arc<Fleet>,
    connection: &quinn::Connection,
    agent_id: AgentId,
    secret: &str,
    csr_der: &[u8],
) -> Result<Issued, Code> {
    let address = connection.remote_address().ip();
    // The same refusal as for a wrong secret: whether this one was right is not told.
    fleet.limiter.check(agent_id.as_str(), Instant::now()).map_err(|_| Code::ENROL_REFUSED)?;
    let attempt = EnrolAttempt {
        agent_id: &agent_id,
        secret_sha256: secret_sha256(secret),
        key_sha256: csr_key_sha256(csr_der).map_err(|_| Code::BAD_CSR)?,
        now_ms: fleet.clock.now_ms(),
        idempotent: fleet.enrol_again_within,
    };
    let audit = entry(fleet, &agent_id, "agent.enrol", address);
    let issue = |_generation| issue(fleet, csr_der, &agent_id);
    let enrolled = match fleet.store.enrolments().enrol(attempt, issue, &audit).await {
        Ok(enrolled) => enrolled,
        Err(error) => {
            let code = match &error {
                EnrolError::Refused => Code::ENROL_REFUSED,
                EnrolError::Suspended => Code::SUSPENDED,
                EnrolError::Issue(_) => Code::BAD_CSR,
                EnrolError::Store(_) => Code::BUSY,
            };
            if matches!(error, EnrolError::Refused) {
                let delay = fleet.limiter.failed(Some(agent_id.as_str()), address, Instant::now());
                tokio::time::sleep(delay).await;
            }
            report(fleet, "agent.enrol_refused", &agent_id, address, code, &error);
            return Err(code);
        }
    };
    fleet.limiter.succeeded(agent_id.as_str());
    // A repeat after a lost reply is the same enrolment, not a second one.
    if !enrolled.repeated {
        tracing::info!(agent = %agent_id, %address, "agent enrolled");
        fleet.events.publish(Draft::new("agent.enrolled").agent(&agent_id));
    }
    Ok(issued(fleet, enrolled.certificate_der))
}

/// The certificate presented in TLS proves the key; its age does not matter, the agent's standing does.
async fn renew(fleet: &Arc<Fleet>, connection: &quinn::Connection, csr_der: &[u8]) -> Result<Issued, Code> {
    let address = connection.remote_address().ip();
    let certificate = peer_certificate(connection).ok_or(Code::CERTIFICATE_REQUIRED)?;
    let identity = peer_identity(&certificate).map_err(|_| Code::UNKNOWN_IDENTITY)?;
    let requested = csr_key_sha256(csr_der).map_err(|_| Code::BAD_CSR)?;
    let keys = RenewedKeys { presented: identity.key_sha256, requested };
    let offer = keys.requested != keys.presented;
    // Whoever stole a key must not be able to lock its owner out with another.
    if offer && !fleet.rotations.is_wanted(&identity.agent_id) {
        return Err(Code::BAD_CSR);
    }
    let audit = entry(fleet, &identity.agent_id, if offer { "agent.offer_key" } else { "agent.renew" }, address);
    let issue = |_generation| issue(fleet, csr_der, &identity.agent_id);
    let renewed = fleet.store.enrolments().renew(&identity.agent_id, keys, issue, &audit).await;
    match renewed {
        Ok(renewed) => {
            match (renewed.first_use, offer) {
                (true, _) => fleet.rotated(&identity.agent_id),
                (false, false) => {
                    fleet.events.publish(Draft::new("agent.renewed").agent(&identity.agent_id));
                }
                (false, true) => {}
            }
            Ok(issued(fleet, renewed.certificate.der))
        }
        Err(error) => {
            let code = match &error {
                RenewError::UnknownIdentity => Code::UNKNOWN_IDENTITY,
                RenewError::Suspended => Code::SUSPENDED,
                RenewError::Issue(_) => Code::BAD_CSR,
                RenewError::Store(_) => Code::BUSY,
            };
            report(fleet, "agent.renew_refused", &identity.agent_id, address, code, &error);
            Err(code)
        }
    }
}

fn issue(fleet: &Fleet, csr_der: &[u8], agent: &AgentId) -> Result<Certificate, IssueFailure> {
    let validity_ms = i64::try_from(fleet.certificate_validity.as_millis()).unwrap_or(i64::MAX);
    let not_after_ms = fleet.clock.now_ms().saturating_add(validity_ms);
    let issued = fleet.authority.issue_agent(csr_der, agent, not_after_ms)?;
    Ok(Certificate { der: issued.der, not_after_ms: issued.not_after_ms })
}

fn issued(fleet: &Fleet, certificate_der: Vec<u8>) -> Issued {
    let ca_der = fleet.authority.ca_der().to_vec();
    Issued { certificate_der, ca_der, master_time_ms: fleet.clock.now_ms() }
}

fn entry(fleet: &Fleet, agent: &AgentId, action: &'static str, address: IpAddr) -> AuditEntry {
    AuditEntry::new(fleet.clock.now_ms(), format!("agent:{agent}"), action).agent(agent).source(address)
}

/// Logs a refusal, counts it, and puts it on the timeline of an agent that exists: strangers' ids leave no trace on disk.
/// The look-up happens behind the reply, so that its time tells nobody whether the id is known.
fn report(
    fleet: &Arc<Fleet>,
    kind: &'static str,
    agent: &AgentId,
    address: IpAddr,
    code: Code,
    error: &(dyn Error + 'static),
) {
    tracing::info!(%agent, %address, %code, error, kind, "no certificate issued");
    fleet.metrics.auth_failure(code_label(code));
    let detail = json!({ "address": address.to_string() });
    let draft = Draft::new(kind).agent(agent).reason(code).detail(detail);
    let (fleet_then, agent) = (fleet.clone(), agent.clone());
    fleet.tasks.spawn(async move {
        if let Ok(Some(_)) = fleet_then.store.agents().identity(&agent).await {
            fleet_then.events.publish(draft);
        }
    });
}
