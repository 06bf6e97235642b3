//! The line that was left for another carrier: what runs on it runs on until it ends, the master closes it, or too much time
//! has passed. At most one; the line that counts is another.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::{
    code::Code,
    net::{
        carrier::Dialed,
        stream::{self, FrameStream},
    },
};
use tokio_util::task::AbortOnDropHandle;

use super::line::CLOSE_WITHIN;

/// The master ends it sooner: this is for one that does not.
const HELD_WITHIN: Duration = Duration::from_secs(2_000);

/// Holds it. Dropping this cuts it.
#[derive(Debug, Default)]
pub(super) struct Behind(Mutex<Option<(quinn::Connection, AbortOnDropHandle<()>)>>);

impl Behind {
    /// Goes on with `old` beside the new line. One that was left before is cut.
    pub(super) fn keep(&self, old: Dialed, control: FrameStream, streams: AbortOnDropHandle<()>) {
        let connection = old.connection.clone();
        let task = tokio::spawn(async move {
            // Its streams end with it, and dropping the control stream would end it.
            let _held = (control, streams);
            let _ = tokio::time::timeout(HELD_WITHIN, old.connection.closed()).await;
            stream::close(&old.connection, Code::SUPERSEDED);
            old.finish(CLOSE_WITHIN).await;
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((connection, AbortOnDropHandle::new(task)));
    }

    /// Says goodbye on it at once; what runs on it ends.
    pub(super) fn close(&self, code: Code) {
        if let Some((connection, _)) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            stream::close(connection, code);
        }
    }

    /// The agent wants no line any more: closes it, and waits until that was said.
    pub(super) async fn end(&self, code: Code) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((connection, task)) = held {
            stream::close(&connection, code);
            let _ = tokio::time::timeout(CLOSE_WITHIN * 2, task).await;
        }
    }
}
