//! The body of an answer while it flows: it ends, cut off and not cleanly, as soon as its visitor may not have it any
//! more or the master stops; and it counts as presence for as long as it flows.

use std::{
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

type Refused = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body under guard.
pub(super) struct Guarded {
    inner: Body,
    gateway: Arc<Inner>,
    visit: Arc<Visit>,
    stop: CancellationToken,
    begun: Instant,
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
        Self { inner, gateway, visit, stop, begun: Instant::now(), refused: None, _presence: presence }
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
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let takes_its_time = polled.is_pending() || self.refused.is_some() || self.begun.elapsed() > BELIEVED;
        if takes_its_time && !matches!(polled, Poll::Ready(None)) && self.is_refused(context) {
            return Poll::Ready(Some(Err(axum::Error::new(VisitEnded))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
