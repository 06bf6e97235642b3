//! The few files of the public port: a script that is the same bytes for everybody, binaries, and their hashes. Nothing a
//! request holds finds its way into an answer (SECURITY R57), and whatever is not one of these is not there (R19).

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};
use tokio_util::io::ReaderStream;

use super::binaries::{Binaries, Binary, PROGRAM, Platform};
use crate::http::hosts::{Hosts, host};

/// The install script, as it is handed out.
pub const SCRIPT: &str = include_str!("../../../deploy/install.sh");
/// Read from the disk and handed to the connection at once.
const PIECE: usize = 64 * 1024;

/// What the public port serves under the names of `hosts`; 421 under any other.
pub fn router(binaries: Binaries, hosts: Hosts) -> Router {
    let script_sum: Arc<str> = format!("{}  install.sh\n", hex::encode(Sha256::digest(SCRIPT))).into();
    Router::new()
        .route("/install.sh", get(|| async { text("text/x-shellscript; charset=utf-8", SCRIPT) }))
        .route("/install.sh.sha256", get(move || async move { plain(script_sum.to_string()) }))
        .route("/healthz", get(|| async { plain("ok\n") }))
        .route("/dl/SHA256SUMS", get(sums))
        .route("/dl/{platform}/{file}", get(download))
        .with_state(binaries)
        .fallback(|| async { nothing() })
        .layer(middleware::from_fn_with_state(hosts, check))
}

/// Whether a path is one of these.
pub fn serves(path: &str) -> bool {
    matches!(path, "/install.sh" | "/install.sh.sha256" | "/healthz") || path.starts_with("/dl/")
}

/// Before anything else: the host, the method, and that there is no body to be read.
async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    if !host(&request).is_some_and(|host| hosts.allows(host)) {
        let told = "this host name is not served here; an operator can add it to `public.hosts`\n";
        return (StatusCode::MISDIRECTED_REQUEST, told).into_response();
    }
    let response = next.run(request).await;
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => nothing(),
        _ => response,
    }
}

fn nothing() -> Response {
    (StatusCode::NOT_FOUND, "there is no such path here\n").into_response()
}

fn plain(body: impl Into<Body>) -> Response {
    text("text/plain; charset=utf-8", body)
}

