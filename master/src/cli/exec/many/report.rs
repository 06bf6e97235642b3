//! What is said when all of them are done: who answered the same, and how each did.

use std::time::Duration;

use serde::Serialize;

use super::{
    groups::Group,
    outcome::{Outcome, Tally},
    plan::Stop,
};
use crate::cli::output;

/// Names in one row of the table of groups.
const NAMES_MAX: usize = 8;

/// How one of them did.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) agent: String,
    pub(super) outcome: Outcome,
    pub(super) duration: Option<Duration>,
}

/// The last line about one agent, as JSON.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    agent: &'a str,
    r#type: &'static str,
    result: &'static str,
    exit_code: Option<i32>,
    duration_ms: Option<u64>,
    detail: Option<&'a str>,
}

/// The last line of all, as JSON.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    r#type: &'static str,
    agents: usize,
    #[serde(flatten)]
    tally: &'a Tally,
    stopped: Option<Stop>,
    groups: &'a [Group],
    exit_code: u8,
}

impl Line {
    pub(super) fn json(&self) -> String {
        let exit_code = if let Outcome::Exit(exit) = &self.outcome { exit.code } else { None };
        json(&Ended {
            agent: &self.agent,
            r#type: "result",
            result: self.outcome.word(),
            exit_code,
            duration_ms: self.duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
            detail: self.outcome.detail(),
        })
    }

    /// For people, as it happens.
    pub(super) fn text(&self) -> String {
        let exit = match &self.outcome {
            Outcome::Exit(_) => format!(", exit {}", self.outcome.exit()),
            _ => String::new(),
        };
        let detail = self.outcome.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        format!("{} {}{exit} ({}){}", self.agent, self.word(), self.took(), output::plain(&detail))
    }

    fn word(&self) -> String {
        self.outcome.word().replace('_', " ")
    }

    fn took(&self) -> String {
        output::or_dash(self.duration.map(|duration| format!("{:.1} s", duration.as_secs_f64())))
    }
}

pub(super) fn summary(lines: &[Line], tally: &Tally, stopped: Option<Stop>, groups: &[Group], exit_code: u8) -> String {
    json(&Summary { r#type: "summary", agents: lines.len(), tally, stopped, groups, exit_code })
}

/// Each different output once, under those who said it.
pub(super) fn outputs(groups: &[Group]) -> Vec<u8> {
    let mut text = Vec::new();
    for group in groups {
        text.extend(format!("=== {} ===\n", title(group)).into_bytes());
        text.extend_from_slice(&group.kept);
        if group.kept.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        let missing = group.output_bytes - group.kept.len() as u64;
        if missing > 0 {
            text.extend(format!("=== {} more are not kept ===\n", output::bytes(missing)).into_bytes());
        }
    }
    text
}

/// The tables at the end.
pub(super) fn tables(lines: &[Line], tally: &Tally, stopped: Option<Stop>, groups: &[Group]) -> String {
    let mut text = String::new();
    if groups.iter().any(|group| group.agents.len() > 1) {
        let rows = groups.iter().map(|group| {
            let exit = Outcome::Exit(group.exit.clone()).exit();
            vec![group.agents.len().to_string(), exit, output::bytes(group.output_bytes), names(group)]
        });
        text.push_str(&output::table(&["ALIKE", "EXIT", "OUTPUT", "AGENTS"], rows));
        text.push_str("\n\n");
    }
    let rows = lines.iter().map(|line| {
        let detail = output::or_dash(line.outcome.detail());
        vec![line.agent.clone(), line.word(), line.outcome.exit(), line.took(), detail]
    });
    text.push_str(&output::table(&["AGENT", "RESULT", "EXIT", "TOOK", "DETAIL"], rows));
    let stopped = match stopped {
        None => "",
        Some(Stop::FailAt) => "; stopped by --fail-at",
        Some(Stop::Interrupted) => "; interrupted",
    };
    text.push_str(&format!("\n\n{} agents: {}{stopped}\n", lines.len(), counts(tally)));
    text
}

fn title(group: &Group) -> String {
    let exit = Outcome::Exit(group.exit.clone()).exit();
    format!(
        "{} agent{}, exit {exit}: {}",
        group.agents.len(),
        if group.agents.len() == 1 { "" } else { "s" },
        names(group)
    )
}

fn names(group: &Group) -> String {
    let mut names = group.agents.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    if group.agents.len() > NAMES_MAX {
        names.push_str(&format!(" and {} more", group.agents.len() - NAMES_MAX));
    }
    names
}

fn counts(tally: &Tally) -> String {
    let counts = [
        (tally.ok, "ok"),
        (tally.failed, "failed"),
        (tally.offline, "offline"),
        (tally.refused, "refused"),
        (tally.unknown, "unknown"),
        (tally.cancelled, "cancelled"),
        (tally.not_started, "not started"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    told.collect::<Vec<_>>().join(", ")
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_it_in_words_and_as_json() {
        let line = |outcome| Line { agent: "home-1".into(), outcome, duration: Some(Duration::from_millis(1240)) };
        let exit = crate::api::dto::exec::Exit { code: Some(3), ..Default::default() };
        let failed = line(Outcome::Exit(exit));
        assert_eq!(failed.text(), "home-1 failed, exit 3 (1.2 s)");
        assert_eq!(
            failed.json(),
            r#"{"agent":"home-1","type":"result","result":"failed","exit_code":3,"duration_ms":1240,"detail":null}"#
        );
        assert_eq!(line(Outcome::Refused("no\x1b".into())).text(), "home-1 refused (1.2 s): no\\u{1b}");
        let mut tally = Tally::default();
        tally.add(&Outcome::NotStarted);
        tally.add(&Outcome::Offline);
        assert_eq!(counts(&tally), "1 offline, 1 not started");
    }
}
