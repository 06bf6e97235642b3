//! Numbered codes: why a stream, a line or a request ended. Numbers are for ever; unknown ones are kept, not lost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A numbered reason. Travels as QUIC application close code, stream reset code, and inside refusals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($number:literal $name:ident $text:literal $meaning:literal;)*) => {
        impl Code {
            $(#[doc = $meaning] pub const $name: Code = Code($number);)*

            /// Every code this build knows.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The stable word for this code, as used in APIs, events and metrics; `None` for one this build does not know.
            pub fn word(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)*
                    _ => None,
                }
            }

            /// One sentence for people; `None` for a code this build does not know.
            pub fn meaning(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($meaning),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    // how a line or stream ends: 0x00..
    0x00 DONE "done" "Ended as intended.";
    0x01 SHUTDOWN "shutdown" "This end is shutting down.";
    0x02 SUPERSEDED "superseded" "A newer line of the same agent took over.";
    0x03 HEARTBEAT_LOST "heartbeat_lost" "Too many heartbeats were missed.";
    0x04 SUSPENDED "suspended" "The agent is suspended; an operator can resume it.";
    0x05 REMOVED "removed" "The agent was removed from this master.";
    0x06 ABANDONED "abandoned" "The stream was dropped before its end.";
    0x07 TCP_RESET "tcp_reset" "The TCP connection behind the stream was reset.";
    0x08 TUNNEL_CLOSED "tunnel_closed" "The tunnel of this stream was closed.";
    0x09 WINDOW_EXHAUSTED "window_exhausted" "The longest-stalled stream was reset to free the line's window.";
    0x0a CANCELLED "cancelled" "The caller cancelled it.";
    0x0b LINE_LOST "line_lost" "The line was lost.";
    0x0c CLONE "clone" "Another living process holds the line with the same identity.";
    0x0d SILENT "silent" "Nothing was heard on the line for too long.";
    0x0e OWNER_LOCKDOWN "locked_down_by_owner" "The machine's owner locked it down, and only its owner can lift that.";
    0x0f CARRIER_SILENT "carrier_silent" "UDP does not get through here; the line is inside a WebSocket.";
    0x10 CARRIER_BROKEN "carrier_broken" "UDP gets through here and loses too much; the line is inside a WebSocket.";
    0x11 CARRIER_BACK "carrier_back" "UDP gets through again; the line left its WebSocket.";
    0x12 VISIT_OVER "visit_over" "The agent holds no standing line and nothing needs it; it looks in again soon.";

    // the peer broke the rules: 0x20..
    0x20 MALFORMED "malformed" "A message could not be decoded.";
    0x21 TOO_LARGE "too_large" "A message is longer than its bound.";
    0x22 UNEXPECTED "unexpected" "A message that does not belong here.";
    0x23 TOO_SLOW "too_slow" "A message did not arrive in time.";
    0x24 VERSION "unsupported_version" "No protocol version is spoken by both ends; upgrade the older one.";
    0x25 INTERNAL "internal" "This end failed; its log says why.";
    0x26 BUSY "busy" "A bound is reached; try again later.";

    // identity and enrolment: 0x40..
    0x40 CERTIFICATE_REQUIRED "certificate_required" "A client certificate is required; enrol first.";
    0x41 CERTIFICATE_EXPIRED "certificate_expired" "The client certificate ran out; renew it.";
    0x42 UNKNOWN_IDENTITY "unknown_identity" "The certificate belongs to no agent of this master, or its key is not the one on record; enrol again with a new secret.";
    0x43 ENROL_REFUSED "enrol_refused" "Unknown agent id, or wrong, used or expired secret; ask an operator for `landline agents resecret`.";
    0x44 BAD_CSR "bad_csr" "The certificate request could not be used.";
    0x45 SLOW_DOWN "slow_down" "Too many failed attempts; wait before the next one.";
    0x46 NAME_TAKEN "name_taken" "An agent of this name exists already, and no name is taken over: choose another (--name), or ask an operator for `landline agents resecret`.";
    0x47 ENROL_WAITS "enrol_waits" "An operator has to approve this machine first.";
    0x48 ENROL_REJECTED "enrol_rejected" "An operator rejected this machine.";

    // a request was not carried out: 0x60..
    0x60 REPLAYED "replayed" "This request id was seen before.";
    0x61 STALE "stale" "The request was issued too far from the master's time.";
    0x62 POLICY "policy" "The owner's policy on the agent forbids it.";
    0x63 UNKNOWN_OPERATION "unknown_operation" "The agent does not know this operation; upgrade it.";
    0x64 INVALID "invalid" "The request is not well formed.";

    // dialling a target: 0x80..
    0x80 TARGET_REFUSED "target_refused" "The target refused the connection: nothing listens on that port.";
    0x81 TARGET_UNREACHABLE "target_unreachable" "The target cannot be reached from the agent.";
    0x82 TARGET_TIMEOUT "target_timeout" "The target did not answer the connection in time.";
    0x83 NAME_NOT_FOUND "name_not_found" "The target's name does not resolve on the agent.";

    // exec and commands: 0xa0..
    0xa0 SPAWN_FAILED "spawn_failed" "The program could not be started.";
    0xa1 TIMED_OUT "timed_out" "It ran longer than its timeout and was killed.";
    0xa2 UNREAD "unread" "Nobody read the output for ten minutes; it was killed.";
    0xa3 OUTCOME_UNKNOWN "outcome_unknown" "It was started; whether and how it ended is not known.";
    0xa4 UNKNOWN_ACTION "unknown_action" "The agent knows no such service or action.";
    0xa5 ACTION_FAILED "action_failed" "The action ran and failed.";

    // sessions that outlive their stream: 0xc0..
    0xc0 NO_SESSION "no_session" "No such session: it ended too long ago, or the agent was restarted.";
    0xc1 OUTPUT_GONE "output_gone" "The output at this offset is no longer kept, or is not there yet.";
    0xc2 IDLE "idle" "Nothing was typed for too long.";
    0xc3 UNATTACHED "unattached" "Nobody was attached for too long.";
    0xc4 RECORDING_FAILED "recording_failed" "The recording could not be written, and no session may go unrecorded.";

    // files: 0xe0..
    0xe0 NOT_FOUND "not_found" "No such file or folder.";
    0xe1 OUTSIDE_ROOTS "outside_roots" "The path leads out of the folders that the owner's policy opens.";
    0xe2 READ_ONLY "read_only" "The owner's policy lets this folder only be read.";
    0xe3 EXISTS "exists" "Something is there already.";
    0xe4 NOT_A_FILE "not_a_file" "Not a plain file: a folder, a device, a socket or a pipe.";
    0xe5 NOT_A_FOLDER "not_a_folder" "Not a folder.";
    0xe6 NOT_EMPTY "not_empty" "The folder is not empty.";
    0xe7 NO_ACCESS "no_access" "The system refuses it to the agent's user.";
    0xe8 NO_SPACE "no_space" "No room on the disk, or the quota is used up; the old file is as it was.";
    0xe9 SOURCE_CHANGED "source_changed" "The file changed while it was read; begin again.";
    0xea WRONG_HASH "wrong_hash" "What arrived is not what was announced; the old file is as it was.";
    0xeb BAD_OFFSET "bad_offset" "The offset is not where the other end stands.";
    0xec BAD_ARCHIVE "bad_archive" "Not an archive of this kind, or one that is damaged or would leave its folder.";
    0xed IO_FAILED "io_failed" "The file system failed.";
}

impl Code {
    /// The code carried by a QUIC variable-length integer; values beyond 32 bits become [`Code::INTERNAL`].
    pub fn from_u64(value: u64) -> Self {
        u32::try_from(value).map_or(Self::INTERNAL, Self)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.word() {
            Some(word) => f.write_str(word),
            None => write!(f, "code_{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_words_are_unique() {
        let numbers: HashSet<_> = Code::ALL.iter().map(|code| code.0).collect();
        let words: HashSet<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert_eq!(words.len(), Code::ALL.len());
    }

    #[test]
    fn unknown_codes_are_kept() {
        assert_eq!(Code(0x7fff).to_string(), "code_0x7fff");
        assert_eq!(Code::from_u64(u64::MAX), Code::INTERNAL);
    }
}
