//! Moves a line to another carrier: asks [`carriers`](super::carriers) when, tries beside the line that stands, and hands
//! over the new line when it is welcomed. Breaks nothing by itself.

use std::sync::Arc;

use proto::{code::Code, id::LineEpoch, net::carrier::Carrier};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    carriers::{Course, Packets, Try},
    chain,
    greet::{NotUp, Up, greet},
};

/// The way of one line. Dropping it ends a try that is under way.
#[derive(Debug)]
pub(super) struct Mover {
    course: Course,
    begun: Instant,
    epoch: LineEpoch,
    running: JoinSet<Option<Moved>>,
    shutdown: CancellationToken,
}

/// A new line, and why it is there.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) up: Up,
    pub(super) code: Code,
    pub(super) why: String,
}

impl Mover {
    pub(super) fn new(context: &Context, up: &Up, shutdown: &CancellationToken) -> Self {
        let begun = Instant::now();
        Self {
            course: context.roads.course(up.dialed.carrier),
            begun,
            epoch: up.welcome.line_epoch,
            running: JoinSet::new(),
            shutdown: shutdown.clone(),
        }
    }

    /// Once a second.
    pub(super) fn look(&mut self, context: &Arc<Context>, connection: &quinn::Connection) {
        let path = connection.stats().path;
        let packets = Packets { sent: path.sent_packets, lost: path.lost_packets };
        if let Some(wish) = self.course.look(self.begun.elapsed(), packets) {
            let (context, epoch, shutdown) = (context.clone(), self.epoch, self.shutdown.clone());
            self.running.spawn(async move { attempt(&context, wish, epoch, &shutdown).await });
        }
    }

    /// In another network UDP may get through again: no try waits for its time.
    pub(super) fn in_another_network(&mut self) {
        self.course.in_another_network(self.begun.elapsed());
    }

    /// The next line, once there is one; for ever otherwise. Cancel-safe.
    pub(super) async fn moved(&mut self) -> Moved {
        loop {
            match self.running.join_next().await {
                Some(Ok(Some(moved))) => return moved,
                Some(Ok(None)) => self.course.failed(self.begun.elapsed(), rand::random()),
                Some(Err(error)) => {
                    tracing::error!(%error, "a try of another carrier failed");
                    self.course.failed(self.begun.elapsed(), rand::random());
                }
                None => std::future::pending().await,
            }
        }
    }
}

async fn attempt(context: &Arc<Context>, wish: Try, epoch: LineEpoch, shutdown: &CancellationToken) -> Option<Moved> {
    let (carrier, code, why) = match wish {
        Try::Udp => (Carrier::Udp, Code::CARRIER_BACK, "UDP gets through again".to_owned()),
        Try::WebSocket { lost } => {
            (Carrier::WebSocket, Code::CARRIER_BROKEN, format!("{lost} % of the packets over UDP were lost"))
        }
    };
    let tls = context.member.line_tls()?.ok()?;
    let dialed = match context.roads.over(carrier, &context.member.master, tls).await {
        Ok(dialed) => dialed,
        Err(error) => {
            tracing::debug!(carrier = carrier.word(), error = chain(&error), "the other carrier does not get through");
            return None;
        }
    };
    match greet(context, dialed, Some(epoch), shutdown).await {
        Ok(up) => {
            context.roads.moved(wish);
            Some(Moved { up, code, why })
        }
        Err(NotUp::Refused(refusal)) => {
            tracing::debug!(carrier = carrier.word(), code = %refusal.code, "refused on the other carrier");
            None
        }
        Err(NotUp::Ended(ended)) => {
            tracing::debug!(carrier = carrier.word(), reason = ended.message, "no line on the other carrier");
            None
        }
    }
}
