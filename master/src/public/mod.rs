//! What strangers reach on the public TCP port: the install script and the agent's binaries, the door for lines inside
//! WebSockets, and nothing of the inside (SECURITY R19, R57). Owns the port, its certificates' reloading, and these; a gateway or a dashboard beside
//! them is mounted by the composition root.

pub mod binaries;
mod line;
pub mod listener;
mod site;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Duration};

use certs::web::WebCertificates;
use tokio_util::sync::CancellationToken;

pub use line::with_lines;
pub use site::{SCRIPT, router, serves};

/// How often the certificate files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Has changed certificate files served without a restart, until `stop`. A broken new pair is logged once, and the old one
/// serves on.
pub async fn watch_certificates(certificates: Arc<WebCertificates>, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let looking = certificates.clone();
        match tokio::task::spawn_blocking(move || looking.refresh()).await {
            Ok(Ok(true)) => tracing::info!("a new certificate serves the public port"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "public.cert_file and public.key_file changed and cannot be used; the old ones serve on"
                );
            }
        }
    }
}