fn text(kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn sums(State(binaries): State<Binaries>) -> Response {
    match tokio::task::spawn_blocking(move || binaries.sums()).await {
        Ok(Ok(sums)) => plain(sums),
        Ok(Err(error)) => failed(&error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

async fn download(
    State(binaries): State<Binaries>,
    Path((platform, file)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let only_sum = match file.strip_prefix(PROGRAM) {
        Some("") => false,
        Some(".sha256") => true,
        Some(_) | None => return nothing(),
    };
    let Some(platform) = Platform::named(&platform) else { return nothing() };
    match tokio::task::spawn_blocking(move || binaries.open(platform)).await {
        Ok(Ok(Some(binary))) if only_sum => plain(format!("{}  {PROGRAM}\n", binary.sha256)),
        Ok(Ok(Some(binary))) => whole(binary, &headers),
        Ok(Ok(None)) => {
            let told = format!(
                "this master has no agent for {}; its operator is told how to add one by `landline enrol create`\n",
                platform.name()
            );
            (StatusCode::NOT_FOUND, told).into_response()
        }
        Ok(Err(error)) => failed(&error),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// A file that changes underneath is cut at its announced length, and the client's hash says so.
fn whole(binary: Binary, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", binary.sha256);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let file = tokio::fs::File::from_std(binary.file);
        let body =
            Body::from_stream(ReaderStream::with_capacity(tokio::io::AsyncReadExt::take(file, binary.length), PIECE));
        let mut response = text("application/octet-stream", body);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(binary.length));
        response
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn failed(error: &std::io::Error) -> Response {
    tracing::error!(%error, "an agent's binary cannot be read");
    (StatusCode::INTERNAL_SERVER_ERROR, "the master cannot read this file; its log says why\n").into_response()
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

    use super::*;

    struct Answer {
        status: u16,
        headers: HeaderMap,
        body: Vec<u8>,
    }

    async fn ask(router: &Router, request: axum::http::request::Builder) -> Answer {
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap().to_vec();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    fn site(dir: &std::path::Path) -> Router {
        router(Binaries::new(dir.to_owned()), Hosts::only(["master.example".to_owned()]))
    }

    fn get(path: &str) -> axum::http::request::Builder {
        Request::get(path).header(header::HOST, "master.example:443")
    }

    #[tokio::test]
    async fn the_script_is_the_same_bytes_for_every_request() {
        let folder = tempfile::tempdir().unwrap();
        let site = site(folder.path());
        let queries = ["", "?", "?url=https://evil", "?token=$(id)", "?a=%0Aid%0A", "?'\"`;|&"];
        for query in queries {
            let path = format!("/install.sh{}", query.replace(['\'', '"', '`', '|'], "%27"));
            for (name, value) in [("x-forwarded-host", "evil"), ("user-agent", "$(id)"), ("accept-language", "de")] {
                let answer = ask(&site, get(&path).header(name, value)).await;
                assert_eq!((answer.status, answer.body.as_slice()), (200, SCRIPT.as_bytes()), "{path} {name}");
            }
        }
        for path in
            ["/install.sh/", "/INSTALL.SH", "/install.sh/x", "//install.sh", "/install%2esh/..", "/x/../install.sh"]
        {
            let answer = ask(&site, get(path)).await;
            assert!(answer.status == 404 && !answer.body.starts_with(b"#!"), "{path} {}", answer.status);
        }
        let sum = ask(&site, get("/install.sh.sha256")).await;
        assert_eq!(String::from_utf8(sum.body).unwrap()[..64], hex::encode(Sha256::digest(SCRIPT)));
    }

    #[tokio::test]
    async fn the_inside_is_not_there_whatever_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let site = site(folder.path());
        let inside = crate::public::testing::INSIDE;
        for path in inside {
            for path in [path.to_owned(), format!("/{path}"), format!("{path}/"), path.replacen('a', "%61", 1)] {
                for (name, value) in crate::public::testing::LOOPBACK_HEADERS {
                    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
                        let request = get(&path).method(method).header(*name, *value);
                        let answer = ask(&site, request).await;
                        assert_eq!(answer.status, 404, "{method} {path} {name}: {value}");
                    }
                }
            }
        }
        for host in ["localhost", "127.0.0.1:7800", "evil.example", ""] {
            let answer = ask(&site, Request::get("/install.sh").header(header::HOST, host)).await;
            assert_eq!(answer.status, 421, "{host}");
        }
        assert_eq!(ask(&site, Request::get("/install.sh")).await.status, 421);
        let twice = get("/install.sh").header(header::HOST, "localhost");
        assert_eq!(ask(&site, twice).await.status, 421);
    }

    #[tokio::test]
    async fn binaries_come_whole_with_length_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let site = site(folder.path());
        let absent = ask(&site, get("/dl/freebsd-aarch64/landline-agent")).await;
        assert!(absent.status == 404 && String::from_utf8_lossy(&absent.body).contains("no agent for freebsd-aarch64"));
        std::fs::create_dir(folder.path().join("freebsd-aarch64")).unwrap();
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        std::fs::write(folder.path().join("freebsd-aarch64").join(PROGRAM), &bytes).unwrap();
        let answer = ask(&site, get("/dl/freebsd-aarch64/landline-agent")).await;
        let sum = hex::encode(Sha256::digest(&bytes));
        assert!(answer.status == 200 && answer.body == bytes);
        assert_eq!(answer.headers[header::CONTENT_LENGTH], "200000");
        assert_eq!(answer.headers[header::ETAG], format!("\"{sum}\""));
        let again = get("/dl/freebsd-aarch64/landline-agent").header(header::IF_NONE_MATCH, format!("\"{sum}\""));
        assert_eq!(ask(&site, again).await.status, 304);
        let told = ask(&site, get("/dl/freebsd-aarch64/landline-agent.sha256")).await;
        assert_eq!(String::from_utf8(told.body).unwrap(), format!("{sum}  landline-agent\n"));
        let sums = ask(&site, get("/dl/SHA256SUMS")).await;
        assert!(String::from_utf8(sums.body).unwrap().contains(&format!("{sum}  freebsd-aarch64/landline-agent\n")));
        for path in [
            "/dl/freebsd-aarch64/other",
            "/dl/freebsd-aarch64/landline-agent.sig",
            "/dl/../landline.db/landline-agent",
            "/dl/%2e%2e/landline-agent",
            "/dl/freebsd-aarch64%2flandline-agent",
            "/dl/",
            "/dl/freebsd-aarch64",
        ] {
            assert_eq!(ask(&site, get(path)).await.status, 404, "{path}");
        }
    }
}
