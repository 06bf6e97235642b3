//! Every row of the lifecycle table with explicit time, and the invariants over random histories.

use proptest::{collection::vec, prelude::*};

use super::{model::Checker, *};

const RULES: Rules = Rules {
    standing: false,
    pending_ms: 30_000,
    grace_ms: 30_000,
    heartbeat_ms: None,
    idle_ms: None,
    ttl_ms: 1_800_000,
    ttl_max_ms: 7_200_000,
};
const START: i64 = 1_000_000;

fn open(rules: Rules, link: Link) -> Checker {
    Checker::new(rules, START, link)
}

fn step(checker: &mut Checker, after: i64, event: Event) -> Vec<Effect> {
    checker.step(START + after, event).unwrap()
}

fn active(rules: Rules) -> Checker {
    let mut checker = open(rules, Link::Up);
    let effects = step(&mut checker, 5, Event::ProbePassed);
    assert_eq!(effects, [Effect::Persist, Effect::Publish(Notice::Active)]);
    checker
}

fn ended(checker: &Checker) -> (&'static str, &'static str, i64) {
    let ended = checker.lifecycle.state().ended().expect("final");
    (checker.lifecycle.state().word(), ended.reason.word(), ended.at - START)
}

/// Wakes the machine exactly when it asks, up to and including `until`.
fn sleep(checker: &mut Checker, until: i64) {
    while let Some(at) = checker.lifecycle.next_wake().filter(|at| *at <= START + until) {
        checker.step(at, Event::Wake).unwrap();
    }
}

fn refused() -> Failure {
    Failure::new("target_refused", "nothing listens")
}

#[test]
fn a_probe_starts_at_once_and_its_passing_makes_it_active() {
    let (_, effects) = Lifecycle::open(RULES, START, Link::Up);
    assert_eq!(effects, [Effect::Publish(Notice::Pending), Effect::StartProbe(Depth::Full)]);
    let checker = active(RULES);
    assert_eq!(checker.lifecycle.started_at(), Some(START + 5));
    assert_eq!(checker.lifecycle.health(), &Health::Ok { since: START + 5 });
}

#[test]
fn pending_for_30_s_is_a_timeout_that_says_why() {
    let mut offline = open(RULES, Link::Away { since: START - 9_000_000 });
    sleep(&mut offline, 29_999);
    assert_eq!(offline.lifecycle.state().word(), "pending");
    sleep(&mut offline, 30_000);
    assert_eq!(ended(&offline), ("timeout", "agent_offline", 30_000));

    let mut silent = open(RULES, Link::Up);
    sleep(&mut silent, 30_000);
    assert_eq!(ended(&silent), ("timeout", "no_answer", 30_000));

    let mut closed = open(RULES, Link::Up);
    step(&mut closed, 2, Event::ProbeFailed(refused()));
    sleep(&mut closed, 30_000);
    assert_eq!(ended(&closed), ("timeout", "target_refused", 30_000));
}

#[test]
fn an_agent_that_comes_in_time_is_probed() {
    let mut checker = open(RULES, Link::Away { since: START });
    assert_eq!(step(&mut checker, 29_000, Event::LinkUp), [Effect::StartProbe(Depth::Full)]);
    step(&mut checker, 29_010, Event::ProbePassed);
    assert_eq!(checker.lifecycle.state().word(), "active");
}

#[test]
fn a_failed_probe_is_tried_again_and_shows_why_meanwhile() {
    let mut checker = open(RULES, Link::Up);
    let effects = step(&mut checker, 10, Event::ProbeFailed(refused()));
    assert_eq!(effects, [Effect::Publish(Notice::Health)]);
    assert_eq!(checker.lifecycle.health().failure().unwrap().word, "target_refused");
    assert_eq!(checker.lifecycle.next_wake(), Some(START + 110));
    assert_eq!(step(&mut checker, 110, Event::Wake), [Effect::StartProbe(Depth::Full)]);
    step(&mut checker, 120, Event::ProbeFailed(refused()));
    assert_eq!(checker.lifecycle.next_wake(), Some(START + 320));
    step(&mut checker, 320, Event::Wake);
    step(&mut checker, 330, Event::ProbePassed);
    assert_eq!(checker.lifecycle.state().word(), "active");
}

#[test]
fn what_the_owners_policy_forbids_ends_at_once() {
    let mut checker = open(RULES, Link::Up);
    let forbidden = Failure::from_code(proto::code::Code::POLICY, "no");
    step(&mut checker, 3, Event::ProbeFailed(forbidden.clone()));
    assert_eq!(ended(&checker), ("disconnected", "policy", 3));

    let mut standing = open(Rules { standing: true, ..RULES }, Link::Up);
    step(&mut standing, 3, Event::ProbeFailed(forbidden));
    assert_eq!(standing.lifecycle.state().word(), "pending");
}

