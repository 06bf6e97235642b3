//! One stream that is attached to a session: carries output and input between the master and the session, and leaves the
//! session to itself when the stream ends.

use proto::{
    code::Code,
    net::{
        frame::{FrameError, FrameReader},
        stream::{FrameStream, RecvHalf, SendHalf},
    },
    shell::ToShell,
};

use super::session::{Next, Place, Session};
use crate::service::answer;

/// Serves the stream until it, the line or the session ends, and says why. Dropping the future detaches.
pub(super) async fn follow(session: &Session, mut stream: FrameStream, offset: u64) -> Code {
    let (place, attached) = match session.attach(offset) {
        Ok(attached) => attached,
        Err(error) => {
            answer::refuse(stream, Code::OUTPUT_GONE, &error.to_string()).await;
            return Code::OUTPUT_GONE;
        }
    };
    if answer::open(&mut stream, None).await.is_err() || stream.send.write_frame(&attached).await.is_err() {
        return Code::ABANDONED;
    }
    let FrameStream { mut send, mut recv } = stream;
    let code = tokio::select! {
        biased;
        code = hear(&place, &mut recv) => code,
        code = tell(session, &place, &mut send) => code,
    };
    if code == Code::DONE {
        send.finish();
    } else {
        send.reset(code);
    }
    recv.source_mut().stop(code);
    code
}

/// Until the master left or broke the rules.
async fn hear(place: &Place<'_>, recv: &mut FrameReader<RecvHalf>) -> Code {
    loop {
        let heard = match recv.next::<ToShell>().await {
            Ok(message) => place.hear(message),
            Err(FrameError::Ended) => Err(Code::ABANDONED),
            Err(error) => Err(error.code()),
        };
        if let Err(code) = heard {
            return code;
        }
    }
}

/// Until the session's end was told, or somebody else took it over.
async fn tell(session: &Session, place: &Place<'_>, send: &mut SendHalf) -> Code {
    let mut changes = session.changes();
    let mut told = 0;
    loop {
        changes.borrow_and_update();
        let (frame, last) = match place.next(&mut told) {
            Next::Frame(frame) => (frame, false),
            Next::Last(frame) => (frame, true),
            Next::Superseded => return Code::SUPERSEDED,
            Next::Wait => {
                // The session outlives its places, and with it the sender.
                let _ = changes.changed().await;
                continue;
            }
        };
        if send.write_frame(&frame).await.is_err() {
            return Code::LINE_LOST;
        }
        if last {
            return Code::DONE;
        }
    }
}
