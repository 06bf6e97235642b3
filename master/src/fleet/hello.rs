//! From a finished handshake to Welcome: who is this, may it connect, and does another line of the same agent stand in
//! the way. Identity is the verified certificate and nothing else (SECURITY R3).

use std::{net::IpAddr, sync::Arc, time::Duration};

use certs::identity::{PeerIdentity, peer_identity};
use proto::{
    VERSIONS,
    code::Code,
    control::{Carrier, Hello, HelloReply, Refusal},
    id::AgentId,
    limits::{AUTHENTICATE_WITHIN, FRAME_MAX, FRAME_MAX_UNAUTHENTICATED},
    net::{
        preference::Class,
        quic::master_send_window,
        stream::{FrameStream, RecvHalf, SendHalf, close},
    },
};
use serde_json::json;
use tokio::time::Instant;

use super::{Fleet, accept::peer_certificate, line::Line};
use crate::{
    audit::Actor,
    events::Draft,
    metrics::code_label,
    store::agents::{AgentStatus, Identity},
};

/// How long the old line of an agent has to show a sign of life before another process takes its place (SECURITY R8).
const CHALLENGE: Duration = Duration::from_secs(3);
/// How often the challenge looks.
const CHALLENGE_LOOK: Duration = Duration::from_millis(50);
/// Packets that were on their way when the old process died may still arrive within this.
const CHALLENGE_SETTLE: Duration = Duration::from_millis(100);
/// Time for a refusal to be read before the connection closes under it.
const REFUSAL_READ_WITHIN: Duration = Duration::from_secs(2);

/// An agent that may have its line.
pub(super) struct Admitted {
    pub(super) identity: PeerIdentity,
    pub(super) hello: Hello,
    pub(super) control: FrameStream,
    pub(super) version: u16,
}

/// Reads Hello and decides. `None` when the agent was refused and told so.
pub(super) async fn authenticate(
    fleet: &Arc<Fleet>,
    connection: &quinn::Connection,
    carrier: Carrier,
) -> Option<Admitted> {
    let Some(certificate) = peer_certificate(connection) else {
        fleet.metrics.auth_failure("no_certificate");
        close(connection, Code::CERTIFICATE_REQUIRED);
        return None;
    };
    let Ok((send, recv)) = connection.accept_bi().await else { return None };
    let mut control = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX_UNAUTHENTICATED);
    control.send.prefer(Class::Control, connection, master_send_window(carrier));
    let hello = match control.read_within::<Hello>(AUTHENTICATE_WITHIN).await {
        // What carries the line is seen, not believed.
        Ok(hello) => Hello { carrier, ..hello },
        Err(error) => {
            tracing::debug!(error = %error, "no usable Hello");
            fleet.metrics.auth_failure("malformed");
            close(connection, error.code());
            return None;
        }
    };
    match admit(fleet, &certificate, &hello, connection.remote_address().ip()).await {
        Ok((identity, version)) => {
            control.recv.set_max(FRAME_MAX);
            Some(Admitted { identity, hello, control, version })
        }
        Err(code) => {
            refuse(fleet, connection, &mut control, &certificate, &hello, code).await;
            None
        }
    }
}

async fn admit(
    fleet: &Arc<Fleet>,
    certificate: &[u8],
    hello: &Hello,
    address: IpAddr,
) -> Result<(PeerIdentity, u16), Code> {
    let version = common_version(&hello.versions).ok_or(Code::VERSION)?;
    let identity = peer_identity(certificate).map_err(|_| Code::UNKNOWN_IDENTITY)?;
    let found = fleet.store.agents().identity(&identity.agent_id).await;
    let on_record = found.map_err(|_| Code::BUSY)?.ok_or(Code::UNKNOWN_IDENTITY)?;
    check_status(&on_record, &identity)?;
    if fleet.clock.now_ms() > identity.not_after_ms {
        return Err(Code::CERTIFICATE_EXPIRED);
    }
    if fleet.stopping.is_cancelled() {
        return Err(Code::SHUTDOWN);
    }
    if let Some(old) = fleet.line(&identity.agent_id) {
        challenge(fleet, &old, hello).await?;
    }
    if on_record.key_sha256 != Some(identity.key_sha256) {
        take_offered(fleet, &identity, address).await?;
    }
    Ok((identity, version))
}

