//! WebSockets of the HTTP API as the command line opens them.

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use super::client::{CONNECT_WITHIN, CallError, Client};
use crate::api::problem::Problem;

pub(crate) type WebSocket = WebSocketStream<TcpStream>;

const MESSAGE_MAX: usize = 256 * 1024;

impl Client {
    /// Opens a WebSocket at a path below `/api/v1`, query included.
    pub(crate) async fn websocket(&self, path: &str) -> Result<WebSocket, CallError> {
        let unreachable = |cause: String| CallError::Unreachable { url: self.url.clone(), cause };
        let authority = self.url.trim_start_matches("http://");
        let address = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let connect = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(&address));
        let socket = match connect.await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(CallError::Silent { url: self.url.clone() }),
        };
        let _ = socket.set_nodelay(true);
        let request = format!("ws://{authority}/api/v1{path}").into_client_request();
        let mut request = request.map_err(|error| unreachable(error.to_string()))?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_secret()))
            .map_err(|error| unreachable(error.to_string()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
        let upgrade = client_async_with_config(request, socket, Some(config));
        match tokio::time::timeout(super::client::ANSWER_WITHIN, upgrade).await {
            Ok(Ok((websocket, _))) => Ok(websocket),
            Ok(Err(tungstenite::Error::Http(response))) => Err(self.refused(&response)),
            Ok(Err(error)) => Err(CallError::Cut { url: self.url.clone(), cause: error.to_string() }),
            Err(_) => Err(CallError::Silent { url: self.url.clone() }),
        }
    }

    fn refused(&self, response: &tungstenite::http::Response<Option<Vec<u8>>>) -> CallError {
        let body = response.body().as_deref().unwrap_or_default();
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) => CallError::Problem(Box::new(problem)),
            Err(_) => CallError::Foreign {
                url: self.url.clone(),
                status: StatusCode::from_u16(response.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY),
            },
        }
    }
}