#[test]
fn closing_works_in_both_open_states() {
    for reason in [CloseReason::ClosedByUser, CloseReason::WindowClosed, CloseReason::MasterRestarted] {
        for mut checker in [open(RULES, Link::Up), active(RULES)] {
            let effects = step(&mut checker, 50, Event::Close(reason));
            let all =
                [Effect::Persist, Effect::ReleaseListener, Effect::KillConnections, Effect::Publish(Notice::Closed)];
            assert_eq!(effects, all);
            assert_eq!(ended(&checker), ("disconnected", reason.word(), 50));
        }
    }
}

#[test]
fn suspension_and_removal_end_every_kind_at_once() {
    for standing in [false, true] {
        for reason in [CloseReason::Suspended, CloseReason::Removed] {
            let mut checker = active(Rules { standing, ..RULES });
            step(&mut checker, 60, Event::Close(reason));
            assert_eq!(ended(&checker), ("disconnected", reason.word(), 60));
        }
    }
}

#[test]
fn a_silent_caller_is_lost_after_150_s_only_where_it_must_beat() {
    let rules = Rules { heartbeat_ms: Some(150_000), ..RULES };
    let mut checker = active(rules);
    sleep(&mut checker, 60_000);
    step(&mut checker, 60_000, Event::Heartbeat);
    assert_eq!(checker.lifecycle.last_heartbeat(), Some(START + 60_000));
    sleep(&mut checker, 209_999);
    assert_eq!(checker.lifecycle.state().word(), "active");
    sleep(&mut checker, 210_000);
    assert_eq!(ended(&checker), ("disconnected", "heartbeat_lost", 210_000));

    let mut never_beaten = active(rules);
    sleep(&mut never_beaten, 200_000);
    assert_eq!(ended(&never_beaten), ("disconnected", "heartbeat_lost", 150_005));

    let mut free = active(RULES);
    sleep(&mut free, 1_000_000);
    assert_eq!(free.lifecycle.state().word(), "active");
}

#[test]
fn a_heartbeat_after_the_deadline_comes_too_late() {
    let mut checker = active(Rules { heartbeat_ms: Some(150_000), ..RULES });
    step(&mut checker, 150_006, Event::Heartbeat);
    assert_eq!(ended(&checker), ("disconnected", "heartbeat_lost", 150_006));
}

#[test]
fn an_agent_away_within_the_grace_changes_nothing() {
    let mut checker = active(RULES);
    assert_eq!(step(&mut checker, 1_000, Event::LinkAway { since: START + 1_000 }), []);
    sleep(&mut checker, 30_999);
    assert_eq!(checker.lifecycle.state().word(), "active");
    step(&mut checker, 30_999, Event::LinkUp);
    sleep(&mut checker, 100_000);
    assert_eq!(checker.lifecycle.state().word(), "active");
}

#[test]
fn the_grace_counts_from_the_first_sign() {
    let mut checker = active(RULES);
    step(&mut checker, 12_000, Event::LinkAway { since: START + 12_000 });
    step(&mut checker, 41_000, Event::LinkAway { since: START + 41_000 });
    sleep(&mut checker, 60_000);
    assert_eq!(ended(&checker), ("disconnected", "agent_lost", 42_000));
}

#[test]
fn an_idle_tunnel_closes_where_asked_for() {
    let mut checker = active(Rules { idle_ms: Some(60_000), ..RULES });
    step(&mut checker, 50_000, Event::Activity { at: START + 50_000 });
    sleep(&mut checker, 109_999);
    assert_eq!(checker.lifecycle.state().word(), "active");
    sleep(&mut checker, 110_000);
    assert_eq!(ended(&checker), ("disconnected", "idle", 110_000));
}

#[test]
fn thirty_minutes_expire_and_extending_stops_at_the_cap() {
    let mut checker = active(RULES);
    sleep(&mut checker, 1_799_999);
    assert_eq!(checker.lifecycle.state().word(), "active");
    sleep(&mut checker, 1_800_000);
    assert_eq!(ended(&checker), ("expired", "expired", 1_800_000));

    let mut extended = active(RULES);
    let effects = step(&mut extended, 1_000_000, Event::Extend { ttl_ms: 1_800_000 });
    assert_eq!(effects.last(), Some(&Effect::Publish(Notice::Extended)));
    assert_eq!(extended.lifecycle.expires_at(), Some(START + 2_800_000));
    step(&mut extended, 1_000_000, Event::Extend { ttl_ms: 1_000 });
    assert_eq!(extended.lifecycle.expires_at(), Some(START + 2_800_000), "an expiry never comes nearer");
    step(&mut extended, 1_000_000, Event::Extend { ttl_ms: i64::MAX });
    assert_eq!(extended.lifecycle.expires_at(), Some(START + 7_200_000));
    sleep(&mut extended, 7_200_000);
    assert_eq!(ended(&extended), ("expired", "expired", 7_200_000));
}

