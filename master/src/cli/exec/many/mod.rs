//! One program on many agents, so many at once: streams what they say, stops when too many fail or the operator says so,
//! and ends with who said the same and how each did (SECURITY R20). The stop never waits for a terminal or a pipe.

mod fail_at;
mod groups;
mod outcome;
mod plan;
mod prefixed;
mod report;
mod target;
mod targets;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(super) use self::targets::Many;
use self::{
    groups::Groups,
    outcome::{Outcome, Tally},
    plan::{Plan, Stop},
    report::Line,
    target::{Ran, Shared, View, run_on},
};
use super::{following::Pipe, screen::Screen};
use crate::{
    api::dto::exec::ExecCall,
    cli::{Context, output::Format, stop::StopSignal},
};

const INTERRUPTED: u8 = 130;
/// 128 and SIGPIPE: nobody reads what we print.
const UNREAD: u8 = 141;
/// Names longer than this are not lined up.
const WIDTH_MAX: usize = 24;
/// What an interrupted run still says waits so long for a terminal.
const SAY_WITHIN: Duration = Duration::from_millis(200);

/// Everything about one fan-out.
struct Fan {
    names: Vec<String>,
    plan: Plan,
    shared: Shared,
    tasks: JoinSet<(usize, Ran)>,
    lines: Vec<Line>,
    groups: Groups,
}

/// Runs it on all of them; the exit code of the whole.
pub(super) async fn fan_out(context: &Context, many: &Many, call: ExecCall) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignal::listen()?;
    let names = tokio::select! {
        biased;
        () = stop.wait() => return Ok(INTERRUPTED.into()),
        names = many.targets(&context.client) => names?,
    };
    let (screen, writer) = Screen::open();
    let gone = screen.gone.clone();
    let fail_at = many.fail_at.map(|fail_at| fail_at.count(names.len()));
    let view = match (context.format, many.grouped) {
        (Format::Json, _) => View::Json,
        (Format::Table, true) => View::Grouped,
        (Format::Table, false) => View::Lines { plain: io::stdout().is_terminal() },
    };
    let shared = Shared {
        client: context.client.clone(),
        call: Arc::new(call),
        cancel: CancellationToken::new(),
        screen,
        view,
        width: names.iter().map(String::len).max().unwrap_or(0).min(WIDTH_MAX),
        away_at: Arc::default(),
    };
    let plan = Plan::new(names.len(), usize::from(many.concurrency), fail_at);
    let lines = names.iter().map(|name| Line { agent: name.clone(), outcome: Outcome::NotStarted, duration: None });
    let lines = lines.collect();
    let mut fan = Fan { names, plan, shared, tasks: JoinSet::new(), lines, groups: Groups::default() };
    let (cancel, leave) = (fan.shared.cancel.clone(), CancellationToken::new());
    let _signals = AbortOnDropHandle::new(tokio::spawn(signals(stop, gone, cancel.clone(), leave.clone())));
    while !fan.plan.is_over() {
        fan.start();
        tokio::select! {
            biased;
            () = leave.cancelled() => {
                fan.say("left at once; what was not cancelled yet runs on: landline execs ls").await;
                return Ok(INTERRUPTED.into());
            }
            () = cancel.cancelled(), if fan.plan.stopped() != Some(Stop::Interrupted) => fan.interrupt().await,
            Some(ended) = fan.tasks.join_next() => fan.ended(ended?).await,
        }
    }
    let interrupted = fan.plan.stopped() == Some(Stop::Interrupted);
    let code = fan.report().await;
    let written = tokio::select! {
        biased;
        written = writer.finish(interrupted) => written,
        () = cancel.cancelled(), if !interrupted => return Ok(INTERRUPTED.into()),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(UNREAD.into()),
        written => written.map(|()| code.into()).context("cannot write the output"),
    }
}

/// The first signal, and output that nobody takes any more, cancel; the second leaves.
async fn signals(mut stop: StopSignal, gone: CancellationToken, cancel: CancellationToken, leave: CancellationToken) {
    tokio::select! {
        () = stop.wait() => {}
        () = gone.cancelled() => {}
    }
    cancel.cancel();
    stop.wait().await;
    leave.cancel();
}

impl Fan {
    fn start(&mut self) {
        while let Some(number) = self.plan.start() {
            let (shared, agent) = (self.shared.clone(), self.names[number].clone());
            self.tasks.spawn(async move { (number, run_on(shared, agent).await) });
        }
    }

    async fn interrupt(&mut self) {
        self.plan.interrupt();
        self.say("nothing more is started, and what runs is cancelled; once more leaves at once").await;
    }

    async fn ended(&mut self, (number, ran): (usize, Ran)) {
        let stopped = self.plan.stopped();
        self.plan.ended(&ran.outcome);
        let line = &mut self.lines[number];
        self.groups.add(&line.agent, &ran.outcome, ran.heard);
        (line.outcome, line.duration) = (ran.outcome, Some(ran.duration));
        let quiet = matches!(self.shared.view, View::Lines { .. }) && line.outcome.word() == "ok";
        match self.shared.view {
            View::Json => {
                let text = line.json();
                self.print(text + "\n").await;
            }
            View::Lines { .. } | View::Grouped if quiet => {}
            View::Lines { .. } | View::Grouped => {
                let text = line.text();
                self.say(&text).await;
            }
        }
        if stopped.is_none() && self.plan.stopped() == Some(Stop::FailAt) {
            self.say("too many failed: nothing more is started").await;
        }
    }

    /// The end of it all, and its exit code.
    async fn report(mut self) -> u8 {
        let mut tally = Tally::default();
        self.lines.iter().for_each(|line| tally.add(&line.outcome));
        let (code, stopped) = (self.plan.code(&tally), self.plan.stopped());
        let groups = std::mem::take(&mut self.groups).sorted();
        match self.shared.view {
            View::Json => {
                for line in self.lines.iter().filter(|line| line.duration.is_none()) {
                    self.print(line.json() + "\n").await;
                }
                self.print(report::summary(&self.lines, &tally, stopped, &groups, code) + "\n").await;
            }
            View::Grouped => {
                self.write(report::outputs(&groups)).await;
                self.print(format!("\n{}", report::tables(&self.lines, &tally, stopped, &groups))).await;
            }
            View::Lines { .. } => {
                self.print(format!("\n{}", report::tables(&self.lines, &tally, stopped, &groups))).await;
            }
        }
        code
    }

    async fn say(&self, text: &str) {
        self.bounded(self.shared.screen.say(text)).await;
    }

    async fn print(&self, text: String) {
        self.write(text.into_bytes()).await;
    }

    async fn write(&self, bytes: Vec<u8>) {
        self.bounded(self.shared.screen.write(Pipe::Stdout, bytes)).await;
    }

    /// Nobody waits for a terminal once the operator has stopped it.
    async fn bounded(&self, writing: impl Future<Output = ()>) {
        if self.shared.cancel.is_cancelled() {
            let _ = timeout(SAY_WITHIN, writing).await;
        } else {
            self.shared.cancel.run_until_cancelled(writing).await;
        }
    }
}
