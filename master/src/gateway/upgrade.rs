//! Connections that stop being HTTP: a WebSocket's bytes go both ways untouched, until either end or the visit is over.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{Inner, outward::strip_hop, trouble::Trouble};
use crate::tunnel::{presence::Present, visits::Visit};

/// Bytes held in each direction.
const BUFFER: usize = 16 * 1024;

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
                let (mut browser, mut target) = (TokioIo::new(browser), TokioIo::new(target));
                // How it ends is between browser and target.
                let _ = tokio::io::copy_bidirectional_with_sizes(&mut browser, &mut target, BUFFER, BUFFER).await;
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
