//! `landline shell`: this terminal becomes one on an agent. Outlives the connection to the master: it comes back at the
//! byte where it was.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::Args;
use futures_util::{SinkExt, StreamExt, stream::SplitStream};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Context, EXEC_FAILED,
    client::{CallError, segment},
    is_passing, output,
    stop::StopSignal,
    terminal::{self, Raw},
    websocket::WebSocket,
};
use crate::api::dto::shell::{FromViewer, LineState, NewShell, Shell as Row, ToViewer};

/// Ctrl-].
const DETACH: u8 = 0x1d;
/// Ctrl-C, which a raw terminal does not act on.
const INTERRUPT: u8 = 0x03;
/// How long a master that is away is waited for.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Shown output is acknowledged in steps of this many bytes at most, and whenever there is no more.
const ACK_EVERY: u64 = 64 * 1024;
/// How long after the last of what was shown again its answers may come.
const DEAF_FOR: Duration = Duration::from_millis(150);
const PIECES: usize = 16;
/// How long the last message may take to learn what it says.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline shell home-1
  landline shell home-1 --attach 0b8e6f3a-…     go on with a session that runs
  landline shell home-1 --attach 0b8e6f3a-… --watch

Ctrl-] leaves the session running; what it printed meanwhile, up to 1 MiB, is there when you come back within ten minutes.
A lost line or a restarted master is waited for. Exit code: the shell's own, 128 + n if signal n ended it, 255 if it could
not be opened or followed, 0 after Ctrl-].")]
pub(super) struct Shell {
    /// The agent's name
    agent: String,
    /// Go on with this session instead of opening one
    #[arg(long, value_name = "ID")]
    attach: Option<String>,
    /// Only look; Ctrl-] or Ctrl-C leaves
    #[arg(long, requires = "attach")]
    watch: bool,
    /// End it when nothing was typed for this long: 10m
    #[arg(long, value_parser = output::parse_seconds)]
    idle: Option<u32>,
    /// Set a variable for the shell, as far as the owner's policy lets it; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = super::exec::parse_variable)]
    env: Vec<(String, String)>,
}

impl Shell {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let begun_before = self.attach.is_some();
        let id = match self.attach {
            Some(id) => {
                let there = agent_of(&context, &id).await?;
                if there != self.agent {
                    bail!("that session is on {there}: landline shell {there} --attach {id}");
                }
                id
            }
            None => {
                let new = NewShell { env: self.env.into_iter().collect(), idle_s: self.idle, ..on_this_terminal() };
                open(&context, &self.agent, &new).await?
            }
        };
        follow(&context, &id, self.watch, begun_before).await
    }
}

/// A session as this terminal would have it.
pub(super) fn on_this_terminal() -> NewShell {
    let size = terminal::size();
    NewShell { cols: size.cols, rows: size.rows, term: terminal::term(), ..NewShell::default() }
}

pub(super) async fn open(context: &Context, agent: &str, new: &NewShell) -> anyhow::Result<String> {
    let row: Row = context.client.post_once(&format!("/agents/{}/shells", segment(agent)), new).await?;
    Ok(row.id)
}

/// The agent that a session is on.
async fn agent_of(context: &Context, id: &str) -> Result<String, CallError> {
    let row: Row = context.client.get(&format!("/shells/{}", segment(id)), &()).await?;
    Ok(row.agent_id)
}

/// What ends following a session.
enum Over {
    Exit(ExitCode),
    Detached,
    /// The connection to the master.
    Lost(String),
}

struct Following<'a> {
    context: &'a Context,
    id: &'a str,
    watch: bool,
    /// Bytes of output that were shown; `None` before the first.
    offset: Option<u64>,
    acked: u64,
    begun_before: bool,
    /// Output up to here is of earlier: what this terminal answers to it would be typed.
    history: u64,
    deaf_until: Option<Instant>,
    typed: mpsc::Receiver<Vec<u8>>,
    input_open: bool,
    raw: Option<Raw>,
}

