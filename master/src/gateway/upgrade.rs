//! Connections that stop being HTTP: a WebSocket's bytes go both ways untouched, until either end or the visit is over.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Inner, outward::strip_hop, trouble::Trouble};
use crate::tunnel::{presence::Present, visits::Visit};

/// After one side ended, the other has this long: a target that never hangs up must not count as somebody who looks.
const LINGER: Duration = Duration::from_secs(2);

/// Whether a request asks to leave HTTP.
pub(super) fn wanted(request: &Request) -> bool {
    let tokens = request.headers().get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = tokens.flat_map(|value| value.split(','));
    *request.method() == Method::GET
        && request.headers().contains_key(header::UPGRADE)
        && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

impl Inner {
    /// Passes the target's agreement on and joins the two connections.
    pub(super) fn switch(
        self: &Arc<Self>,
        mut response: hyper::Response<Incoming>,
        browser: OnUpgrade,
        visit: Arc<Visit>,
        presence: Present,
    ) -> Result<Response, Trouble> {
        let permit = self.upgrades.clone().try_acquire_owned().map_err(|_| Trouble::Busy)?;
        let target = hyper::upgrade::on(&mut response);
        let gateway = self.clone();
        self.tasks.spawn(async move {
            let _held = (permit, presence);
            let joined = async {
                let Ok((browser, target)) = tokio::try_join!(browser, target) else { return };
                join(TokioIo::new(browser), TokioIo::new(target)).await;
            };
            tokio::select! {
                biased;
                () = gateway.parts.stop.cancelled() => {}
                () = gateway.until_refused(&visit) => {}
                () = joined => {}
            }
        });
        Ok(agreement(response.headers()))
    }
}

/// Carries bytes both ways. How it ends is between browser and target.
async fn join(browser: impl AsyncRead + AsyncWrite, target: impl AsyncRead + AsyncWrite) {
    let ((from_browser, to_browser), (from_target, to_target)) = (tokio::io::split(browser), tokio::io::split(target));
    let (up, down) = (pour(from_browser, to_target), pour(from_target, to_browser));
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let _ = tokio::select! {
        () = &mut up => timeout(LINGER, down).await,
        () = &mut down => timeout(LINGER, up).await,
    };
}

async fn pour(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

fn agreement(headers: &HeaderMap) -> Response {
    let mut passed = headers.clone();
    let protocol = passed.get(header::UPGRADE).cloned();
    strip_hop(&mut passed);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = passed;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, axum::http::HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
    response
}
