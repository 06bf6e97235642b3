//! The body of an answer while it flows: it ends, cut off and not cleanly, as soon as its visitor may not have it any
//! more or the master stops; and it counts as presence for as long as it flows.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{body::Body, body::Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inner, guard::BELIEVED};
use crate::tunnel::{presence::Present, visits::Visit};

type Polled = Option<Result<Frame<Bytes>, axum::Error>>;
type Refused = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body under guard.
pub(super) struct Guarded {
    inner: Body,
    gateway: Arc<Inner>,
    visit: Arc<Visit>,
    stop: CancellationToken,
    begun: Instant,
    /// What was there when the answer began.
    ahead: Option<Polled>,
    /// Made when the body turns out to take its time: most are over at once.
    refused: Option<Refused>,
    _presence: Present,
}

/// Why a body was cut off by us.
#[derive(Debug, thiserror::Error)]
#[error("the visit ended")]
struct VisitEnded;

impl Guarded {
    pub(super) fn new(inner: Body, gateway: &Arc<Inner>, visit: &Arc<Visit>, presence: Present) -> Self {
        let stop = gateway.parts.stop.clone();
        let (gateway, visit) = (gateway.clone(), visit.clone());
        Self { inner, gateway, visit, stop, begun: Instant::now(), ahead: None, refused: None, _presence: presence }
    }

    /// Takes what of the body came with the header, so that a small answer leaves in one write. Waits for nothing: one turn
    /// is left to whoever reads from the target.
    pub(super) async fn look_ahead(&mut self) {
        for turn in 0..2 {
            if let Some(polled) = poll_fn(|context| Poll::Ready(self.poll_inner(context))).await {
                self.ahead = Some(polled);
                return;
            }
            if turn == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn poll_inner(&mut self, context: &mut Context<'_>) -> Option<Polled> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(polled) => Some(polled),
            Poll::Pending => None,
        }
    }

    fn is_refused(&mut self, context: &mut Context<'_>) -> bool {
        let (gateway, visit, stop) = (&self.gateway, &self.visit, &self.stop);
        let refused = self.refused.get_or_insert_with(|| {
            let (gateway, visit, stop) = (gateway.clone(), visit.clone(), stop.clone());
            Box::pin(async move {
                stop.run_until_cancelled(gateway.until_refused(&visit)).await;
            })
        });
        refused.as_mut().poll(context).is_ready()
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(polled) = self.ahead.take() {
            return Poll::Ready(polled);
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let takes_its_time = polled.is_pending() || self.refused.is_some() || self.begun.elapsed() > BELIEVED;
        if takes_its_time && !matches!(polled, Poll::Ready(None)) && self.is_refused(context) {
            return Poll::Ready(Some(Err(axum::Error::new(VisitEnded))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.ahead {
            None => self.inner.is_end_stream(),
            Some(polled) => polled.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let ahead =
            self.ahead.iter().flatten().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum::<usize>() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(hint.lower() + ahead);
        hint
    }
}