/// Follows the session to its end, or until it is left running. `begun_before`: it has a history.
pub(super) async fn follow(context: &Context, id: &str, watch: bool, begun_before: bool) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignal::listen()?;
    let (keys, typed) = mpsc::channel(PIECES);
    // Who only looks has a raw terminal as well: nothing typed is echoed into the picture, and it is reset at the end.
    let raw = Raw::enter()?;
    let listens = !watch || raw.is_some();
    let reading = tokio::spawn(read_keys(keys));
    let mut following = Following {
        context,
        id,
        watch,
        offset: None,
        acked: 0,
        begun_before,
        history: 0,
        deaf_until: None,
        typed,
        input_open: listens,
        raw,
    };
    let over = tokio::select! {
        biased;
        () = stop.wait() => Ok(Over::Detached),
        over = following.run() => over,
    };
    reading.abort();
    let was_terminal = following.raw.take().is_some();
    match over? {
        Over::Exit(code) => Ok(code),
        Over::Detached if watch => Ok(ExitCode::SUCCESS),
        Over::Detached if was_terminal => {
            let agent = tokio::time::timeout(TOLD_WITHIN, agent_of(context, id)).await;
            let agent = agent.ok().and_then(Result::ok).unwrap_or_else(|| "AGENT".to_owned());
            output::say(&format!("landline: left running; come back with: landline shell {agent} --attach {id}"));
            Ok(ExitCode::SUCCESS)
        }
        Over::Detached => Ok((128 + 2).into()),
        Over::Lost(cause) => bail!("the master is gone: {cause}; the session goes on, come back with --attach {id}"),
    }
}

