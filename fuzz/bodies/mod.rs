//! What each fuzz target does with its input: shared by the fuzzer and by the test that replays the corpora. A body may
//! refuse its input but never panic, unless a promise is broken.

mod certificates;
mod messages;
mod replays;

/// A target's name and its body.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Every target but the tunnels' state machine, which brings its own body.
pub(crate) const TARGETS: &[Target] = &[
    ("agent_id", messages::agent_id),
    ("command_reply", messages::message::<proto::command::Reply>),
    ("csr", certificates::csr),
    ("enrol_reply", messages::message::<proto::enrol::EnrolReply>),
    ("enrol_request", messages::message::<proto::enrol::EnrolRequest>),
    ("frames", messages::frames),
    ("freshness", replays::freshness),
    ("from_agent", messages::message::<proto::control::FromAgent>),
    ("from_exec", messages::message::<proto::exec::FromExec>),
    ("from_master", messages::message::<proto::control::FromMaster>),
    ("hello", messages::message::<proto::control::Hello>),
    ("hello_reply", messages::message::<proto::control::HelloReply>),
    ("join_token", certificates::join_token),
    ("open", messages::open),
    ("open_head", messages::message::<proto::open::OpenHead>),
    ("open_reply", messages::message::<proto::open::OpenReply>),
    ("packets", messages::packets),
    ("peer_identity", certificates::peer_identity),
    ("pin", certificates::pin),
    ("to_exec", messages::message::<proto::exec::ToExec>),
];

/// Runs one input through the body of `target`.
pub(crate) fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, body) = found.unwrap_or_else(|| panic!("no fuzz target {target}"));
    body(input);
}
