//! Who may ask: not a page of a sibling origin (all of ours share a parent domain, so `SameSite` does not tell them
//! apart), and nobody whose rights have ended (SECURITY R15, R16).

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
};

use super::{Inner, Site, trouble::Trouble, upgrade};
use crate::{
    access::{Action, AuthError, Object, authorise},
    store::StoreError,
    tunnel::{origin::Origin, visits::Visit},
};

/// How long a principal is believed without asking the store (SECURITY R15 allows 5 s).
pub(super) const BELIEVED: Duration = Duration::from_secs(2);

/// Refuses what a page of another tunnel, or a script of any other page, sends here. A link from elsewhere may be
/// followed: that is a navigation, and it carries nothing that a foreign page could choose beyond the address.
pub(super) fn not_from_a_sibling(request: &Request, site: &Site, ours: &Origin) -> Result<(), Trouble> {
    let headers = request.headers();
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("sec-fetch-site") {
        Some("same-site") => return Err(Trouble::Sibling),
        Some("cross-site") if !is_navigation(request) => return Err(Trouble::Sibling),
        _ => {}
    }
    match origin(headers).filter(|origin| site.strip(origin).is_none()) {
        // What a form sends is the target's to judge; a WebSocket's target often judges nothing.
        Some(origin) if is_ours(origin, ours) || upgrade::wanted(request) => Err(Trouble::Sibling),
        Some(_) | None => Ok(()),
    }
}

fn is_navigation(request: &Request) -> bool {
    let is = |name: &str, wanted: &str| request.headers().get(name).is_some_and(|value| value == wanted);
    matches!(*request.method(), Method::GET | Method::HEAD)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).and_then(|value| value.to_str().ok())
}

fn is_ours(origin: &str, ours: &Origin) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    rest.is_some_and(|authority| ours.serves(authority))
}

impl Inner {
    /// Whether the visit's principal may still see this tunnel: asked at each request, of the store every two seconds.
    pub(super) async fn may(&self, visit: &Arc<Visit>) -> Result<(), Trouble> {
        if visit.is_fresh(BELIEVED) {
            return Ok(());
        }
        match self.ask(visit).await {
            Ok(true) => {
                visit.confirm();
                Ok(())
            }
            Ok(false) => {
                visit.ended.cancel();
                Err(Trouble::NoVisit)
            }
            // A database that is away for a moment ends no visit; there are no new ones meanwhile.
            Err(error) if error.is_temporary() => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a visitor's rights could not be read");
                Err(Trouble::Ours)
            }
        }
    }

    async fn ask(&self, visit: &Visit) -> Result<bool, StoreError> {
        let now = match self.parts.access.still(&visit.principal, self.parts.fleet.now_ms()).await {
            Ok(now) => now,
            Err(AuthError::Invalid) => return Ok(false),
            Err(AuthError::Store(error)) => return Err(error),
        };
        let labels = self.parts.store.agents().labels(&visit.agent).await?.unwrap_or_default();
        Ok(authorise(&now, Action::TunnelEnter, Object::Agent(&labels)).is_ok())
    }

    /// Resolves when the visit's principal may not any more.
    pub(super) async fn until_refused(&self, visit: &Arc<Visit>) {
        loop {
            tokio::select! {
                biased;
                () = visit.ended.cancelled() => return,
                () = tokio::time::sleep(BELIEVED) => {}
            }
            if self.may(visit).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::gateway::host::tests::{origin as gateway, site};

    fn check(method: Method, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        for (name, value) in headers {
            request.headers_mut().append(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        not_from_a_sibling(&request, &site(), &gateway("gw.test", false)).is_ok()
    }

    #[test]
    fn pages_of_other_origins_do_not_act_here() {
        let own = site().origin();
        let sibling = "http://ffffffffffffffffffffffffffffffff.gw.test:7800";
        assert!(check(Method::POST, &[("sec-fetch-site", "same-origin"), ("origin", &own)]));
        assert!(check(Method::POST, &[("origin", "null"), ("sec-fetch-site", "same-origin")]));
        assert!(check(Method::GET, &[]));
        assert!(!check(Method::POST, &[("origin", sibling)]));
        assert!(!check(Method::GET, &[("sec-fetch-site", "same-site")]));
        let navigation =
            [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(check(Method::GET, &navigation));
        assert!(!check(Method::POST, &navigation));
        assert!(!check(Method::GET, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]));
        // A foreign origin is the target's to judge, but for WebSockets.
        assert!(check(Method::POST, &[("origin", "https://evil.example")]));
        let upgrade =
            |origin| check(Method::GET, &[("connection", "Upgrade"), ("upgrade", "websocket"), ("origin", origin)]);
        assert!(upgrade(&own));
        assert!(!upgrade("https://evil.example") && !upgrade("null") && !upgrade(sibling));
    }
}
