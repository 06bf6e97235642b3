//! `landline events`: follows what happens, over restarts of the master.

use std::{process::ExitCode, time::Duration};

use clap::Args;

use super::{
    Context,
    client::CallError,
    is_passing,
    output::{self, Format},
    stop::StopSignal,
};
use crate::api::dto::event::{Event, EventQuery};

const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest line of the stream taken.
const LINE_MAX: usize = 256 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline events
  landline events --since 0 --count 100 -o json")]
pub(super) struct Events {
    /// Begin behind this cursor; 0 is everything still kept
    #[arg(long, value_name = "CURSOR")]
    since: Option<String>,
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
    /// End after this many
    #[arg(long)]
    count: Option<u64>,
}

impl Events {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        tokio::select! {
            biased;
            () = stop.wait() => Ok(ExitCode::SUCCESS),
            ended = self.follow(&context) => ended.map(|()| ExitCode::SUCCESS),
        }
    }

    async fn follow(mut self, context: &Context) -> anyhow::Result<()> {
        let mut left = self.count.unwrap_or(u64::MAX);
        let mut connected = false;
        while left > 0 {
            match self.follow_once(context, &mut left, &mut connected).await {
                Ok(()) => {}
                // Told once it works; a master that was never there is an error at once.
                Err(error) if connected && error.downcast_ref::<CallError>().is_some_and(is_passing) => {}
                Err(error) => return Err(error),
            }
            if left > 0 {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
        Ok(())
    }

    async fn follow_once(&mut self, context: &Context, left: &mut u64, connected: &mut bool) -> anyhow::Result<()> {
        let query = EventQuery { cursor: self.since.clone() };
        let mut response = context.client.stream("/events", &query, None).await?;
        *connected = true;
        let mut reader = SseReader::default();
        while let Some(piece) = response.chunk().await.map_err(|error| context.client.cut(&error))? {
            for data in reader.push(&piece)? {
                let event: Event = serde_json::from_str(&data)?;
                self.since = Some(event.id.to_string());
                if self.agent.is_some() && self.agent != event.agent_id {
                    continue;
                }
                show(context.format, &event, &data)?;
                *left -= 1;
                if *left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn show(format: Format, event: &Event, data: &str) -> anyhow::Result<()> {
    let text = match format {
        Format::Json => data.to_owned(),
        Format::Table => {
            let subject = [event.agent_id.as_deref(), event.tunnel_id.as_deref()];
            let subject = subject.into_iter().flatten().collect::<Vec<_>>().join(" ");
            let reason = event.reason.as_deref().unwrap_or_default();
            let detail = if event.detail.is_null() { String::new() } else { event.detail.to_string() };
            let line = format!("{} {:<20} {subject} {reason} {detail}", event.at.0, event.kind);
            output::plain(line.trim_end())
        }
    };
    Ok(output::line(&text)?)
}

/// Collects the `data:` of server-sent events, whatever pieces they came in.
#[derive(Default)]
struct SseReader {
    rest: Vec<u8>,
    data: String,
}

impl SseReader {
    fn push(&mut self, piece: &[u8]) -> anyhow::Result<Vec<String>> {
        self.rest.extend_from_slice(piece);
        let mut events = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|b| *b == b'\n') {
            let line = std::str::from_utf8(&self.rest[begin..begin + length])?.trim_end_matches('\r');
            if line.is_empty() && !self.data.is_empty() {
                events.push(std::mem::take(&mut self.data));
            } else if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.trim_start());
            }
            begin += length + 1;
        }
        self.rest.drain(..begin);
        anyhow::ensure!(self.rest.len() + self.data.len() <= LINE_MAX, "an event is longer than {LINE_MAX} bytes");
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_in_any_pieces() {
        let mut reader = SseReader::default();
        assert!(reader.push(b": keep-alive\n\nid: 7\nda").unwrap().is_empty());
        assert_eq!(reader.push(b"ta: {\"a\":1}\n\ndata: {}\r\n\r\n").unwrap(), ["{\"a\":1}", "{}"]);
    }
}
