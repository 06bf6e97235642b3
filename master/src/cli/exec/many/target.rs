//! One of many: its run, what is shown of it while it runs, and its outcome.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        following::{FollowError, Following, Pipe, Told},
        run::{Audience, RunError, run},
        screen::Screen,
        single::as_line,
    },
    groups::Heard,
    outcome::Outcome,
    prefixed::Prefixed,
};
use crate::{
    api::dto::{
        exec::{ExecCall, ExecLine},
        shell::LineState,
    },
    cli::{
        client::{CallError, Client},
        is_passing,
        patience::Patience,
    },
};

/// Agents come back within this time when their master does.
const AGENTS_BACK_WITHIN: Duration = Duration::from_secs(20);
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is shown while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    /// Lines under the agents' names; `plain` on a terminal.
    Lines {
        plain: bool,
    },
    /// Nothing.
    Grouped,
    Json,
}

/// What all of them share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) call: Arc<ExecCall>,
    pub(super) cancel: CancellationToken,
    pub(super) screen: Screen,
    pub(super) view: View,
    /// Width of the names.
    pub(super) width: usize,
    /// When the master was found to be away.
    pub(super) away_at: Arc<Mutex<Option<Instant>>>,
}

/// How it went.
pub(super) struct Ran {
    pub(super) outcome: Outcome,
    pub(super) heard: Heard,
    pub(super) duration: Duration,
}

/// An event of one agent, as JSON.
#[derive(Debug, Serialize)]
struct Event<'a> {
    agent: &'a str,
    #[serde(flatten)]
    line: ExecLine,
}

/// Runs it once. What surely was not started because the master is away is started when it is back.
pub(super) async fn run_on(shared: Shared, agent: String) -> Ran {
    let begun = Instant::now();
    let mut listener = Listener::new(&shared, agent.clone());
    let mut patience = Patience::begun();
    let ended = loop {
        let following = Following::start(&shared.client, &agent, shared.call.clone());
        let ended = run(&shared.client, following, &shared.cancel, &mut listener).await;
        match ended {
            Err(RunError::Follow(FollowError::Refused(error))) if is_passing(&error) => {
                shared.cancel.run_until_cancelled(shared.master_is_away()).await;
                match shared.cancel.run_until_cancelled(patience.wait(error)).await {
                    None => break Err(RunError::NotStarted),
                    Some(Ok(())) => {}
                    Some(Err(error)) => break Err(FollowError::Refused(error).into()),
                }
            }
            Err(RunError::Follow(FollowError::Refused(CallError::Problem(problem))))
                if problem.code == "agent_offline" && shared.was_away_lately() =>
            {
                if shared.cancel.run_until_cancelled(tokio::time::sleep(AGAIN_AFTER)).await.is_none() {
                    break Err(RunError::NotStarted);
                }
            }
            ended => break ended,
        }
    };
    let outcome = Outcome::of(ended, shared.cancel.is_cancelled());
    let heard = listener.end().await;
    Ran { outcome, heard, duration: begun.elapsed() }
}

impl Shared {
    /// Said once, whoever finds it.
    async fn master_is_away(&self) {
        let known = self.was_away_lately();
        *self.away_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        if !known {
            self.screen.say("the master is away; what was started runs on, waiting for it").await;
        }
    }

    fn was_away_lately(&self) -> bool {
        let at = *self.away_at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < AGENTS_BACK_WITHIN)
    }
}

/// Hears one agent.
struct Listener {
    agent: String,
    shared: Shared,
    heard: Heard,
    out: Prefixed,
    err: Prefixed,
}

impl Listener {
    fn new(shared: &Shared, agent: String) -> Self {
        let prefix = format!("{agent:width$} | ", width = shared.width);
        let plain = shared.view == View::Lines { plain: true };
        let heard = Heard::new(shared.view == View::Grouped);
        let (out, err) = (Prefixed::new(&prefix, plain), Prefixed::new(&prefix, plain));
        Self { agent, shared: shared.clone(), heard, out, err }
    }

    /// Shows the last line, if it was not ended.
    async fn end(mut self) -> Heard {
        if matches!(self.shared.view, View::Lines { .. }) && !self.shared.cancel.is_cancelled() {
            for (pipe, rest) in [(Pipe::Stdout, self.out.end()), (Pipe::Stderr, self.err.end())] {
                self.show(pipe, rest).await;
            }
        }
        self.heard
    }

    async fn show(&self, pipe: Pipe, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.shared.screen.write(pipe, bytes).await;
        }
    }
}

impl Audience for Listener {
    async fn hear(&mut self, told: Told) {
        if let Told::Output(pipe, bytes) = &told {
            self.heard.hear(*pipe, bytes);
        }
        if let Told::Master(Err(_)) = &told {
            self.shared.master_is_away().await;
        }
        match (self.shared.view, told) {
            (View::Json, told) => {
                let Some(line) = as_line(told) else { return };
                let mut text = serde_json::to_vec(&Event { agent: &self.agent, line }).unwrap_or_default();
                text.push(b'\n');
                self.show(Pipe::Stdout, text).await;
            }
            (View::Lines { .. }, Told::Output(pipe, bytes)) => {
                let lines = if pipe == Pipe::Stdout { self.out.push(&bytes) } else { self.err.push(&bytes) };
                self.show(pipe, lines).await;
            }
            (_, Told::Line(LineState::Lost)) => {
                self.shared.screen.say(&format!("{}: its line is lost; waiting for it", self.agent)).await;
            }
            (_, _) => {}
        }
    }
}
