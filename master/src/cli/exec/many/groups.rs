//! Who answered the same. Outputs are compared whole by their hashes; of what they said a bounded part is kept.

use serde::Serialize;

use super::{super::following::Pipe, outcome::Outcome};
use crate::api::dto::exec::Exit;

/// Most bytes kept of one agent's output.
const KEPT_MAX: usize = 1 << 20;
/// Most bytes kept of all different outputs together.
const ALL_MAX: usize = 32 << 20;

/// One agent's output as it comes.
#[derive(Debug)]
pub(super) struct Heard {
    stdout: blake3::Hasher,
    stderr: blake3::Hasher,
    bytes: u64,
    kept: Vec<u8>,
    keep_max: usize,
}

impl Heard {
    /// `keep`: what was said is wanted at the end.
    pub(super) fn new(keep: bool) -> Self {
        let keep_max = if keep { KEPT_MAX } else { 0 };
        Self { stdout: blake3::Hasher::new(), stderr: blake3::Hasher::new(), bytes: 0, kept: Vec::new(), keep_max }
    }

    pub(super) fn hear(&mut self, pipe: Pipe, bytes: &[u8]) {
        match pipe {
            Pipe::Stdout => self.stdout.update(bytes),
            Pipe::Stderr => self.stderr.update(bytes),
        };
        self.bytes += bytes.len() as u64;
        let room = (self.keep_max - self.kept.len()).min(bytes.len());
        self.kept.extend_from_slice(&bytes[..room]);
    }
}

/// Agents whose programs ended alike and said the same.
#[derive(Debug, Serialize)]
pub(super) struct Group {
    #[serde(skip)]
    said: [blake3::Hash; 2],
    pub(super) exit: Exit,
    pub(super) output_bytes: u64,
    pub(super) agents: Vec<String>,
    /// What they said, or as much of it as is kept.
    #[serde(skip)]
    pub(super) kept: Vec<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Vec<Group>,
    kept: usize,
}

impl Groups {
    /// Those that never ended are in no group.
    pub(super) fn add(&mut self, agent: &str, outcome: &Outcome, mut heard: Heard) {
        let Outcome::Exit(exit) = outcome else { return };
        let said = [heard.stdout.finalize(), heard.stderr.finalize()];
        if let Some(group) = self.groups.iter_mut().find(|group| group.said == said && group.exit == *exit) {
            return group.agents.push(agent.to_owned());
        }
        heard.kept.truncate(ALL_MAX - self.kept);
        heard.kept.shrink_to_fit();
        self.kept += heard.kept.len();
        let agents = vec![agent.to_owned()];
        self.groups.push(Group { said, exit: exit.clone(), output_bytes: heard.bytes, agents, kept: heard.kept });
    }

    /// The largest first, the names in each in order: they were added as they ended.
    pub(super) fn sorted(mut self) -> Vec<Group> {
        for group in &mut self.groups {
            group.agents.sort_unstable();
        }
        self.groups.sort_by_key(|group| std::cmp::Reverse(group.agents.len()));
        self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[(Pipe, &[u8])]) -> Heard {
        let mut heard = Heard::new(true);
        pieces.iter().for_each(|(pipe, bytes)| heard.hear(*pipe, bytes));
        heard
    }

    #[test]
    fn alike_are_those_that_said_the_same_and_ended_the_same() {
        let exit = |code| Outcome::Exit(Exit { code: Some(code), ..Exit::default() });
        let mut groups = Groups::default();
        groups.add("odd", &exit(0), heard(&[(Pipe::Stderr, b"same")]));
        groups.add("a", &exit(0), heard(&[(Pipe::Stdout, b"sa"), (Pipe::Stderr, b"!"), (Pipe::Stdout, b"me")]));
        groups.add("b", &exit(0), heard(&[(Pipe::Stdout, b"same"), (Pipe::Stderr, b"!")]));
        groups.add("failed", &exit(1), heard(&[(Pipe::Stdout, b"same"), (Pipe::Stderr, b"!")]));
        groups.add("away", &Outcome::Offline, heard(&[]));
        let groups = groups.sorted();
        let agents: Vec<_> = groups.iter().map(|group| group.agents.join(",")).collect();
        assert_eq!(agents, ["a,b", "odd", "failed"]);
        assert_eq!((groups[0].output_bytes, groups[0].kept.as_slice()), (5, &b"sa!me"[..]));
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_compared_is_not() {
        let exit = Outcome::Exit(Exit { code: Some(0), ..Exit::default() });
        let long = vec![b'x'; KEPT_MAX];
        let mut groups = Groups::default();
        for agent in 0..100_u8 {
            groups.add(&agent.to_string(), &exit, heard(&[(Pipe::Stdout, &long), (Pipe::Stdout, &[agent / 2])]));
        }
        assert!(groups.kept <= ALL_MAX);
        let groups = groups.sorted();
        assert_eq!((groups.len(), groups[0].agents.len()), (50, 2));
        assert_eq!((groups[0].output_bytes, groups[0].kept.len()), (KEPT_MAX as u64 + 1, KEPT_MAX));
    }
}
