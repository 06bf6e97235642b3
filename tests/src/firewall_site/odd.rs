//! What a gateway must survive: broken answers, endless waits, redirects that lead nowhere, headers that reach too far.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{self, HeaderName},
};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::{Answer, State, full, html, redirect, text, with_type};

/// Beyond what is read ahead in one go, wherever the pieces of it end.
const HUGE: usize = 200 * 1024;

/// Answers that are no HTTP; true if this was one.
pub(super) async fn raw(head: &[u8], write: &mut (impl AsyncWrite + Unpin)) -> bool {
    let garbage: &[u8] = match head.split(|byte| *byte == b' ').nth(1) {
        Some(b"/garbage") => b"220 this is no web server\r\n",
        Some(b"/half") => b"HTTP/1.1 200 OK\r\nContent-Type: te",
        _ => return false,
    };
    let _ = write.write_all(garbage).await;
    let _ = write.shutdown().await;
    true
}

/// `None` where the page is none of these.
pub(super) async fn answer(
    path: &str,
    request: &Request<Incoming>,
    state: &State,
) -> Result<Option<Answer>, std::io::Error> {
    let (_, port) = state.origin.rsplit_once(':').unwrap_or_default();
    Ok(Some(match path {
        "/garbage" | "/half" | "/hangup" => return Err(std::io::Error::other("hung up")),
        "/never" => std::future::pending().await,
        "/huge-header" => with_headers(&[("x-huge", "h".repeat(HUGE).as_str())]),
        "/cut" => cut(),
        "/loop" => redirect("/loop"),
        "/to-http" => redirect(&format!("http://127.0.0.1:{port}/")),
        "/to-port" => redirect("https://127.0.0.1:4443/admin"),
        "/to-other" => redirect("https://other.example/<script>"),
        "/relative" => redirect("landed"),
        "/landed" => text(StatusCode::OK, "landed"),
        "/reach" => with_headers(&[
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("alt-svc", "h3=\":443\""),
            ("nel", "{\"report_to\":\"x\",\"max_age\":9}"),
            ("report-to", "{\"group\":\"x\",\"max_age\":9,\"endpoints\":[{\"url\":\"https://192.168.1.1/\"}]}"),
            ("cross-origin-opener-policy", "same-origin"),
            ("clear-site-data", "\"cookies\", \"cache\""),
            ("set-cookie", "__Host-landline-visit=evil; Path=/; Secure"),
            ("set-cookie", "shared=1; Path=/; Domain=gw.test; Secure"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-location", &format!("{}/there", state.origin)),
            ("refresh", &format!("9; url={}/there", state.origin)),
        ]),
        "/headers" => headers(request),
        "/own-name" => html(own_name(state)),
        path if path.contains("paths") => text(StatusCode::OK, &request.uri().to_string()),
        _ => return Ok(None),
    }))
}

fn with_headers(pairs: &[(&'static str, &str)]) -> Answer {
    let mut answer = text(StatusCode::OK, "see the header");
    for (name, value) in pairs {
        answer.headers_mut().append(HeaderName::from_static(name), value.parse().expect("a value"));
    }
    answer
}

/// A page with its own address in it, as many have.
fn own_name(state: &State) -> String {
    format!("<a href=\"{0}/index.php\">{0}</a><script>const HOME = '{0}/';</script>", state.origin)
}

/// Announces more than it sends.
fn cut() -> Answer {
    let frames = stream::unfold(0, |count| async move {
        match count {
            0 => Some((Ok(Frame::data(Bytes::from_static(b"the beginning"))), 1)),
            _ => {
                // By then the beginning is out.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Some((Err(std::io::Error::other("cut off")), 1))
            }
        }
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed());
    answer.headers_mut().insert(header::CONTENT_LENGTH, header::HeaderValue::from_static("1000"));
    answer
}

/// The header as it arrived.
fn headers(request: &Request<Incoming>) -> Answer {
    let pairs = request
        .headers()
        .iter()
        .map(|(name, value)| serde_json::json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    let pairs: Vec<_> = pairs.collect();
    let mut answer = with_type(StatusCode::OK, "application/json", serde_json::Value::from(pairs).to_string());
    if request.method() == hyper::Method::HEAD {
        *answer.body_mut() = full("");
    }
    answer
}
