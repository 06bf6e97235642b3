//! Enrolment and renewal: one request, one reply, on a connection of their own. The secret leaves only after TLS has
//! verified the master against the pin.

use std::{sync::Arc, time::Duration};

use certs::identity::AgentKey;
use proto::{
    code::Code,
    control::Refusal,
    enrol::{EnrolReply, EnrolRequest},
    limits::FRAME_MAX,
    net::{
        carrier::Dialed,
        frame::{FrameError, FrameReader, write_frame},
        stream,
    },
};
use secrecy::ExposeSecret;

use super::{
    connect::{ConnectError, Roads},
    member::{Member, NotOurs},
};
use crate::config::Proof;

/// Time for request and reply once connected. The master may be writing to a busy database.
const EXCHANGE_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error("no secret is configured to enrol with; ask an operator for `landline agents resecret`")]
    NoSecret,
    #[error("cannot set up TLS")]
    Tls(#[from] certs::tls::TlsError),
    #[error("cannot make the request")]
    Request(#[from] certs::identity::KeyError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the line was lost while enrolling ({code})")]
    Lost { code: Code },
    #[error("the master's reply could not be read")]
    Reply(#[source] FrameError),
    #[error("the master refuses: {} ({})", .0.message, .0.code)]
    Refused(Refusal),
    #[error("{message}")]
    Waits { message: String, retry_after: Duration },
    #[error("the master's reply cannot be used")]
    NotOurs(#[from] NotOurs),
}

/// What to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Enrol,
    Renew,
    /// A certificate for a new key, which counts from its first use.
    Rotate,
}

/// Gets a certificate and keeps it.
pub async fn enrol(member: &Arc<Member>, roads: &Roads, purpose: Purpose) -> Result<(), EnrolError> {
    let key = if purpose == Purpose::Rotate { Arc::new(AgentKey::generate()?) } else { member.key() };
    let csr_der = key.csr_der()?;
    let request = match purpose {
        Purpose::Renew | Purpose::Rotate => EnrolRequest::Renew { csr_der },
        Purpose::Enrol => match member.proof().ok_or(EnrolError::NoSecret)? {
            Proof::Secret(secret) => EnrolRequest::Enrol {
                agent_id: member.agent_id.clone(),
                secret: secret.expose_secret().to_owned(),
                csr_der,
            },
            Proof::Key(key) => EnrolRequest::EnrolWithKey {
                name: member.agent_id.clone(),
                key: key.expose_secret().to_owned(),
                csr_der,
            },
        },
    };
    let tls = member.enrol_tls(purpose != Purpose::Enrol)?;
    let dialed = roads.connect(&member.master, tls).await?.dialed;
    let reply = exchange(&dialed, &request).await;
    stream::close(&dialed.connection, Code::DONE);
    match reply? {
        EnrolReply::Refused(refusal) => Err(EnrolError::Refused(refusal)),
        EnrolReply::Waits { message, retry_after_ms } => {
            Err(EnrolError::Waits { message, retry_after: Duration::from_millis(retry_after_ms.into()) })
        }
        EnrolReply::Issued(issued) => {
            let keeping = member.clone();
            let kept = tokio::task::spawn_blocking(move || {
                keeping.keep(&issued, key)?;
                keeping.keep_time(issued.master_time_ms);
                Ok(())
            });
            kept.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
        }
    }
}

async fn exchange(dialed: &Dialed, request: &EnrolRequest) -> Result<EnrolReply, EnrolError> {
    let connection = &dialed.connection;
    let talk = async {
        let (mut send, recv) = connection.open_bi().await.map_err(|_| FrameError::Ended)?;
        write_frame(&mut send, request).await?;
        // The stream may be gone already together with the connection; reading says so.
        let _ = send.finish();
        FrameReader::new(recv, FRAME_MAX).next::<EnrolReply>().await
    };
    match tokio::time::timeout(EXCHANGE_WITHIN, talk).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(error)) => Err(match connection.close_reason() {
            Some(reason) => EnrolError::Lost { code: stream::close_code(&reason) },
            None => EnrolError::Reply(error),
        }),
        Err(_) => Err(EnrolError::Reply(FrameError::TooSlow(EXCHANGE_WITHIN))),
    }
}
