//! Ends what a killed agent left running. Finds it by the group, start and boot that the journal holds, and by the request
//! id in its environment; never by a process number alone, which may be somebody else's by now.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::launch::REQUEST_VARIABLE;
use crate::{journal::Leftover, platform};

/// Members may fork while they are being killed; after this the rest is named and left.
const KILL_WITHIN: Duration = Duration::from_secs(3);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// Rounds in a row that must find nothing: in the moment of its exec a process shows no environment.
const QUIET_ROUNDS: u32 = 2;

/// Kills everything that belongs to the request and waits until it is gone. Blocks; `false` if something stays.
pub fn end(leftover: &Leftover) -> bool {
    let deadline = Instant::now() + KILL_WITHIN;
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        quiet = if kill(leftover) { 0 } else { quiet + 1 };
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
    true
}

/// One round; whether anything was there.
fn kill(leftover: &Leftover) -> bool {
    let mut found = false;
    if let Some(mark) = leftover.process.as_ref().filter(|mark| mark.is_alive()) {
        tracing::warn!(id = %leftover.id, group = mark.group, "ending what an earlier run left behind");
        platform::signal_group(mark.group, Signal::KILL);
        found = true;
    }
    for pid in platform::marked_processes(&format!("{REQUEST_VARIABLE}={}", leftover.id)) {
        // It may end by itself in between.
        let _ = platform::signal_process(pid, Signal::KILL);
        found = true;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use proto::id::RequestId;

    use super::*;
    use crate::platform::ProcessMark;

    fn sleeper(id: RequestId) -> std::process::Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 600 & sleep 600"]).env(REQUEST_VARIABLE, id.to_string());
        command.process_group(0).spawn().unwrap()
    }

    #[test]
    fn a_group_left_behind_is_ended_with_all_its_members() {
        let id = RequestId::random();
        let mut child = sleeper(id);
        let mark = ProcessMark::of_leader(child.id()).unwrap();
        assert!(end(&Leftover { id, process: Some(mark.clone()) }));
        assert!(!child.wait().unwrap().success());
        assert!(!platform::group_exists(mark.group));
    }

    #[test]
    fn without_a_mark_the_request_id_in_the_environment_is_enough() {
        let id = RequestId::random();
        let mut child = sleeper(id);
        let group = i32::try_from(child.id()).unwrap();
        assert!(end(&Leftover { id, process: None }));
        assert!(!child.wait().unwrap().success());
        assert!(!platform::group_exists(group));
    }

    #[test]
    fn a_reused_process_number_is_left_alone() {
        let mut child = sleeper(RequestId::random());
        let mark = ProcessMark::of_leader(child.id()).unwrap();
        let earlier = ProcessMark { start_time: mark.start_time - 1, ..mark.clone() };
        let other_boot = ProcessMark { boot_id: "another".into(), ..mark.clone() };
        for process in [earlier, other_boot] {
            assert!(end(&Leftover { id: RequestId::random(), process: Some(process) }));
            assert!(mark.is_alive());
        }
        platform::signal_group(mark.group, Signal::KILL);
        child.wait().unwrap();
    }
}
