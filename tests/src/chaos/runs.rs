//! Programs in chaos. Each leaves a line in a file of its own when it starts, so that it can be counted how often it ran.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::world::{World, name};
use crate::{api::Api, cli::landline, master::Master, terminal::Terminal};

/// In which every run's end must be known. It is over what any outage of a run lasts.
const KNOWN_WITHIN: Duration = Duration::from_secs(240);
const SHELL_WITHIN: Duration = Duration::from_secs(60);
/// Marks what the programs of a run start; its value is the run's folder.
pub(super) const MARK: &str = "LANDLINE_CHAOS";

/// What the caller was told in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It ran to its end.
    Done,
    /// It was not started, and that for sure.
    Refused(String),
    /// It may have run.
    Unknown(String),
}

pub(super) struct Run {
    pub(super) agent: usize,
    pub(super) mark: PathBuf,
    pub(super) answer: Option<Answer>,
    task: Option<JoinHandle<Answer>>,
}

impl Run {
    /// How often it began.
    pub(super) fn times(&self) -> usize {
        std::fs::read_to_string(&self.mark).map_or(0, |text| text.lines().count())
    }
}

pub(super) struct Runs {
    folder: PathBuf,
    pub(super) all: Vec<Run>,
}

impl Runs {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), all: Vec::new() }
    }

    fn next_mark(&self) -> PathBuf {
        self.folder.join(format!("run-{}", self.all.len()))
    }

    /// Asks for one and lets it go on.
    pub(super) fn start(&mut self, master: &Master, agent: usize, lasts_ms: u64, by_cli: bool) {
        let mark = self.next_mark();
        let line = format!(
            "export {MARK}={}; echo ran >> {}; sleep {}.{:03}",
            self.folder.display(),
            mark.display(),
            lasts_ms / 1000,
            lasts_ms % 1000
        );
        let task = if by_cli {
            let mut command = landline(master, &["exec", &name(agent), "--shell", &line]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            tokio::spawn(told_by_command(command))
        } else {
            tokio::spawn(told_by_api(master.api(), agent, line))
        };
        self.all.push(Run { agent, mark, answer: None, task: Some(task) });
    }

    /// Takes the answers that have come.
    pub(super) async fn collect(&mut self) {
        for run in &mut self.all {
            if run.task.as_ref().is_some_and(JoinHandle::is_finished) {
                run.take().await;
            }
        }
    }

    /// Waits for the rest.
    pub(super) async fn finish(&mut self) {
        for run in &mut self.all {
            if run.task.is_some() {
                run.take().await;
            }
        }
    }

    pub(super) fn summary(&self) -> String {
        let count = |wanted: fn(&Answer) -> bool| {
            self.all.iter().filter_map(|run| run.answer.as_ref()).filter(|answer| wanted(answer)).count()
        };
        let done = count(|answer| *answer == Answer::Done);
        let refused = count(|answer| matches!(answer, Answer::Refused(_)));
        format!("{} programs asked for: {done} done, {refused} refused", self.all.len())
    }
}

impl Run {
    async fn take(&mut self) {
        if let Some(task) = self.task.take() {
            let answer = tokio::time::timeout(KNOWN_WITHIN, task).await.expect("the answer to an exec comes");
            let answer = answer.expect("its task");
            self.answer = Some(answer);
        }
    }
}

async fn told_by_api(api: Api, agent: usize, line: String) -> Answer {
    let request = api.request(Method::POST, &format!("/agents/{}/exec", name(agent))).json(&json!({ "shell": line }));
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Answer::Unknown(format!("{error:#}")),
    };
    let status = response.status();
    let Ok(text) = response.text().await else { return Answer::Unknown("broke off".to_owned()) };
    if !status.is_success() {
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or_default().to_owned();
        let sure = matches!(code.as_str(), "agent_offline" | "suspended" | "agent_suspended");
        return if sure { Answer::Refused(code) } else { Answer::Unknown(code) };
    }
    let last: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if last["type"] == "exit" && last["code"] == 0 { Answer::Done } else { Answer::Unknown(last.to_string()) }
}

/// The command comes back by itself after whatever cut it off.
async fn told_by_command(command: std::process::Command) -> Answer {
    let mut command = tokio::process::Command::from(command);
    match command.kill_on_drop(true).output().await {
        Ok(output) if output.status.success() => Answer::Done,
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            if why.contains("(agent_offline)") { Answer::Refused(why) } else { Answer::Unknown(why) }
        }
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

/// A terminal whose output is known in advance, whole and in order, once it was opened at all.
pub(super) async fn shell(world: &mut World, agent: usize) {
    let api = world.master.api();
    let body = json!({ "cols": 80, "rows": 24, "shell": "seq 1 400; exit 7" });
    let (status, answer) = api.call(Method::POST, &format!("/agents/{}/shells", name(agent)), Some(body)).await;
    let Some(id) = answer["id"].as_str().filter(|_| status == 201) else { return };
    let seen = tokio::time::timeout(SHELL_WITHIN, shown(&api, id)).await.expect("a shell shows its output");
    let expected: String = (1..=400).map(|number| format!("{number}\n")).collect();
    assert!(seen.0 == expected, "a shell showed {:?}", seen.0);
    assert_eq!(seen.1, 7, "its exit");
    world.did("shell.start", id);
    world.done.shells += 1;
}

async fn shown(api: &Api, id: &str) -> (String, Value) {
    let mut terminal = Terminal::attach(api, id, "offset=0").await.unwrap_or_else(|why| panic!("not attached: {why}"));
    let exit = terminal.exit().await;
    (String::from_utf8_lossy(&terminal.shown).replace('\r', ""), exit["code"].clone())
}
