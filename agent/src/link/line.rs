//! One attempt at a line, from enrolment over Hello to the end of the line. Says how it ended; whether and when to try
//! again is not decided here.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use proto::{
    code::Code,
    control::Refusal,
    net::{carrier::DialError, stream},
};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    backoff::Failure,
    chain,
    connect::{ConnectError, Connected},
    control::{self, Left},
    enrol::{EnrolError, Purpose, enrol},
    greet::{NotUp, Up, greet},
    mover::Moved,
    renewal::Renewal,
    status::LineStatus,
    visit,
};

/// Time for the last packets of a line that this end closes.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// How an attempt ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub failure: Failure,
    pub code: Code,
    pub message: String,
    /// Something was put right: the next attempt need not wait.
    pub at_once: bool,
}

impl Ended {
    pub(super) fn network(code: Code, message: impl Into<String>) -> Self {
        Self { failure: Failure::Network, code, message: message.into(), at_once: false }
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        let retry_after = Duration::from_millis(refusal.retry_after_ms.into());
        Self {
            failure: Failure::Refused { code: refusal.code, retry_after },
            code: refusal.code,
            message: refusal.message.clone(),
            at_once: false,
        }
    }

    /// The master closed the line with a code, or the network did.
    pub(super) fn closed(reason: &quinn::ConnectionError) -> Self {
        let code = stream::close_code(reason);
        match reason {
            quinn::ConnectionError::ApplicationClosed(_) => {
                let message = code.meaning().unwrap_or("the master closed the line").to_owned();
                Self::refused(&Refusal { code, message, retry_after_ms: 0 })
            }
            // Nothing here closes a connection and then asks why: what carried it broke.
            quinn::ConnectionError::LocallyClosed => {
                Self::network(Code::LINE_LOST, "the WebSocket that carried the line broke")
            }
            other => Self::network(code, other.to_string()),
        }
    }

    fn put_right(code: Code, message: &str) -> Self {
        Self { at_once: true, ..Self::network(code, message) }
    }
}

/// Runs until the line ended or `shutdown` closed it. `connected` is cancelled when Welcome was read.
pub(super) async fn run(context: Arc<Context>, connected: CancellationToken, shutdown: CancellationToken) -> Ended {
    if let Err(ended) = prepare(&context).await {
        return ended;
    }
    let Some(tls) = context.member.line_tls() else {
        return Ended::network(Code::INTERNAL, "no certificate although enrolment succeeded");
    };
    let tls = match tls {
        Ok(tls) => tls,
        Err(error) => return Ended::network(Code::INTERNAL, chain(&error)),
    };
    let Connected { dialed, not_udp } = match context.roads.connect(&context.member.master, tls).await {
        Ok(connected) => connected,
        Err(error) => return of_connect(&error),
    };
    let mut up = match greet(&context, dialed, None, &shutdown).await {
        Ok(up) => up,
        Err(NotUp::Refused(refusal)) => return recover(&context, refusal).await,
        Err(NotUp::Ended(ended)) => return ended,
    };
    if let Some(visits) = &context.visits
        && !visit::is_needed(&mut up).await
    {
        return visit::leave(&context, visits, up).await;
    }
    if let Some(why) = not_udp {
        context.history().add(Code::CARRIER_SILENT, &why);
    }
    welcomed(&context, &up).await;
    connected.cancel();
    loop {
        match control::serve(&context, up, &shutdown).await {
            Left::Ended(ended) => return ended,
            Left::Moved(moved) => {
                let Moved { up: next, code, why } = *moved;
                context.history().add(code, &why);
                up = next;
                welcomed(&context, &up).await;
            }
        }
    }
}

/// What belongs to the agent outlives its lines, but not its place at the master (SECURITY R5).
pub(super) fn sent_away(context: &Context, ended: &Ended) {
    if [Code::SUSPENDED, Code::REMOVED, Code::UNKNOWN_IDENTITY].contains(&ended.code) {
        context.dispatch.sent_away(ended.code);
    }
}

