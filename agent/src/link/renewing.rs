//! Renewals beside a line that is up: when one is due or asked for, and what became of it. When it is due is
//! [`renewal`](super::renewal)'s to say.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::{
    Context, chain,
    enrol::{EnrolError, Purpose, enrol},
    renewal::Renewal,
};

/// A renewal that failed is tried again after this long: days are left when it is first due.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Renews beside the line; the new certificate serves from the next line on.
#[derive(Debug)]
pub(super) struct Renewing {
    renewal: Option<Renewal>,
    not_before: Instant,
    /// The master asked for a new key.
    rotate: bool,
    running: JoinSet<Result<(), EnrolError>>,
    context: Arc<Context>,
}

impl Renewing {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        let context = context.clone();
        let (renewal, not_before) = (next_renewal(&context), Instant::now());
        Self { renewal, not_before, rotate: false, running: JoinSet::new(), context }
    }

    /// At once, or after what is under way. One that fails is the master's to ask for again: the old key is still good.
    pub(super) fn rotate(&mut self) {
        self.rotate = true;
        self.look(&self.context.clone());
    }

    pub(super) fn look(&mut self, context: &Arc<Context>) {
        if !self.running.is_empty() {
            return;
        }
        if std::mem::take(&mut self.rotate) {
            let context = context.clone();
            self.running.spawn(async move { rotate(&context).await });
            return;
        }
        let Some(master_ms) = context.dispatch.freshness.master_ms() else { return };
        let due = self.renewal.is_some_and(|renewal| renewal.is_due(master_ms));
        if due && Instant::now() >= self.not_before {
            let context = context.clone();
            self.running.spawn(async move { enrol(&context.member, &context.roads, Purpose::Renew).await });
        }
    }

    /// Takes note of a renewal that ended; waits for ever where none is under way. Cancel-safe.
    pub(super) async fn step(&mut self) {
        match self.running.join_next().await {
            Some(ended) => self.ended(ended),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, result: Result<Result<(), EnrolError>, tokio::task::JoinError>) {
        self.not_before = Instant::now() + RENEW_AGAIN_AFTER;
        match result {
            Ok(Ok(())) => {
                self.renewal = next_renewal(&self.context);
                tracing::info!("the certificate was renewed");
            }
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "the certificate was not renewed"),
            Err(error) => tracing::error!(%error, "the renewal failed"),
        }
    }
}

/// A new key, and its first use, from which on the old one is worth nothing. Where only the use fails, the next line's
/// makes up for it.
async fn rotate(context: &Context) -> Result<(), EnrolError> {
    enrol(&context.member, &context.roads, Purpose::Rotate).await?;
    enrol(&context.member, &context.roads, Purpose::Renew).await
}

fn next_renewal(context: &Context) -> Option<Renewal> {
    let enrolment = context.member.enrolment()?;
    Some(Renewal::of(enrolment.not_before_ms, enrolment.not_after_ms, rand::random()))
}