#[test]
fn a_target_that_dies_later_leaves_it_active_and_failing() {
    let mut checker = active(RULES);
    assert_eq!(step(&mut checker, 5_000, Event::DialFailed(refused())), [Effect::Publish(Notice::Health)]);
    assert_eq!(checker.lifecycle.state().word(), "active");
    step(&mut checker, 7_000, Event::ProbeFailed(Failure::new("target_timeout", "")));
    let Health::Failing { since, failure } = checker.lifecycle.health() else { panic!("failing") };
    assert_eq!((*since - START, failure.word), (5_000, "target_timeout"));
    assert_eq!(step(&mut checker, 9_000, Event::DialPassed), [Effect::Publish(Notice::Health)]);
    assert_eq!(checker.lifecycle.health(), &Health::Ok { since: START + 9_000 });
}

#[test]
fn a_flapping_target_is_told_once_a_second() {
    let mut checker = active(RULES);
    let mut notices = 0;
    for ms in 2_000..12_000 {
        let event = if ms % 2 == 0 { Event::DialFailed(refused()) } else { Event::DialPassed };
        notices += step(&mut checker, ms, event).len();
    }
    assert_eq!(notices, 10);
    sleep(&mut checker, 14_000);
    assert_eq!(checker.lifecycle.health().word(), "ok");
}

#[test]
fn an_active_target_is_probed_at_each_heartbeat_by_connect_only() {
    let mut checker = active(RULES);
    assert_eq!(step(&mut checker, 15_000, Event::AgentBeat), [Effect::StartProbe(Depth::Connect)]);
    step(&mut checker, 20_000, Event::LinkAway { since: START + 20_000 });
    assert_eq!(step(&mut checker, 20_001, Event::AgentBeat), []);
    assert_eq!(step(&mut open(RULES, Link::Up), 1, Event::AgentBeat), []);
}

#[test]
fn a_standing_tunnel_goes_with_its_agent_and_never_ends_by_time() {
    let rules = Rules { standing: true, heartbeat_ms: Some(150_000), idle_ms: Some(1_000), ..RULES };
    let mut checker = open(rules, Link::Away { since: START });
    sleep(&mut checker, 100_000_000);
    assert_eq!(checker.lifecycle.state().word(), "pending");
    step(&mut checker, 100_000_000, Event::LinkUp);
    step(&mut checker, 100_000_010, Event::ProbePassed);
    assert_eq!(checker.lifecycle.state().word(), "active");
    let started = checker.lifecycle.started_at();
    step(&mut checker, 100_001_000, Event::LinkAway { since: START + 100_001_000 });
    sleep(&mut checker, 100_030_999);
    assert_eq!(checker.lifecycle.state().word(), "active");
    sleep(&mut checker, 100_031_000);
    assert_eq!(checker.lifecycle.state().word(), "pending");
    step(&mut checker, 100_040_000, Event::LinkUp);
    step(&mut checker, 100_040_001, Event::ProbePassed);
    assert_eq!(checker.lifecycle.state().word(), "active");
    assert_eq!(checker.lifecycle.started_at(), started);
    step(&mut checker, 100_040_002, Event::Close(CloseReason::MasterStopped));
    assert_eq!(checker.lifecycle.state().word(), "active");
    step(&mut checker, 100_040_003, Event::Close(CloseReason::ClosedByUser));
    assert_eq!(ended(&checker), ("disconnected", "closed_by_user", 100_040_003));
}

#[test]
fn a_probe_lost_with_its_line_is_started_again_on_the_next() {
    let mut checker = open(RULES, Link::Up);
    step(&mut checker, 10, Event::LinkAway { since: START + 10 });
    step(&mut checker, 11, Event::ProbeLost);
    assert_eq!(step(&mut checker, 900, Event::LinkUp), [Effect::StartProbe(Depth::Full)]);

    let mut other_order = open(RULES, Link::Up);
    step(&mut other_order, 10, Event::ProbeLost);
    assert_eq!(step(&mut other_order, 110, Event::Wake), [Effect::StartProbe(Depth::Full)]);
}

/// Transitions in all: `LANDLINE_LIFECYCLE_STEPS`, 2 × 10^5 unless set.
fn histories() -> u32 {
    let steps: u32 = std::env::var("LANDLINE_LIFECYCLE_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000);
    steps.div_ceil(STEPS_PER_HISTORY)
}
const STEPS_PER_HISTORY: u32 = 200;

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_invariants_hold_over_random_histories(
        bytes in vec(any::<u8>(), 3 * STEPS_PER_HISTORY as usize + 1)
    ) {
        prop_assert_eq!(model::run(&bytes).map(|_| ()), Ok(()));
    }
}

#[test]
fn random_histories_reach_every_state() {
    let mut seen = std::collections::BTreeSet::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..301)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 32) as u8
            })
            .collect();
        let checker = model::run(&bytes).unwrap();
        let state = checker.lifecycle.state();
        seen.insert((state.word(), state.ended().map(|ended| ended.reason.word())));
    }
    let words: std::collections::BTreeSet<_> = seen.iter().map(|(word, _)| *word).collect();
    assert_eq!(words.len(), 5, "{seen:?}");
    for reason in ["heartbeat_lost", "agent_lost", "idle", "closed_by_user", "suspended", "target_refused"] {
        assert!(seen.iter().any(|(_, why)| *why == Some(reason)), "{reason} not in {seen:?}");
    }
}
