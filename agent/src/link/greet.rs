//! From a connection to a line: Hello, and what the master answers.

use std::sync::Arc;

use proto::{
    VERSIONS,
    code::Code,
    control::{Hello, HelloReply, Refusal, Welcome},
    id::LineEpoch,
    limits::{AUTHENTICATE_WITHIN, FRAME_MAX, HELLO_ITEMS_MAX},
    net::{
        carrier::Dialed,
        frame::FrameError,
        preference::Class,
        quic::agent_send_window,
        stream::{self, FrameStream, RecvHalf, SendHalf},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, chain,
    line::{CLOSE_WITHIN, Ended},
};

/// A line that was welcomed.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) dialed: Dialed,
    pub(super) control: FrameStream,
    pub(super) welcome: Welcome,
}

/// Why a connection did not become a line.
#[derive(Debug)]
pub(super) enum NotUp {
    /// The master says no; something may be done about it.
    Refused(Refusal),
    Ended(Ended),
}

/// Says Hello, and that the line `keeps` goes on beside this one. Without a Welcome the connection is closed.
pub(super) async fn greet(
    context: &Arc<Context>,
    dialed: Dialed,
    keeps: Option<LineEpoch>,
    shutdown: &CancellationToken,
) -> Result<Up, NotUp> {
    let greeted = tokio::select! {
        biased;
        // Closing is all there is to say: without it the master, which may have let us in already, would wait for our
        // silence to tell.
        () = shutdown.cancelled() => {
            let ended = context.leaving();
            Err((ended.code, NotUp::Ended(ended)))
        }
        greeted = tokio::time::timeout(AUTHENTICATE_WITHIN, hello(context, &dialed, keeps)) => {
            judge(greeted.unwrap_or(Err(FrameError::TooSlow(AUTHENTICATE_WITHIN))), &dialed)
        }
    };
    match greeted {
        Ok((control, welcome)) => Ok(Up { dialed, control, welcome }),
        Err((code, not_up)) => {
            stream::close(&dialed.connection, code);
            // The close frame goes out before the socket does; nobody waits for it longer than this.
            dialed.finish(CLOSE_WITHIN).await;
            Err(not_up)
        }
    }
}

/// The code is what the connection is closed with.
fn judge(
    greeted: Result<(FrameStream, HelloReply), FrameError>,
    dialed: &Dialed,
) -> Result<(FrameStream, Welcome), (Code, NotUp)> {
    match greeted {
        Ok((control, HelloReply::Welcome(welcome))) => Ok((control, welcome)),
        Ok((_, HelloReply::Refused(refusal))) => Err((Code::DONE, NotUp::Refused(refusal))),
        Err(error) => match dialed.connection.close_reason() {
            Some(quinn::ConnectionError::ApplicationClosed(close)) => {
                let code = Code::from_u64(close.error_code.into_inner());
                let message = code.meaning().unwrap_or("the master closed the connection").to_owned();
                Err((code, NotUp::Refused(Refusal { code, message, retry_after_ms: 0 })))
            }
            Some(reason) => Err((error.code(), NotUp::Ended(Ended::closed(&reason)))),
            None => {
                let ended = Ended::network(error.code(), format!("no answer to Hello: {}", chain(&error)));
                Err((error.code(), NotUp::Ended(ended)))
            }
        },
    }
}

async fn hello(
    context: &Context,
    dialed: &Dialed,
    keeps: Option<LineEpoch>,
) -> Result<(FrameStream, HelloReply), FrameError> {
    let connection = &dialed.connection;
    let (send, recv) = connection.open_bi().await.map_err(|_| FrameError::Ended)?;
    let mut control = FrameStream::new(SendHalf::new(send), RecvHalf::new(recv), FRAME_MAX);
    control.send.prefer(Class::Control, connection, agent_send_window(dialed.carrier));
    let operations = context.dispatch.policy.operations();
    let words = operations.into_iter().map(str::to_owned).chain(keeps.map(Hello::keeping));
    let words = words.chain(context.visits.as_ref().map(|visits| Hello::visiting(visits.wanted.every)));
    let hello = Hello {
        versions: VERSIONS.to_vec(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        instance_id: context.instance_id,
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        hostname: hostname(),
        capabilities: words.take(HELLO_ITEMS_MAX).collect(),
        carrier: dialed.carrier,
        keep_alive_ms: u32::try_from(context.roads.tuning().keep_alive.as_millis()).unwrap_or(u32::MAX),
    };
    control.send.write_frame(&hello).await?;
    let reply = control.recv.next().await?;
    Ok((control, reply))
}

fn hostname() -> String {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    name[..name.floor_char_boundary(255)].to_owned()
}
