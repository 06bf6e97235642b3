//! An answer that comes as lines of JSON, one at a time.

use std::time::Duration;

use reqwest::Response;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of one answer.
pub struct Lines {
    response: Response,
    rest: Vec<u8>,
}

impl Lines {
    pub fn new(response: Response) -> Self {
        Self { response, rest: Vec::new() }
    }

    /// The next line; `None` at the end of the connection, clean or not.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("a line");
            self.rest.extend(piece.ok()??);
        }
    }
}