/// A certificate is needed first, and one that surely ran out is renewed before it is refused.
async fn prepare(context: &Context) -> Result<(), Ended> {
    let purpose = match context.member.enrolment() {
        None => Purpose::Enrol,
        Some(enrolment) => {
            let renewal = Renewal::of(enrolment.not_before_ms, enrolment.not_after_ms, 0.0);
            if !renewal.has_expired(context.member.master_ms()) {
                return Ok(());
            }
            Purpose::Renew
        }
    };
    get_certificate(context, purpose).await
}

async fn get_certificate(context: &Context, purpose: Purpose) -> Result<(), Ended> {
    match enrol(&context.member, &context.roads, purpose).await {
        Ok(()) => {
            tracing::info!(agent = %context.member.agent_id, ?purpose, "the master issued a certificate");
            Ok(())
        }
        Err(EnrolError::Refused(refusal)) => Err(Ended::refused(&refusal)),
        Err(EnrolError::Waits { message, retry_after }) => {
            let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
            Err(Ended::refused(&Refusal { code: Code::ENROL_WAITS, message, retry_after_ms }))
        }
        Err(EnrolError::Connect(error)) => Err(of_connect(&error)),
        Err(EnrolError::NoSecret) => {
            let message = EnrolError::NoSecret.to_string();
            Err(Ended::refused(&Refusal { code: Code::UNKNOWN_IDENTITY, message, retry_after_ms: 0 }))
        }
        Err(error) => Err(Ended::network(Code::INTERNAL, chain(&error))),
    }
}

async fn welcomed(context: &Context, up: &Up) {
    let (welcome, carrier) = (&up.welcome, up.dialed.carrier.word());
    context.dispatch.freshness.learn(welcome.master_time_ms);
    context.roads.reached(up.dialed.connection.remote_address());
    tracing::info!(epoch = welcome.line_epoch.0, carrier, master_version = ?welcome.master_version, "the line is up");
    context.tell(LineStatus::Online {
        epoch: welcome.line_epoch.0,
        carrier,
        since: Timestamp::now().to_string(),
        master_version: welcome.master_version.clone(),
    });
    let (member, master_ms) = (context.member.clone(), welcome.master_time_ms);
    // A panic in there has been reported; the line does not depend on it.
    let _ = tokio::task::spawn_blocking(move || member.keep_time(master_ms)).await;
}

/// What this agent can do about a refusal by itself: renew what ran out, enrol where it is not known and has a secret.
async fn recover(context: &Context, refusal: Refusal) -> Ended {
    let purpose = match refusal.code {
        Code::CERTIFICATE_EXPIRED => Purpose::Renew,
        Code::UNKNOWN_IDENTITY | Code::CERTIFICATE_REQUIRED | Code::REMOVED if context.member.proof().is_some() => {
            Purpose::Enrol
        }
        _ => return Ended::refused(&refusal),
    };
    match get_certificate(context, purpose).await {
        Ok(()) => Ended::put_right(refusal.code, &refusal.message),
        Err(ended) => ended,
    }
}

fn of_connect(error: &ConnectError) -> Ended {
    let message = chain(error);
    match error.dial() {
        Some(DialError::Connect { source, .. }) => match source {
            quinn::ConnectionError::ApplicationClosed(_) => Ended::closed(source),
            quinn::ConnectionError::TransportError(_) => {
                Ended::network(Code::LINE_LOST, format!("{message}; is this the pinned master?"))
            }
            other => Ended::network(stream::close_code(other), message),
        },
        Some(DialError::Silent { .. }) => Ended::network(Code::SILENT, message),
        Some(DialError::Endpoint(_) | DialError::Start { .. } | DialError::Broken { .. }) | None => {
            Ended::network(Code::LINE_LOST, message)
        }
    }
}
