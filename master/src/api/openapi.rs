//! The OpenAPI document: generated from the handlers, completed with what every operation shares, served, and committed
//! as docs/openapi.json, which a test holds it to.

use axum::{
    Extension,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use utoipa::{
    OpenApi,
    openapi::{
        ContentBuilder, HttpMethod, ObjectBuilder, OpenApi as Document31, Ref, RefOr, Required, ResponseBuilder, Type,
        path::{Operation, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::{
    cookie,
    problem::{CONTENT_TYPE, Kind, Problem},
    routes::{Entry, Permit, Repeat, entry},
};

const SCHEME: &str = "token";
const SESSION: &str = "session";
/// What every operation may answer beside its own: the guards, the gate and the extractors stand before all of them.
const SHARED: [u16; 14] = [400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500, 503];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Landline",
        description = "The internal API of a Landline master. Errors are `application/problem+json` with a stable `code`.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    components(schemas(Problem)),
    tags(
        (name = "agents", description = "Machines, their state, and work on them"),
        (name = "shells", description = "Terminals on machines, and their recordings"),
        (name = "files", description = "Files on machines"),
        (name = "tunnels", description = "Listeners on the master mapped to targets behind agents"),
        (name = "events", description = "What happened"),
        (name = "tokens", description = "Who may call"),
        (name = "audit", description = "Who did what, in a chain that shows every change"),
        (name = "people", description = "People, their sessions, and their accounts"),
    ),
)]
struct Base;

/// The document before any route.
pub(super) fn base() -> Document31 {
    Base::openapi()
}

/// The whole document.
pub fn document() -> Document31 {
    let (_, document) = super::described().split_for_parts();
    finish(document)
}

/// The document as text, as it is committed and served.
pub fn text(document: &Document31) -> String {
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Adds what all operations share.
pub(super) fn finish(mut document: Document31) -> Document31 {
    let components = document.components.get_or_insert_default();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.security_schemes.insert(SCHEME.to_owned(), scheme);
    let cookie = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(cookie::NAME)));
    components.security_schemes.insert(SESSION.to_owned(), cookie);
    for (path, item) in &mut document.paths.paths {
        let operations = [
            (HttpMethod::Get, &mut item.get),
            (HttpMethod::Post, &mut item.post),
            (HttpMethod::Put, &mut item.put),
            (HttpMethod::Patch, &mut item.patch),
            (HttpMethod::Delete, &mut item.delete),
        ];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                complete(path, &method, operation);
            }
        }
    }
    document
}

fn complete(path: &str, method: &HttpMethod, operation: &mut Operation) {
    for status in SHARED {
        operation.responses.responses.entry(status.to_string()).or_insert_with(|| problem_response(status));
    }
    let method = match method {
        HttpMethod::Get => axum::http::Method::GET,
        HttpMethod::Post => axum::http::Method::POST,
        HttpMethod::Put => axum::http::Method::PUT,
        HttpMethod::Patch => axum::http::Method::PATCH,
        _ => axum::http::Method::DELETE,
    };
    let requirement = |scheme| SecurityRequirement::new(scheme, Vec::<String>::new());
    operation.security = Some(match entry(&method, path) {
        Entry::Known(Permit::Anyone, _) => Vec::new(),
        Entry::Known(Permit::Session, _) => vec![requirement(SESSION)],
        Entry::Known(Permit::Token(_), _) | Entry::OtherMethods(_) | Entry::Missing => {
            vec![requirement(SCHEME), requirement(SESSION)]
        }
    });
    let takes_key = match entry(&method, path) {
        Entry::Known(_, Repeat::Answered | Repeat::AnsweredSecretly | Repeat::Own) => true,
        Entry::Known(_, Repeat::Harmless | Repeat::Refused) | Entry::OtherMethods(_) | Entry::Missing => false,
    };
    if takes_key {
        let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[!-~]{1,255}$"));
        let key = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("The same call under the same key is done once and answered again."))
            .schema(Some(schema));
        operation.parameters.get_or_insert_default().push(key.build());
    }
}

fn problem_response(status: u16) -> RefOr<utoipa::openapi::Response> {
    let codes = Kind::ALL.iter().filter(|kind| kind.status().as_u16() == status).map(|kind| kind.code());
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new()
        .description(codes.collect::<Vec<_>>().join(", "))
        .content(CONTENT_TYPE, content)
        .build()
        .into()
}

/// The served text.
#[derive(Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn new(document: &Document31) -> Self {
        Self(text(document).into())
    }
}

pub(super) async fn serve(Extension(document): Extension<Document>) -> Response {
    let mut response = document.0.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Written anew with `LANDLINE_UPDATE=1 cargo test -p landline openapi`.
    #[test]
    fn the_committed_document_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
        let generated = text(&document());
        if std::env::var_os("LANDLINE_UPDATE").is_some() {
            std::fs::write(&path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == generated,
            "docs/openapi.json differs from the handlers; look at the change, then write it with\n  \
             LANDLINE_UPDATE=1 cargo test -p landline openapi"
        );
    }

    #[test]
    fn every_status_of_a_problem_is_documented() {
        let document = serde_json::to_value(document()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap();
                for status in SHARED {
                    assert!(responses.contains_key(&status.to_string()), "{method} {path}: {status}");
                }
                assert!(operation["operationId"].is_string(), "{method} {path}");
            }
        }
    }
}
