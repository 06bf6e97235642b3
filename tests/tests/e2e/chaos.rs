//! Chaos, short: three seeds that are always the same, and one of whoever asks for it (`make chaos`). And kills at places that
//! have a name, where a kill at any time hardly ever falls.

use std::time::Duration;

use landline_tests::{
    chaos::{
        self,
        Place::{self, Agent, Master},
    },
    soak,
};

const SHORT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_1() {
    chaos::run(1, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_2() {
    chaos::run(2, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_through_seed_3() {
    chaos::run(3, SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos runs it"]
async fn a_fleet_comes_through_any_seed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LANDLINE_CHAOS_SEED").expect("LANDLINE_CHAOS_SEED is a number");
    let seconds = number("LANDLINE_CHAOS_SECONDS").expect("LANDLINE_CHAOS_SECONDS is a number");
    chaos::run(seed, Duration::from_secs(seconds)).await;
}

/// What of them `make test` takes: before and after what must not be lost or done twice.
const A_FEW: [Place; 6] = [
    Master("tunnels.insert.after_commit"),
    Master("sessions.begin.after_commit"),
    Master("exec.sent"),
    Agent("exec.launched"),
    Agent("file.renamed"),
    Agent("enrolment.toml.before_rename"),
];

const ALL: [Place; 53] = [
    Master("agents.connected.before_commit"),
    Master("agents.connected.after_commit"),
    Master("events.append.before_commit"),
    Master("events.append.after_commit"),
    Master("audit.append.before_commit"),
    Master("audit.append.after_commit"),
    Master("tunnel.bound"),
    Master("tunnels.insert.before_commit"),
    Master("tunnels.insert.after_commit"),
    Master("tunnel.listening"),
    Master("tunnels.update.before_commit"),
    Master("tunnels.update.after_commit"),
    Master("tunnel.before_close"),
    Master("tunnel.closed"),
    Master("sessions.begin.before_commit"),
    Master("sessions.begin.after_commit"),
    Master("exec.before_sent"),
    Master("exec.sent"),
    Master("exec.opened"),
    Master("sessions.end.before_commit"),
    Master("sessions.end.after_commit"),
    Master("recording.created"),
    Master("recording.before_event"),
    Master("recording.before_end"),
    Master("recording.after_end"),
    Master("agents.patch.before_commit"),
    Master("agents.patch.after_commit"),
    Agent("journal.begun.before_write"),
    Agent("journal.begun.before_sync"),
    Agent("journal.begun.written"),
    Agent("journal.started.before_write"),
    Agent("journal.started.before_sync"),
    Agent("journal.started.written"),
    Agent("journal.ended.before_write"),
    Agent("journal.ended.before_sync"),
    Agent("journal.ended.written"),
    Agent("exec.before_launch"),
    Agent("exec.launched"),
    Agent("exec.before_ended"),
    Agent("shell.before_launch"),
    Agent("shell.launched"),
    Agent("shell.before_ended"),
    Agent("file.before_sync"),
    Agent("file.before_rename"),
    Agent("file.renamed"),
    Agent("file.in_place"),
    Agent("log.before_write"),
    Agent("log.written"),
    Agent("enrolment.toml.before_write"),
    Agent("enrolment.toml.before_rename"),
    Agent("enrolment.toml.renamed"),
    Agent("enrolment.toml.written"),
    Agent("master-time.before_rename"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_two_writes_loses_nothing_and_does_nothing_twice() {
    chaos::killed_at_each(soak::count(&A_FEW[..], &ALL[..])).await;
}
