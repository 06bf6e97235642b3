//! Being told to stop: Ctrl-C and SIGTERM are one and the same.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves once per signal. Make it before the work it guards, or a signal in between ends the process.
pub(crate) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Cancel-safe.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