/// The first line with a key that was offered: from now on it is the only one.
async fn take_offered(fleet: &Fleet, identity: &PeerIdentity, address: IpAddr) -> Result<(), Code> {
    let PeerIdentity { agent_id, key_sha256, not_after_ms, .. } = identity;
    let audit = Actor::Agent(agent_id.clone()).did("agent.renew").agent(agent_id).source(address);
    let taken = fleet.store.enrolments().take_offered(agent_id, key_sha256, *not_after_ms, &audit).await;
    if !taken.map_err(|_| Code::BUSY)? {
        return Err(Code::UNKNOWN_IDENTITY);
    }
    fleet.rotated(agent_id);
    Ok(())
}

/// Whether this agent with this key may connect, its certificate's age aside.
fn check_status(on_record: &Identity, identity: &PeerIdentity) -> Result<(), Code> {
    if ![on_record.key_sha256, on_record.next_key_sha256].contains(&Some(identity.key_sha256)) {
        return Err(Code::UNKNOWN_IDENTITY);
    }
    match on_record.status {
        AgentStatus::Unknown | AgentStatus::Active => Ok(()),
        AgentStatus::Suspended => Err(Code::SUSPENDED),
    }
}

fn common_version(theirs: &[u16]) -> Option<u16> {
    VERSIONS.iter().copied().filter(|version| theirs.contains(version)).max()
}

/// The same process may always replace its line. Another one only if the old line gives no sign of life.
async fn challenge(fleet: &Fleet, old: &Line, hello: &Hello) -> Result<(), Code> {
    if old.hello.instance_id == hello.instance_id {
        return Ok(());
    }
    tokio::time::sleep(CHALLENGE_SETTLE).await;
    let before = old.datagrams_received();
    old.poke();
    let deadline = Instant::now() + CHALLENGE;
    while Instant::now() < deadline {
        if old.ended().is_cancelled() {
            return Ok(());
        }
        if old.datagrams_received() > before {
            fleet.metrics.auth_failure("clone");
            return Err(Code::CLONE);
        }
        tokio::time::sleep(CHALLENGE_LOOK).await;
    }
    Ok(())
}

/// A refusal of who somebody is goes on record, the first few of each agent: a peer that comes for ever fills no disk.
async fn audit_refusal(fleet: &Fleet, connection: &quinn::Connection, agent: &AgentId, code: Code) {
    if !matches!(code, Code::UNKNOWN_IDENTITY | Code::SUSPENDED | Code::CLONE) {
        return;
    }
    let (identity, address) = (format!("line:{agent}"), connection.remote_address().ip());
    if fleet.limiter.check(&identity, Instant::now()).is_err() {
        return;
    }
    // The delay is for peers that may try at once again; an agent's own backoff is longer.
    let _ = fleet.limiter.failed(Some(&identity), address, Instant::now());
    let entry = Actor::Agent(agent.clone()).did("agent.refuse").source(address).result(code);
    if let Err(error) = fleet.store.audit(&entry).await {
        tracing::warn!(%agent, error = %error, "a refusal could not be recorded");
    }
}

async fn refuse(
    fleet: &Fleet,
    connection: &quinn::Connection,
    control: &mut FrameStream,
    certificate: &[u8],
    hello: &Hello,
    code: Code,
) {
    let claimed = peer_identity(certificate).ok().map(|identity| identity.agent_id);
    tracing::info!(agent = ?claimed, %code, address = %connection.remote_address(), "line refused");
    fleet.metrics.auth_failure(code_label(code));
    fleet.metrics.agent_connect(hello.carrier, Some(code));
    if let Some(agent) = claimed {
        audit_refusal(fleet, connection, &agent, code).await;
        let detail = json!({ "address": connection.remote_address().to_string(), "hostname": hello.hostname });
        fleet.events.publish(Draft::new("agent.refused").agent(&agent).reason(code).detail(detail));
    }
    let retry_after_ms = match code {
        Code::SHUTDOWN | Code::BUSY => 1_000,
        _ => 0,
    };
    let message = code.meaning().unwrap_or_default().to_owned();
    let refusal = HelloReply::Refused(Refusal { code, message, retry_after_ms });
    if control.send.write_frame(&refusal).await.is_ok() {
        control.send.finish();
        // The peer closes once it has read; closing first could overtake the refusal.
        let _ = tokio::time::timeout(REFUSAL_READ_WITHIN, connection.closed()).await;
    }
    close(connection, code);
}
