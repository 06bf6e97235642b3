//! The pages behind the login, as a firewall has them.

use http_body_util::BodyExt as _;
use hyper::{Method, Request, StatusCode, body::Incoming, header};

use super::{Answer, State, cookie, html, redirect, text, with_type};

pub const USER: &str = "root";
pub const PASSWORD: &str = "opnsense";

pub(super) async fn answer(request: Request<Incoming>, state: &State) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/login.php") => login(request, state).await,
        (_, "/login.php") => html(form(state, "")),
        (_, "/logout.php") => {
            if let Some(id) = cookie(&request, "PHPSESSID") {
                state.sessions().remove(&id);
            }
            redirect(&format!("{}/login.php", state.origin))
        }
        (_, "/api/status") => status(&request, state),
        // With scheme and host, as old firewalls do.
        _ if !state.is_logged_in(&request) => redirect(&format!("{}/login.php", state.origin)),
        _ => html(dashboard(state)),
    }
}

async fn login(request: Request<Incoming>, state: &State) -> Answer {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let field = |name: &str| body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    if field("csrf") != Some(state.csrf.as_str()) {
        return text(StatusCode::FORBIDDEN, "CSRF check failed");
    }
    if (field("user"), field("password")) != (Some(USER), Some(PASSWORD)) {
        return html(form(state, "Wrong user or password"));
    }
    let id = hex::encode(rand::random::<[u8; 16]>());
    state.sessions().insert(id.clone());
    let mut answer = redirect(&format!("{}/index.php", state.origin));
    for cookie in [
        format!("PHPSESSID={id}; Path=/; Secure; HttpOnly; SameSite=Lax"),
        theme(&state.name, &state.authorities[0]),
        everywhere(&state.name),
    ] {
        answer.headers_mut().append(header::SET_COOKIE, cookie.parse().expect("a cookie"));
    }
    answer
}

/// With a `Domain`, as some panels set it: a proxy that lets it pass gives it to every sibling.
fn theme(name: &str, authority: &str) -> String {
    let host = authority.split(':').next().unwrap_or_default();
    format!("theme={name}; Path=/; Domain={host}")
}

/// For the parent domain of all tunnels, as a hostile or careless target might.
fn everywhere(name: &str) -> String {
    format!("everywhere={name}; Path=/; Domain=gw.test")
}

fn status(request: &Request<Incoming>, state: &State) -> Answer {
    let has = |name: &str, value: &str| request.headers().get(name).is_some_and(|found| found == value);
    if !state.is_logged_in(request) {
        return text(StatusCode::UNAUTHORIZED, "log in first");
    }
    if !has("x-requested-with", "XMLHttpRequest") || !has("x-csrftoken", &state.csrf) {
        return text(StatusCode::FORBIDDEN, "not an AJAX call of this page");
    }
    let name = serde_json::json!({ "name": state.name, "status": "ok" });
    with_type(StatusCode::OK, "application/json", name.to_string())
}

fn form(state: &State, error: &str) -> String {
    format!(
        "<!doctype html><html><head><title>Login | {name}</title></head><body><h1 id=\"name\">{name}</h1>\
         <p id=\"error\">{error}</p><form method=\"post\" action=\"/login.php\">\
         <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\"><input name=\"user\" id=\"user\">\
         <input name=\"password\" id=\"password\" type=\"password\"><button id=\"login\">Login</button></form></body></html>",
        name = state.name,
        csrf = state.csrf,
    )
}

/// What it shows by script: `#clock` from the WebSocket, `#status` from AJAX, `#event` from SSE, `#cookies`.
fn dashboard(state: &State) -> String {
    let script = "
        const put = (id, text) => document.getElementById(id).textContent = text;
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
        socket.onmessage = message => put('clock', message.data);
        new EventSource('/events').onmessage = event => put('event', event.data);
        fetch('/api/status', {headers: {'X-Requested-With': 'XMLHttpRequest', 'X-CSRFToken': CSRF}})
          .then(answer => answer.json()).then(answer => put('status', answer.name + ' ' + answer.status));
        put('cookies', document.cookie);";
    format!(
        "<!doctype html><html><head><title>Dashboard | {name}</title></head><body><h1 id=\"name\">{name}</h1>\
         <p id=\"welcome\">Logged in</p><p id=\"clock\"></p><p id=\"status\"></p><p id=\"event\"></p><p id=\"cookies\"></p>\
         <a id=\"logout\" href=\"/logout.php\">Logout</a><script>const CSRF = '{csrf}';{script}</script></body></html>",
        name = state.name,
        csrf = state.csrf,
    )
}