impl Following<'_> {
    async fn run(&mut self) -> anyhow::Result<Over> {
        let mut give_up: Option<Instant> = None;
        loop {
            let mode = if self.watch { "watch" } else { "write" };
            let offset = self.offset.map(|offset| format!("&offset={offset}")).unwrap_or_default();
            let path = format!("/shells/{}/attach?mode={mode}{offset}", segment(self.id));
            let cause = match self.context.client.websocket(&path).await {
                Ok(websocket) => {
                    if give_up.take().is_some() {
                        self.say("the master is back");
                    }
                    match self.attached(websocket).await? {
                        Over::Lost(cause) => cause,
                        over => return Ok(over),
                    }
                }
                Err(error) if self.offset.is_some() && is_passing(&error) => error.to_string(),
                Err(error) => return Err(error.into()),
            };
            let now = Instant::now();
            match give_up {
                None => {
                    self.say("the connection to the master was lost; the session goes on, waiting for the master");
                    give_up = Some(now + GIVE_UP_AFTER);
                }
                Some(at) if now >= at => return Ok(Over::Lost(cause)),
                Some(_) => {}
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// One connection to the master, as long as it lasts.
    async fn attached(&mut self, websocket: WebSocket) -> anyhow::Result<Over> {
        let (mut sink, mut source) = websocket.split();
        let mut resized = signal(SignalKind::window_change())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        if !self.watch {
            let size = terminal::size();
            let _ = sink.send(text(&FromViewer::Resize { cols: size.cols, rows: size.rows })).await;
        }
        loop {
            let shown = self.offset.unwrap_or(0);
            let waiting = shown > self.acked;
            let message = tokio::select! {
                biased;
                _ = hung_up.recv() => return Ok(Over::Detached),
                keys = self.typed.recv(), if self.input_open => match keys {
                    Some(keys) if self.leaves(&keys) => return Ok(Over::Detached),
                    Some(_) if self.watch || self.is_deaf() => None,
                    Some(keys) => Some(Message::Binary(keys.into())),
                    // A script's input is at its end: so is the terminal's.
                    None => {
                        self.input_open = false;
                        (!self.watch).then(|| Message::Binary(vec![4].into()))
                    }
                },
                _ = resized.recv(), if !self.watch => {
                    let size = terminal::size();
                    Some(text(&FromViewer::Resize { cols: size.cols, rows: size.rows }))
                }
                message = source.next() => match message {
                    Some(Ok(message)) => match self.hear(message)? {
                        Some(over) => return Ok(over),
                        None if self.offset.unwrap_or(0) >= self.acked + ACK_EVERY => Some(self.ack()),
                        None => None,
                    },
                    Some(Err(error)) => return Ok(Over::Lost(error.to_string())),
                    None => return Ok(Over::Lost("it closed the connection".into())),
                },
                () = std::future::ready(()), if waiting => Some(self.ack()),
            };
            if let Some(message) = message
                && let Err(error) = sink.send(message).await
            {
                return self.last_words(source, error.to_string()).await;
            }
        }
    }

    /// What the master said before it hung up on us is still to be heard, and may be the session's end.
    async fn last_words(&mut self, mut source: SplitStream<WebSocket>, cause: String) -> anyhow::Result<Over> {
        let deadline = Instant::now() + TOLD_WITHIN;
        while let Ok(Some(Ok(message))) = tokio::time::timeout_at(deadline, source.next()).await {
            if let Some(over) = self.hear(message)? {
                return Ok(over);
            }
        }
        Ok(Over::Lost(cause))
    }

    /// Whether these keys leave the session to itself.
    fn leaves(&self, keys: &[u8]) -> bool {
        self.raw.is_some() && (keys.contains(&DETACH) || self.watch && keys.contains(&INTERRUPT))
    }

    /// While the terminal may still be answering questions that a program asked before we came.
    fn is_deaf(&self) -> bool {
        self.begun_before && self.offset.is_none_or(|offset| offset < self.history)
            || self.deaf_until.is_some_and(|until| Instant::now() < until)
    }

    fn ack(&mut self) -> Message {
        self.acked = self.offset.unwrap_or(0);
        text(&FromViewer::Ack { offset: self.acked })
    }

    fn hear(&mut self, message: Message) -> anyhow::Result<Option<Over>> {
        match message {
            Message::Binary(bytes) if bytes.len() >= 8 => {
                let mut out = io::stdout().lock();
                out.write_all(&bytes[8..]).and_then(|()| out.flush())?;
                let offset = u64::from_be_bytes(bytes[..8].try_into().unwrap_or_default());
                let shown = offset + bytes.len() as u64 - 8;
                if offset < self.history && shown >= self.history && self.raw.is_some() {
                    self.deaf_until = Some(Instant::now() + DEAF_FOR);
                }
                self.offset = Some(shown);
            }
            Message::Text(text) => return Ok(self.told(serde_json::from_str(&text)?)),
            Message::Close(frame) => {
                let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                match reason.as_str() {
                    "taken_over" => bail!("somebody else with the same token types there now"),
                    "unauthorized" => bail!("the token was revoked or ran out"),
                    other => return Ok(Some(Over::Lost(other.to_owned()))),
                }
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
        Ok(None)
    }

    fn told(&mut self, message: ToViewer) -> Option<Over> {
        match message {
            ToViewer::Attached { offset, lost, end, .. } => {
                if self.begun_before && self.offset.is_none() && self.raw.is_some() {
                    self.history = end;
                }
                if lost > 0 {
                    self.say(&format!("{lost} bytes of output are gone"));
                }
                (self.offset, self.acked) = (Some(offset), offset);
            }
            ToViewer::Lost { bytes, offset } => {
                self.say(&format!("{bytes} bytes of output are gone"));
                self.offset = Some(offset);
            }
            ToViewer::Line { state: LineState::Lost } => self.say("the agent's line is lost; waiting for it"),
            ToViewer::Line { state: LineState::Back } => self.say("the agent is back"),
            ToViewer::Resized { .. } => {}
            ToViewer::Exit { code: Some(code), .. } => {
                return Some(Over::Exit(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(EXEC_FAILED))));
            }
            ToViewer::Exit { signal: Some(signal), .. } => {
                let code = u8::try_from(signal).ok().and_then(|signal| signal.checked_add(128));
                return Some(Over::Exit(code.unwrap_or(EXEC_FAILED).into()));
            }
            ToViewer::Exit { reason, .. } => {
                self.say(&format!("the session was ended: {reason}"));
                return Some(Over::Exit(EXEC_FAILED.into()));
            }
        }
        None
    }

    /// Beside the session's own output, on a line of its own.
    fn say(&self, text: &str) {
        if self.raw.is_some() {
            output::say(&format!("\r\nlandline: {text}\r"));
        } else {
            output::say(&format!("landline: {text}"));
        }
    }
}

async fn read_keys(keys: mpsc::Sender<Vec<u8>>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        if keys.send(buffer[..count].to_vec()).await.is_err() {
            return;
        }
    }
}

fn text(message: &FromViewer) -> Message {
    Message::text(serde_json::to_string(message).unwrap_or_default())
}
